"""Training latents for what a dictionary misses in given text.

1. The base's error e = x - D(x) is computed once; the base stays as it is.
2. A tenth of the transcripts, chosen by a hash, is held out.
3. The trainer of autoencoders learns to give e from x, in many passes over the tokens. It reads x
   less its mean, scaled to e's size; this is folded into the encoder afterwards, so that the added
   latents take raw activations as the base's do.
4. The fraction of variance unexplained (FVU) is measured on both parts: of the base, of the base
   with as many active latents as the extended dictionary has, and of the extended one.

Only activations are read: no label, outcome or concept takes part in the training.

Source: Koriagin et al. 2025, "Teach Old SAEs New Domain Tricks with Boosting" (arXiv:2507.12990).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import torch

from brainscan.activations.documents import content_hash
from brainscan.artifacts import ModelRef
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.base import Dictionary
from brainscan.dictionaries.evaluation import fvu_by_document
from brainscan.dictionaries.extended import Extended
from brainscan.dictionaries.trainer import Trainer, TrainingConfig
from brainscan.dictionaries.training import train_on
from brainscan.errors import CorpusError, DictionaryMismatchError, UsageError
from brainscan.memory import kept_memory
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Int, Tensor
from brainscan.stats import proportion

SHARED = -1
"""The transcript of tokens that several transcripts share."""

_HELD_OUT = 0.1
_DEAD_AFTER = 1 / 6


@dataclass(frozen=True)
class ExtensionConfig:
    """How latents are added."""

    n_latents: int = 1024
    """Number of added latents."""

    k: int = 16
    """Added latents active per token."""

    steps: int = 600
    """Steps of the run at most."""

    passes: int = 40
    """Passes over the tokens at most, where there are few."""

    batch: int = 1024
    """Tokens per step."""

    seed: int = 0
    """Seed of the start, of the order, and of what is held out."""

    def __post_init__(self) -> None:
        """Checks the fields, those that the trainer takes as it does."""
        for name in ("steps", "passes", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of at least 1", str(getattr(self, name)), "raise it")
        self.run(1)

    def run(self, tokens: int) -> TrainingConfig:
        """The run on so many tokens."""
        length = min(self.steps * self.batch, self.passes * tokens)
        return TrainingConfig(
            self.n_latents,
            self.k,
            tokens=length,
            batch=self.batch,
            dead_after=round(_DEAD_AFTER * length),
            seed=self.seed,
        )


def extend(
    base: Dictionary,
    activations: Float[Tensor, "token d"],
    config: ExtensionConfig | None = None,
    *,
    transcripts: Int[Tensor, " token"] | None = None,
    model: ModelRef | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Extended:
    """Adds latents to a dictionary, trained on its error over some activations.

    Args:
        base: the dictionary; it stays as it is.
        activations: what its hookpoint holds over the text, sinks left out.
        config: how to train; the defaults when left out.
        transcripts: the number of each token's transcript, so that a tenth of them is held out;
            `SHARED` where several share it, which is always trained on. None holds nothing out.
        model: the model whose activations these are; the base's when left out.
        settings: what names the text; goes into the manifest.

    Raises:
        UsageError: the base is extended already, or there isn't one transcript for each token.
        DictionaryMismatchError: the activations are of another width.
        CorpusError: there are no tokens, or the base leaves nothing of them unexplained.
    """
    config = config or ExtensionConfig()
    transcripts = (
        torch.full((len(activations),), SHARED) if transcripts is None else transcripts.cpu()
    )
    base = extendable(base)
    _check(base, activations, transcripts)
    x = activations.to(base.device, torch.float32)
    with torch.no_grad():
        error = x - base.reconstruct(x)
    held_out = _held_out(transcripts, config.seed)
    trained_on = held_out.logical_not().to(x.device)
    extended = Extended(
        base,
        _train(base, x[trained_on], error[trained_on], config),
        model=model or base.model,
        settings={**asdict(config), **(settings or {})},
    )
    return replace(extended, figures=_figures(extended, x, error, transcripts, held_out))


def extendable(base: Dictionary) -> Autoencoder:
    """The dictionary itself, if latents can be added to it.

    Raises:
        UsageError: it has added latents already.
    """
    if not isinstance(base, Autoencoder):
        raise UsageError(
            "a dictionary without added latents",
            f"{base.name}, which has some",
            "extend the one it was made from, over all of the text",
        )
    return base


def _check(
    base: Autoencoder, activations: Float[Tensor, "token width"], transcripts: Int[Tensor, " row"]
) -> None:
    """Checks that the base can be extended over these tokens."""
    if activations.shape[1] != base.d:
        raise DictionaryMismatchError(
            f"activations of width {base.d}, as {base.name} has",
            f"width {activations.shape[1]}",
            f"read them at {base.hookpoint} of its model",
        )
    if len(activations) != len(transcripts):
        raise UsageError(
            f"the transcript of each of {len(activations)} tokens",
            f"{len(transcripts)}",
            "pass one number per token",
        )
    if not len(activations):
        raise CorpusError("tokens to train on", "none", "give more text")


def _held_out(transcripts: Int[Tensor, " token"], seed: int) -> Bool[Tensor, " token"]:
    """Which tokens are held out: those of a tenth of the transcripts, of one at least."""
    numbers = transcripts[transcripts != SHARED].unique().tolist()
    ranked = sorted(numbers, key=lambda number: content_hash(f"{seed}/{number}"))
    chosen = ranked[: max(1, round(_HELD_OUT * len(ranked)))] if len(ranked) > 1 else []
    return torch.isin(transcripts, transcripts.new_tensor(chosen))


def _train(
    base: Autoencoder,
    x: Float[Tensor, "token d"],
    error: Float[Tensor, "token d"],
    config: ExtensionConfig,
) -> Autoencoder:
    """The added latents, as an autoencoder from raw activations to the error."""
    run = config.run(len(x))
    trainer = Trainer.started(run, error)
    mean = x.mean(0)
    scale = trainer.scale / float((x - mean).square().mean().sqrt().clamp(min=1e-12))
    if not trainer.scale > 0:
        raise CorpusError(
            f"text of which {base.name} leaves something unexplained",
            "an error that is the same for each token",
            "give more text",
        )
    name = base.hookpoint
    chunk, targets = {name: (x - mean) * scale}, {name: error}
    with kept_memory(), progress("extend", run.tokens, "tokens") as advance:
        for number in count():
            train_on(chunk, number, {name: trainer}, run, advance, targets)
            if trainer.tokens >= run.tokens:
                break
    added = trainer.finish(name, None, {})
    # Rounded as it will be saved, so that what is measured now is what is read later.
    encoder = (added.W_enc * scale).bfloat16().float()
    return replace(
        added,
        W_enc=encoder,
        b_enc=added.b_enc - encoder @ mean,
        W_dec=added.W_dec.bfloat16().float(),
        name="added",
    )


def _figures(
    extended: Extended,
    x: Float[Tensor, "token d"],
    error: Float[Tensor, "token d"],
    transcripts: Int[Tensor, " token"],
    held_out: Bool[Tensor, " token"],
) -> dict[str, Any]:
    """FVUs on both parts, and the share of added latents that died in training."""
    fvus = {}
    for name, part in {"trained_on": ~held_out, "held_out": held_out}.items():
        if part.any():
            here = part.to(x.device)
            fvus[name] = _fvus(extended, x[here], error[here], transcripts[part])
    added = extended.added
    dead = int((added.activation_max == 0).sum())
    return {"fvu": fvus, "dead_added": proportion(dead, added.n_latents).to_json()}


@torch.no_grad()
def _fvus(
    extended: Extended,
    x: Float[Tensor, "token d"],
    error: Float[Tensor, "token d"],
    transcripts: Int[Tensor, " token"],
) -> dict[str, Any]:
    """The FVU of the base, of the base with more active latents, and of the extended dictionary."""
    base = extended.base
    errors = {"base": error, "extended": x - extended.reconstruct(x)}
    if base.threshold is None:
        wider = replace(base, k=min(extended.k, base.n_latents))
        errors["base_same_k"] = x - wider.reconstruct(x)
    centred = x - x.mean(0)
    figures: dict[str, Any] = {
        name: fvu_by_document(left, centred, transcripts).to_json() for name, left in errors.items()
    }
    numbers = transcripts[transcripts != SHARED].unique()
    return {"tokens": len(x), "transcripts": len(numbers), **figures}
