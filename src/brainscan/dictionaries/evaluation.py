"""How good a dictionary is on held-out text.

1. A sample of the contexts gives the mean activation and the baselines: a PCA of rank k fitted on
   that very sample, and a dictionary of random directions with the same k.
2. Each context goes through the model four times: as it is, with the activation replaced by its
   reconstruction, by zero, and by the mean. Attention sinks keep their own activations in all of
   them: their norms dwarf the others', and they are outside of what a dictionary is trained on.
3. Sums are kept by document, and every figure is a ratio of sums with an interval from the
   bootstrap over documents.

    FVU                   = sum |x - x^|^2 / sum |x - mean|^2
    CE recovered (zero)   = (CE_zero - CE_spliced) / (CE_zero - CE_clean); likewise for the mean
    KL                    = mean over tokens of KL(clean || spliced), in nats

Source: the usual metrics of Gao et al. 2024 and SAEBench (Karvonen et al. 2025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import torch

from brainscan.activations.corpus import open_corpus
from brainscan.activations.harvest import find_sinks, stream
from brainscan.activations.packing import Context, pack
from brainscan.dictionaries.base import Dictionary
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import CorpusError
from brainscan.memory import kept_memory
from brainscan.models import LanguageModel
from brainscan.models.attention import BlockedAttention
from brainscan.models.hooks import Hook, Site, capture, intervene
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Int, Tensor
from brainscan.stats import Estimate, proportion, ratio

_SAMPLE_TOKENS = 16_384
_LOGIT_ROWS = 256
_QUICK = 8
_QUICK_CONTEXT = 128
_ARMS = ("clean", "spliced", "zero", "mean")


@dataclass(frozen=True)
class Evaluation:
    """Figures of a dictionary on a text; each with an interval clustered by document."""

    fvu: Estimate
    """Fraction of variance unexplained."""

    l0: Estimate
    """Active latents per token."""

    dead_fraction: Estimate
    """Share of the latents that fired on none of these tokens (n: latents)."""

    ce_recovered_zero: Estimate
    """Share of the loss that zeroing the activation adds and the reconstruction does not."""

    ce_recovered_mean: Estimate
    """The same against the mean activation."""

    kl: Estimate
    """KL from the model's own prediction to that with the reconstruction, nats per token."""

    ce_clean: Estimate
    """Cross-entropy of the untouched model, nats per token."""

    ce_spliced: Estimate
    """Cross-entropy with the reconstruction."""

    fvu_pca: Estimate
    """Baseline: FVU of a PCA of rank k, fitted on a sample of this text."""

    fvu_random: Estimate
    """Baseline: FVU of random directions with the same k, scaled as well as can be."""

    tokens: int
    """Tokens that were reconstructed."""

    sinks: int
    """Tokens left out as attention sinks."""

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        return {
            name: value.to_json() if isinstance(value, Estimate) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }


def evaluate(lm: LanguageModel, dictionary: Dictionary, contexts: Sequence[Context]) -> Evaluation:
    """Measures a dictionary on contexts that it was not trained on.

    Args:
        lm: the model.
        dictionary: the dictionary.
        contexts: held-out text, packed.

    Raises:
        CorpusError: there is no context.
        DictionaryMismatchError: the dictionary's width is not the hookpoint's.
    """
    if not contexts:
        raise CorpusError("held-out text", "none", "give a file with text")
    dictionary.check_model(lm)
    sample = _Sample(lm, dictionary, contexts)
    sums = _Sums(sample.mean, dictionary.n_latents)
    total = sum(len(c.tokens) for c in contexts)
    with kept_memory(), progress("evaluate", total, "tokens") as advance:
        for context in contexts:
            with torch.no_grad(), BlockedAttention():
                _measure(lm, dictionary, context, sample.mean, sums)
            advance(len(context.tokens))
    return sums.evaluation(sample)


