"""``brainscan atlas``: the indexed latents of a dictionary, built, searched and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import (
    AtlasFolder,
    Corpus,
    DictionaryName,
    Html,
    Json,
    Model,
    Out,
    Seed,
    Split,
    SplitName,
    Tokens,
)
from brainscan.cli.output import console, heat, print_json, visible, working, write_page

if TYPE_CHECKING:
    from rich.text import Text

    from brainscan.features import Atlas, FeatureCard, Hit
    from brainscan.views import ExampleView

app = typer.Typer(name="atlas", help="Build, search and show atlases.", no_args_is_help=True)

_SHOWN = 5
_AROUND = 8
_QUANTILES = (0.5, 0.9, 0.99)


@app.command(epilog="Example: brainscan atlas build --dictionary my_dictionary --out my_atlas")
def build(
    out: Out,
    model: Model = None,
    dictionary: DictionaryName = None,
    corpus: Corpus = "builtin",
    tokens: Tokens = 200_000,
    split: Split = SplitName.TRAIN,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Index a dictionary's latents: when each fires, with examples, and what it promotes."""
    with working():
        from brainscan.activations import open_corpus
        from brainscan.cli.parts import open_pair
        from brainscan.features import Atlas, AtlasConfig, build_atlas

        pair = open_pair(model, dictionary)
        config = AtlasConfig(tokens, split.part, seed=seed)
        folder = build_atlas(pair.lm, pair.dictionary, open_corpus(corpus), config, out=out)
        atlas = Atlas.open(folder)
    if as_json:
        print_json(
            {
                "out": str(out),
                "digest": atlas.manifest.digest,
                "model": pair.lm.name,
                "dictionary": pair.dictionary.name,
                "hookpoint": atlas.hookpoint,
                "figures": dict(atlas.manifest.figures),
            }
        )
    else:
        print(f"{out}: {atlas.n_latents:,} latents of {atlas.hookpoint}")


@app.command(epilog='Example: brainscan atlas search "god heaven" --limit 5 --json')
def search(
    query: Annotated[str, typer.Argument(help="Words that the latent fires on or promotes.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Results at most.")] = 10,
    model: Model = None,
    dictionary: DictionaryName = None,
    atlas: AtlasFolder = None,
    as_json: Json = False,
) -> None:
    """Find latents by words in their examples and among the tokens they promote.

    Without an atlas of the dictionary one is built first, in the cache.
    """
    with working():
        hits = _open(model, dictionary, atlas).search(query, limit)
    if as_json:
        print_json({"query": query, "results": [hit.to_json() for hit in hits]})
    else:
        _print_hits(query, hits)


@app.command(epilog="Example: brainscan atlas show resid_post.15/1234 --html card.html")
def show(
    address: Annotated[str, typer.Argument(help="A latent's address, such as resid_post.15/1234.")],
    model: Model = None,
    dictionary: DictionaryName = None,
    atlas: AtlasFolder = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Show all that the atlas says of a latent."""
    with working():
        card = _open(model, dictionary, atlas).feature(address)
        if html is not None:
            write_page(html, card.to_html())
    if as_json:
        print_json(card.to_json())
    else:
        _print_card(card)


def _open(model: str | None, dictionary: str | None, folder: Path | None) -> Atlas:
    """The atlas named, or that of the dictionary; the model is only loaded to build one."""
    from brainscan.cli.parts import open_dictionary, open_pair
    from brainscan.features import Atlas

    if folder is not None:
        return Atlas.open(folder)
    found = Atlas.find(open_dictionary(model, dictionary))
    if found is not None:
        return found
    pair = open_pair(model, dictionary)
    return Atlas.for_dictionary(pair.dictionary, pair.lm)


def _print_hits(query: str, hits: Sequence[Hit]) -> None:
    from rich.text import Text

    if not hits:
        print(f"no latent fires on or promotes {query!r}")
        return
    out = console()
    for hit in hits:
        out.print(Text(f"{hit.id}  {hit.score:.3f}  ", style="bold"), Text(visible(hit.label)))
        for example in hit.examples[:1]:
            out.print(Text("    "), _example(example, _AROUND), overflow="ellipsis", no_wrap=True)


def _print_card(card: FeatureCard) -> None:
    from rich.panel import Panel
    from rich.text import Text

    out = console()
    quantiles = dict(card.quantiles)
    spread = ", ".join(f"{f:.0%} {quantiles[f]:.3g}" for f in _QUANTILES if f in quantiles)
    lines = [
        Text(f"fires on {card.firing_rate:.3%} of tokens; maximum {card.maximum:.3g}; {spread}"),
        Text("promotes    " + " ".join(repr(token.text) for token in card.promoted)),
        Text("suppresses  " + " ".join(repr(token.text) for token in card.suppressed)),
        *(
            Text(visible(f"near        {n.id} ({n.cosine:.2f}) {n.label}"))
            for n in card.neighbours[:_SHOWN]
        ),
    ]
    for group in card.groups:
        lines += [Text(""), Text(group.name, style="bold")]
        lines += [_example(example) for example in group.examples[:_SHOWN]]
    title = Text(visible(f"{card.id}: {card.label} (grade {card.grade})"))
    out.print(Panel(Text("\n").join(lines), title=title, title_align="left"))


def _example(example: ExampleView, around: int | None = None) -> Text:
    """A stretch of text in one line, brighter where the latent fires.

    Args:
        example: the stretch.
        around: how many tokens to show on either side of the strongest; None for all.
    """
    near = slice(None)
    if around is not None:
        near = slice(max(0, example.peak - around), example.peak + around + 1)
    return heat(example.tokens[near], example.shares[near])
