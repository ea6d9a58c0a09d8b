"""Options that several verbs share, each written once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model of every verb that is not given one."""


class SplitName(StrEnum):
    """Parts of a corpus."""

    TRAIN = "train"
    SELECT = "select"
    TEST = "test"
    ALL = "all"

    @property
    def part(self) -> Literal["train", "select", "test"] | None:
        """The split as corpora know it; None for all."""
        return _PARTS[self.value]


_PARTS: Mapping[str, Literal["train", "select", "test"] | None] = {
    "train": "train",
    "select": "select",
    "test": "test",
    "all": None,
}
_COUNT = re.compile(r"(?P<number>\d[\d_]*(\.\d+)?)(?P<unit>[kKmMbB]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def parse_count(text: str | int) -> int:
    """Reads a number of tokens: ``5000``, ``200k``, ``1.5M``.

    Raises:
        typer.BadParameter: the text is no such number.
    """
    match = _COUNT.fullmatch(str(text).strip())
    number = float(match["number"].replace("_", "")) if match else 0.0
    count = round(number * _UNITS[match["unit"].lower()]) if match else 0
    if count < 1:
        raise typer.BadParameter(
            f"expected a positive number such as 5000, 200k or 5M; got {text!r}"
        )
    return count


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=(
            "Built-in name, hub id, folder or GGUF file, with +ADAPTER for a LoRA. "
            f"Default: the dictionary's own model, else {DEFAULT_MODEL}."
        ),
    ),
]
DictionaryName = Annotated[
    str | None,
    typer.Option(
        "--dictionary",
        "-d",
        help="Name or folder of a dictionary. Default: the one shipped for the model.",
    ),
]
Hookpoints = Annotated[
    list[str],
    typer.Option("--at", help="Hookpoint, such as resid_post.15; may be repeated."),
]
Corpus = Annotated[
    str,
    typer.Option(
        "--corpus", help="'builtin', a txt, md, jsonl or parquet file, a folder, or hf:NAME."
    ),
]
Tokens = Annotated[
    int,
    typer.Option("--tokens", parser=parse_count, metavar="N", help="Tokens, such as 200k or 5M."),
]
ContextLength = Annotated[
    int, typer.Option("--context", min=2, help="Length of a context in tokens.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write the artifact to.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Also write a self-contained page to this file.")
]
AtlasFolder = Annotated[
    Path | None,
    typer.Option("--atlas", help="Folder of an atlas. Default: the dictionary's own."),
]
Split = Annotated[
    SplitName,
    typer.Option("--split", help="The part of the corpus to read; dictionaries train on 'train'."),
]