def quick_fvu(lm: LanguageModel, dictionary: Dictionary) -> Estimate:
    """The fraction of variance unexplained on a thousand tokens of the built-in corpus.

    Args:
        lm: the model, perhaps another than the dictionary was trained on.
        dictionary: a dictionary of the right width.
    """
    texts = open_corpus("builtin").documents("test", seed=0)
    sample = _Sample(lm, dictionary, list(islice(pack(lm, texts, _QUICK_CONTEXT), _QUICK)))
    with torch.no_grad():
        return sample.fvu(sample.x - dictionary.reconstruct(sample.x))


def fvu_by_document(
    error: Float[Tensor, "token d"],
    centred: Float[Tensor, "token d"],
    documents: Int[Tensor, " token"],
) -> Estimate:
    """An error's share of the variance, with an interval over documents.

    Args:
        error: what is not reconstructed of each token's activation.
        centred: the activations less their mean.
        documents: each token's document.
    """
    _, place = documents.cpu().unique(return_inverse=True)
    above, below = (
        torch.zeros(int(place.max()) + 1).index_add_(0, place, part.square().sum(1).cpu())
        for part in (error, centred)
    )
    return ratio(above.numpy(), below.numpy())


class _Sample:
    """Activations of evenly spaced contexts, for the mean and the baselines."""

    def __init__(
        self, lm: LanguageModel, dictionary: Dictionary, contexts: Sequence[Context]
    ) -> None:
        every = max(1, sum(len(c.tokens) for c in contexts) // _SAMPLE_TOKENS)
        hookpoint = dictionary.hookpoint
        parts = list(stream(lm, contexts[::every], [hookpoint], batch=1))
        self.x = torch.cat([part.values[hookpoint] for part in parts]).float()
        self.documents = torch.cat([part.documents for part in parts])
        if not len(self.x):
            raise CorpusError("text of at least two tokens", "less", "give more text")
        self.mean = self.x.mean(0)
        self.k = dictionary.k
        self.n_latents = dictionary.n_latents

    @torch.no_grad()
    def pca(self) -> Float[Tensor, "token d"]:
        """The error of the k leading principal components."""
        centred = self.x - self.mean
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        leading = vectors[:, -self.k :]
        error: Tensor = centred - centred @ leading @ leading.T
        return error

    @torch.no_grad()
    def random(self) -> Float[Tensor, "token d"]:
        """The error of random directions."""
        centred = self.x - self.mean
        directions = random_dictionary(centred.shape[1], self.n_latents, self.k)
        x_hat = directions.to(centred.device).reconstruct(centred)
        return centred - x_hat * ((centred * x_hat).sum() / x_hat.square().sum().clamp(min=1e-9))

    def fvu(self, error: Float[Tensor, "token d"]) -> Estimate:
        """The error's share of the variance."""
        return fvu_by_document(error, self.x - self.mean, self.documents)


class _Sums:
    """Sums of everything measured, by document."""

    def __init__(self, mean: Float[Tensor, " d"], n_latents: int) -> None:
        self.mean = mean
        self.fired = torch.zeros(n_latents, dtype=torch.bool, device=mean.device)
        self.by_name: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, name: str, documents: Int[Tensor, " token"], values: Tensor) -> None:
        """Adds a value for each token to its document's sum."""
        numbers, place = documents.unique(return_inverse=True)
        sums = torch.zeros(len(numbers), dtype=torch.float64)
        sums.index_add_(0, place, values.double().cpu())
        for number, value in zip(numbers.tolist(), sums.tolist(), strict=True):
            self.by_name[name][number] += value

    def ratio(self, above: dict[str, float], below: dict[str, float]) -> Estimate:
        """A ratio of weighted sums of what was added, clustered by document."""
        documents = sorted(set().union(*(self.by_name[name] for name in {**above, **below})))

        def combined(weights: dict[str, float]) -> list[float]:
            return [
                sum(weight * self.by_name[name][number] for name, weight in weights.items())
                for number in documents
            ]

        return ratio(combined(above), combined(below))

    def evaluation(self, sample: _Sample) -> Evaluation:
        """The figures."""
        fired, latents = int(self.fired.sum()), self.fired.numel()

        def recovered(ablation: str) -> Estimate:
            return self.ratio({ablation: 1.0, "spliced": -1.0}, {ablation: 1.0, "clean": -1.0})

        return Evaluation(
            fvu=self.ratio({"error": 1.0}, {"variance": 1.0}),
            l0=self.ratio({"active": 1.0}, {"token": 1.0}),
            dead_fraction=proportion(latents - fired, latents),
            ce_recovered_zero=recovered("zero"),
            ce_recovered_mean=recovered("mean"),
            kl=self.ratio({"kl": 1.0}, {"predicted": 1.0}),
            ce_clean=self.ratio({"clean": 1.0}, {"predicted": 1.0}),
            ce_spliced=self.ratio({"spliced": 1.0}, {"predicted": 1.0}),
            fvu_pca=sample.fvu(sample.pca()),
            fvu_random=sample.fvu(sample.random()),
            tokens=int(sum(self.by_name["token"].values())),
            sinks=int(sum(self.by_name["sink"].values())),
        )


