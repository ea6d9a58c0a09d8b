"""``brainscan dictionary``: sparse codes of activations, trained and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainscan.cli.options import (
    ContextLength,
    Corpus,
    Hookpoints,
    Json,
    Model,
    Out,
    Seed,
    Tokens,
    parse_count,
)
from brainscan.cli.output import console, print_json, working
from brainscan.errors import UsageError

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.sources import Source

app = typer.Typer(
    name="dictionary", help="Train, evaluate and compare dictionaries.", no_args_is_help=True
)

TextFile = Annotated[
    Path, typer.Option("--text", help="UTF-8 text that no dictionary here was trained on.")
]
Limit = Annotated[
    int,
    typer.Option("--tokens", parser=parse_count, metavar="N", help="Tokens of the text to use."),
]
Name = Annotated[str, typer.Argument(help="A dictionary's name or folder.")]


@app.command(
    epilog="Example: brainscan dictionary train --at resid_post.8 --at resid_post.15 "
    "--tokens 5M --out dictionaries"
)
def train(
    at: Hookpoints,
    out: Out,
    model: Model = None,
    tokens: Tokens = 1_000_000,
    corpus: Corpus = "builtin",
    context: ContextLength = 1024,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Train on this harvest instead of a live one."),
    ] = None,
    latents: Annotated[int, typer.Option("--latents", min=1, help="Number of latents.")] = 4096,
    k: Annotated[int, typer.Option("--k", min=1, help="Active latents per token.")] = 32,
    sparsifier: Annotated[
        str, typer.Option("--sparsifier", help="'topk' or 'batch-topk'.")
    ] = "topk",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a dictionary, or several from one harvest.

    With one hookpoint OUT is the dictionary; with several it holds a dictionary for each.
    Interrupted, the same command goes on from its last checkpoint.
    """
    with working():
        from brainscan.dictionaries import training
        from brainscan.dictionaries.trainer import TrainingConfig

        config = TrainingConfig(latents, k, sparsifier, tokens, seed=seed)
        source = (
            _stored(store, tuple(at), model, seed)
            if store
            else _live(model, tuple(at), corpus, context, seed)
        )
        trained = training.train(source, config, out)
    if as_json:
        print_json({"dictionaries": [_summary(dictionary) for dictionary in trained]})
        return
    for dictionary in trained:
        print(f"{dictionary.name}: {dictionary.n_latents:,} latents of {dictionary.hookpoint}")


def _summary(dictionary: Dictionary) -> dict[str, Any]:
    return {
        "folder": dictionary.name,
        "hookpoint": dictionary.hookpoint,
        "latents": dictionary.n_latents,
        "k": dictionary.k,
        "figures": dict(dictionary.manifest.figures) if dictionary.manifest else {},
    }


def _live(model: str | None, at: tuple[str, ...], corpus: str, context: int, seed: int) -> Source:
    from brainscan.activations import open_corpus
    from brainscan.cli.parts import open_model
    from brainscan.dictionaries.sources import LiveHarvest

    lm = open_model(model)
    names = tuple(lm.resolve(name) for name in at)
    return LiveHarvest(lm, open_corpus(corpus), names, context=context, seed=seed)


def _stored(folder: Path, at: tuple[str, ...], model: str | None, seed: int) -> Source:
    from brainscan.activations import ActivationStore
    from brainscan.dictionaries.sources import StoredActivations

    if model is not None:
        raise UsageError(
            "--store or --model", "both", "leave --model out: the store says which model it is of"
        )
    return StoredActivations(ActivationStore.open(folder), at, seed)


@app.command(
    epilog="Example: brainscan dictionary evaluate smollm2-135m-instruct/resid_post.15 "
    "--text held_out.txt --json"
)
def evaluate(
    dictionary: Name,
    text: TextFile,
    model: Model = None,
    tokens: Limit = 32_768,
    context: ContextLength = 1024,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure how much of a model's activations and behaviour a dictionary keeps.

    Prints the fraction of variance unexplained, active latents per token, the share of dead
    latents, the cross-entropy recovered against zero and mean ablation, and the KL divergence of
    the spliced model from the untouched one.
    """
    with working():
        result = _evaluation(dictionary, model, text, tokens, context, seed)
    if as_json:
        print_json(result)
    else:
        _print_table([result])


@app.command(epilog="Example: brainscan dictionary compare mine theirs --text held_out.txt")
def compare(
    first: Name,
    second: Name,
    text: TextFile,
    model: Model = None,
    tokens: Limit = 32_768,
    context: ContextLength = 1024,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Evaluate two dictionaries on the same text."""
    with working():
        results = [
            _evaluation(name, model, text, tokens, context, seed) for name in (first, second)
        ]
    if as_json:
        print_json({"evaluations": results})
    else:
        _print_table(results)


def _evaluation(
    name: str, model: str | None, text: Path, tokens: int, context: int, seed: int
) -> dict[str, Any]:
    from itertools import islice

    from brainscan.activations import open_corpus, pack
    from brainscan.cli.parts import open_pair
    from brainscan.dictionaries import evaluation

    pair = open_pair(model, name)
    documents = open_corpus(text).documents(seed=seed)
    contexts = list(islice(pack(pair.lm, documents, context), -(-tokens // context)))
    measured = evaluation.evaluate(pair.lm, pair.dictionary, contexts)
    return {
        "dictionary": name,
        "hookpoint": pair.dictionary.hookpoint,
        "model": pair.lm.name,
        "weights": pair.lm.ref.weights,
        "text": str(text),
        **measured.to_json(),
    }


def _print_table(results: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table("figure", *(str(result["dictionary"]) for result in results))
    for name, value in results[0].items():
        if isinstance(value, dict | int):
            table.add_row(name, *(_cell(result[name]) for result in results))
    console().print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:,}"
    if value["value"] is None:
        return "none"
    interval = f" [{value['low']:.3g}, {value['high']:.3g}]" if value["low"] is not None else ""
    return f"{value['value']:.4g}{interval} (n={value['n']:,})"
