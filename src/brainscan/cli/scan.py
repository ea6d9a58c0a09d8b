"""``brainscan scan``: which latents fire on each token of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import AtlasFolder, DictionaryName, Html, Json, Model
from brainscan.cli.output import console, heat, note, print_json, visible, working, write_page
from brainscan.errors import UsageError

if TYPE_CHECKING:
    from brainscan.features import Scan

EXAMPLE = 'Example: brainscan scan "In the beginning God created the heaven." --html strip.html'

_LISTED = 12


def scan(
    text: Annotated[str | None, typer.Argument(help="The text; - reads it from stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A UTF-8 text file.")] = None,
    model: Model = None,
    dictionary: DictionaryName = None,
    atlas: AtlasFolder = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Latents for each token.")] = 5,
    chat: Annotated[bool, typer.Option("--chat", help="Read it as a user's message.")] = False,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Show the most active latents of each token of a text."""
    with working():
        from brainscan.cli.parts import open_pair
        from brainscan.features import Atlas
        from brainscan.features import scan as run

        content = _content(text, file)
        known = Atlas.open(atlas) if atlas else None
        pair = open_pair(model, dictionary)
        read = [{"role": "user", "content": content}] if chat else content
        known = known or Atlas.find(pair.dictionary)
        if known is None:
            note(
                f"{pair.dictionary.name} has no atlas: labels say what latents promote; "
                f"`brainscan atlas search WORD --dictionary {pair.dictionary.name}` builds one"
            )
        result = run(pair.lm, read, pair.dictionary, known, top=top)
        if html is not None:
            write_page(html, result.to_html())
    if as_json:
        print_json(result.to_json())
    else:
        print_scan(result)


def _content(text: str | None, file: Path | None) -> str:
    from brainscan.cli.parts import checked_text, decode_text, read_text

    if (text is None) == (file is None):
        raise UsageError("a text or --file", "both" if text else "neither", "give one of them")
    if file is not None:
        return read_text(file)
    if text == "-":
        return decode_text(sys.stdin.buffer.read(), "stdin")
    return checked_text(text or "", "the command line")


def print_scan(scan: Scan) -> None:
    """Prints a scan: the text coloured by its strongest latents, then what the strongest are."""
    from rich.table import Column, Table
    from rich.text import Text

    out = console()
    shares = [max((a.share for a in token.latents), default=0.0) for token in scan.tokens]
    out.print(heat([token.text for token in scan.tokens], shares))
    table = Table(Column("token", no_wrap=True), Column("latent", no_wrap=True), "of max", "label")
    strongest = [
        (latent.share, token, latent) for token in scan.tokens for latent in token.latents[:1]
    ]
    for share, token, latent in sorted(strongest, key=lambda row: -row[0])[:_LISTED]:
        table.add_row(
            Text(repr(token.text)), latent.id, f"{share:.0%}", Text(visible(latent.label))
        )
    out.print(table)
