"""``brainscan dictionary``: sparse codes of activations, trained and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from brainscan.cli.options import ContextLength, Corpus, Json, Model, Out, Seed, parse_count
from brainscan.cli.output import console, print_json, working
from brainscan.errors import UsageError

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.extension import ExtensionConfig
    from brainscan.dictionaries.sources import Source
    from brainscan.dictionaries.trainer import TrainingConfig

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
Hookpoints = Annotated[
    list[str] | None,
    typer.Option("--at", help="Hookpoint, such as resid_post.15; may be repeated."),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        parser=parse_count,
        metavar="N",
        help="Tokens, such as 200k or 5M. Default: 1M; 50k with --extend.",
    ),
]
Store = Annotated[
    Path | None, typer.Option("--store", help="Train on this harvest instead of a live one.")
]
Extend = Annotated[
    str | None,
    typer.Option("--extend", help="Add latents to this dictionary, by name or folder."),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on", help="What --extend reads: a stress run's folder, or text as --corpus takes it."
    ),
]
Latents = Annotated[
    int | None,
    typer.Option("--latents", min=1, help="Number of latents. Default: 4096; 1024 added ones."),
]
ActiveLatents = Annotated[
    int | None,
    typer.Option("--k", min=1, help="Active latents per token. Default: 32; 16 added ones."),
]
Sparsifier = Annotated[str, typer.Option("--sparsifier", help="'topk' or 'batch-topk'.")]


@app.command(
    epilog="Example: brainscan dictionary train --at resid_post.8 --at resid_post.15 "
    "--tokens 5M --out dictionaries\n\nExample: brainscan dictionary train "
    "--extend smollm2-135m-instruct/resid_post.15 --on stress --out extended"
)
def train(
    out: Out,
    at: Hookpoints = None,
    model: Model = None,
    tokens: Tokens = None,
    corpus: Corpus = "builtin",
    context: ContextLength = 1024,
    store: Store = None,
    latents: Latents = None,
    k: ActiveLatents = None,
    sparsifier: Sparsifier = "topk",
    extend: Extend = None,
    on: On = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a dictionary, or several from one harvest, or latents for what one misses.

    With one hookpoint OUT is the dictionary; with several it holds a dictionary for each.
    Interrupted, the same command goes on from its last checkpoint.

    With --extend, OUT is that dictionary with latents added, which are trained on its error over
    the text of --on. This starts again when interrupted.
    """
    others = {"--at": bool(at), "--store": store is not None, "--corpus": corpus != "builtin"}
    _check_mode(extend, on, {**others, "--sparsifier": sparsifier != "topk"})
    with working():
        from brainscan.dictionaries.extension import ExtensionConfig
        from brainscan.dictionaries.trainer import TrainingConfig

        if extend is not None and on is not None:
            added = ExtensionConfig(latents or 1024, k or 16, seed=seed)
            reading = _Reading(on, tokens or 50_000, context)
            trained = [_extended(extend, model, reading, added, out)]
        else:
            size = (latents or 4096, k or 32, sparsifier, tokens or 1_000_000)
            config = TrainingConfig(*size, seed=seed)
            trained = _trained(config, out, store, tuple(at or ()), model, corpus, context)
    if as_json:
        print_json({"dictionaries": [_summary(dictionary) for dictionary in trained]})
        return
    for dictionary in trained:
        print(f"{dictionary.name}: {dictionary.n_latents:,} latents of {dictionary.hookpoint}")
        _print_fvus(dictionary)


class _Reading(NamedTuple):
    """What an extension is trained on."""

    on: str
    tokens: int
    context: int


def _check_mode(extend: str | None, on: str | None, others: Mapping[str, bool]) -> None:
    """Checks that a dictionary is trained at a hookpoint, or one extended on transcripts."""
    if (extend is None) != (on is None):
        raise UsageError(
            "--extend DICTIONARY and --on TRANSCRIPTS, or neither",
            "--extend alone" if on is None else "--on alone",
            "give the other too, or train a new dictionary with --at",
        )
    wrong = [option for option, given in others.items() if given]
    if extend is not None and wrong:
        raise UsageError(
            "--extend with --on alone, at that dictionary's own hookpoint",
            ", ".join(wrong),
            f"leave {' and '.join(wrong)} out",
        )
    if extend is None and not others["--at"]:
        raise UsageError("a hookpoint: --at resid_post.15", "none", "or extend one: --extend, --on")


def _trained(
    config: TrainingConfig,
    out: Path,
    store: Path | None,
    at: tuple[str, ...],
    model: str | None,
    corpus: str,
    context: int,
) -> list[Dictionary]:
    """Trains new dictionaries from a store or a live harvest."""
    from brainscan.dictionaries import training

    source = (
        _stored(store, at, model, config.seed)
        if store
        else _live(model, at, corpus, context, config.seed)
    )
    return training.train(source, config, out)


def _extended(
    name: str, model: str | None, reading: _Reading, config: ExtensionConfig, out: Path
) -> Dictionary:
    """Extends a dictionary and writes it."""
    from brainscan.artifacts.drafts import check_replaceable
    from brainscan.cli.parts import open_pair, open_transcripts
    from brainscan.dictionaries import Dictionary
    from brainscan.dictionaries.extension import extend, extendable
    from brainscan.dictionaries.transcripts import read_transcripts

    check_replaceable(out)
    lm, found = open_pair(model, name)
    base = extendable(found)
    transcripts = open_transcripts(lm, reading.on, reading.context, config.seed)
    read = read_transcripts(lm, transcripts, base.hookpoint, reading.tokens)
    told = {"on": reading.on, "tokens_sha256": read.sha256, "context": reading.context}
    extended = extend(
        base, read.activations, config, transcripts=read.transcripts, model=lm.ref, settings=told
    )
    extended.save(out)
    return Dictionary.load(out)


def _print_fvus(dictionary: Dictionary) -> None:
    """The figures of an extended dictionary as a table."""
    found = dictionary.manifest.figures.get("fvu") if dictionary.manifest else None
    if not found:
        return
    from rich.table import Table

    parts = {name: found[name] for name in ("trained_on", "held_out") if name in found}
    table = Table("FVU", *(name.replace("_", " ") for name in parts))
    for row in found["trained_on"]:
        table.add_row(row.replace("_", " "), *(_cell(part[row]) for part in parts.values()))
    console().print(table)


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


@app.command(epilog="Example: brainscan dictionary compare mine others --text held_out.txt")
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
