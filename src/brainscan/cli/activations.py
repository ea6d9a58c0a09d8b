"""``brainscan activations``: what a model computes over a corpus, kept on disk."""

from __future__ import annotations

from pathlib import Path

import typer

from brainscan.cli.options import (
    ContextLength,
    Corpus,
    Hookpoints,
    Json,
    Model,
    Out,
    Seed,
    Split,
    SplitName,
    Tokens,
)
from brainscan.cli.output import note, print_json, working

app = typer.Typer(name="activations", help="Harvest a model's activations.", no_args_is_help=True)


@app.callback()
def _activations() -> None:
    """Harvest a model's activations."""


@app.command(
    epilog="Example: brainscan activations harvest --at resid_post.8 --at resid_post.15 "
    "--tokens 2M --out activations"
)
def harvest(
    at: Hookpoints,
    out: Out,
    model: Model = None,
    tokens: Tokens = 1_000_000,
    corpus: Corpus = "builtin",
    split: Split = SplitName.TRAIN,
    context: ContextLength = 1024,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a model's activations over a corpus to a folder.

    One pass serves all the hookpoints. Interrupted, the same command goes on where it stopped.
    """
    with working():
        from brainscan.activations import HarvestConfig, open_corpus
        from brainscan.activations import harvest as run
        from brainscan.cli.parts import open_model

        lm = open_model(model)
        config = HarvestConfig(
            hookpoints=tuple(at), tokens=tokens, context=context, seed=seed, split=split.part
        )
        store = run(lm, open_corpus(corpus), config, out)
        kept, sinks = store.n_tokens, store.n_sinks
    result = {
        "out": str(out),
        "digest": store.manifest.digest,
        "model": lm.name,
        "hookpoints": list(store.hookpoints),
        "tokens": kept,
        "sinks": sinks,
        "documents": store.manifest.figures["documents"],
    }
    if kept + sinks < tokens:
        note(f"brainscan: warning: the corpus has {kept + sinks:,} of the {tokens:,} tokens")
    if as_json:
        print_json(result)
    else:
        _print_summary(out, tuple(store.hookpoints), kept, sinks)


def _print_summary(out: Path, hookpoints: tuple[str, ...], kept: int, sinks: int) -> None:
    places = ", ".join(hookpoints)
    print(f"{out}: {kept:,} tokens of {places}; {sinks:,} attention sinks left out")