@dataclass(frozen=True)
class _Replace:
    """Puts a given activation in the place of the model's own, except at sinks."""

    hookpoint: str
    value: Float[Tensor, "batch position d"]
    sinks: Bool[Tensor, "batch position"]

    def attach(self, lm: LanguageModel) -> list[tuple[str, Hook]]:
        def hook(activation: Tensor, site: Site) -> Tensor:
            return torch.where(self.sinks[..., None], activation, self.value.to(activation.dtype))

        return [(self.hookpoint, hook)]


def _measure(
    lm: LanguageModel,
    dictionary: Dictionary,
    context: Context,
    mean: Float[Tensor, " d"],
    sums: _Sums,
) -> None:
    ids = context.tokens.to(lm.device)[None]
    with capture(lm, [dictionary.hookpoint]) as captured:
        clean = lm.forward(ids)
    x = captured[dictionary.hookpoint].float()
    sinks = find_sinks(x)
    code = dictionary.encode(x)
    x_hat = dictionary.decode(code)
    _add_reconstruction(sums, context, x[0], x_hat[0], sinks[0])
    active = (code.values > 0)[0][~sinks[0]]
    sums.fired[code.indices[0][~sinks[0]][active]] = True
    sums.add("active", context.documents[~sinks[0].cpu()], active.sum(1))
    logits = {"clean": clean}
    replacements = {"spliced": x_hat, "zero": torch.zeros_like(x), "mean": mean.expand_as(x)}
    for name, value in replacements.items():
        with intervene(lm, [_Replace(dictionary.hookpoint, value, sinks)]):
            logits[name] = lm.forward(ids)
    _add_losses(sums, context, logits)


def _add_reconstruction(
    sums: _Sums,
    context: Context,
    x: Float[Tensor, "position d"],
    x_hat: Float[Tensor, "position d"],
    sinks: Bool[Tensor, " position"],
) -> None:
    documents = context.documents[~sinks.cpu()]
    sums.add("error", documents, (x - x_hat)[~sinks].square().sum(1))
    sums.add("variance", documents, (x - sums.mean)[~sinks].square().sum(1))
    sums.add("token", documents, torch.ones(len(documents)))
    sums.add("sink", context.documents[sinks.cpu()], torch.ones(int(sinks.sum())))


def _add_losses(sums: _Sums, context: Context, logits: dict[str, Tensor]) -> None:
    """Cross-entropies of each arm and the KL, a few rows at a time, since a row is a vocabulary."""
    for rows in _slices(len(context.tokens) - 1):
        targets = context.tokens[rows.start + 1 : rows.stop + 1]
        documents = context.documents[rows.start + 1 : rows.stop + 1]
        logs = {}
        for name in _ARMS:
            logs[name] = logits[name][0, rows].float().log_softmax(-1)
            loss = -logs[name].gather(1, targets[:, None].to(logs[name].device))[:, 0]
            sums.add(name, documents, loss)
        divergence = (logs["clean"].exp() * (logs["clean"] - logs["spliced"])).sum(1)
        sums.add("kl", documents, divergence)
        sums.add("predicted", documents, torch.ones(len(documents)))


def _slices(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _LOGIT_ROWS):
        yield slice(start, min(start + _LOGIT_ROWS, rows))
