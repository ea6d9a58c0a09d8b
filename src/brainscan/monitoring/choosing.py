"""Choosing each concept's detector on the split ``select``, and making log-odds of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from brainscan import stats
from brainscan.monitoring.bank import Concept
from brainscan.monitoring.corpus import Corpus, Labels, segments
from brainscan.monitoring.figures import FALSE_ALARMS, threshold_at
from brainscan.monitoring.jumps import QUANTILE
from brainscan.monitoring.probes import Candidate
from brainscan.monitoring.scores import AGGREGATES, JOINT, ROLES, Aggregate, Aggregator, Detector
from brainscan.shapes import Float, Int, Tensor
from brainscan.stats.logistic import logistic_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LINE_PENALTY = 1e-4


class Choice(NamedTuple):
    """A concept's detector, and its log-odds of the corpus' tokens."""

    detector: Detector
    z: NDArray[np.float32]


class _Option(NamedTuple):
    candidate: Candidate
    aggregate: Aggregate
    scores: NDArray[np.float32]
    worth: float


def choose(
    corpus: Corpus,
    concepts: Sequence[Concept],
    candidates: Sequence[Candidate],
    labels: Labels,
    weights: Float[Tensor, "token c"],
) -> list[Choice]:
    """The best candidate and aggregate for each concept, calibrated.

    What is best: the mean of three areas under the ROC curve on ``select``: of texts against other
    ones, of texts against those that only look like it, and of tokens. Of equals the first. A
    danger takes a joint candidate where there is one, since the rule for jumps adds up its tokens'
    own scores, and these are less noisy the more hookpoints they come from (docs/log.md).

    Args:
        corpus: the texts.
        concepts: the concepts.
        candidates: the ways to score.
        labels: what samples are to each concept.
        weights: what each token of ``select`` counts for; 0 for all others.
    """
    best: dict[int, _Option] = {}
    judge = _Judge(corpus, labels, weights)
    joint = any(JOINT in one.hookpoint for one in candidates)
    for candidate in candidates:
        for aggregate in AGGREGATES:
            scores = aggregated(candidate.scores, corpus.owners, aggregate)
            for concept, worth in enumerate(judge.worths(scores)):
                if joint and concepts[concept].danger and JOINT not in candidate.hookpoint:
                    continue
                if concept not in best or worth > best[concept].worth:
                    best[concept] = _Option(candidate, aggregate, scores[:, concept], worth)
    return [
        _calibrated(corpus, concept, n, best[n], labels.own[:, n].numpy(), weights[:, n])
        for n, concept in enumerate(concepts)
    ]


def aggregated(
    scores: Float[Tensor, "token c"], owners: Int[Tensor, " token"], kind: Aggregate
) -> NDArray[np.float32]:
    """Aggregates of raw scores within each sample.

    Args:
        scores: raw scores.
        owners: each token's sample.
        kind: how they come together.
    """
    raw = scores.numpy().astype(np.float32)
    if kind == "token":
        return raw
    places = [slice for _, slice in segments(owners)]
    longest = max(place.stop - place.start for place in places)
    held = np.zeros((longest, len(places), raw.shape[1]), np.float32)
    for n, place in enumerate(places):
        held[: place.stop - place.start, n] = raw[place]
    aggregator = Aggregator([kind] * raw.shape[1])
    out = np.stack([aggregator.step(row) for row in held])
    return np.concatenate([out[: p.stop - p.start, n] for n, p in enumerate(places)])


def text_scores(
    z: NDArray[np.float32], owners: Int[Tensor, " token"], n: int
) -> NDArray[np.float32]:
    """A score of each text: the 0.95 quantile over its tokens; not a number where it has none.

    Args:
        z: scores of tokens, ``[token, ...]``.
        owners: each token's text.
        n: how many texts there are.
    """
    out = np.full((n, *z.shape[1:]), np.nan, np.float32)
    for number, place in segments(owners):
        out[number] = np.quantile(z[place], QUANTILE, axis=0)
    return out


class _Judge:
    """What scores are worth on the split ``select``."""

    def __init__(self, corpus: Corpus, labels: Labels, weights: Float[Tensor, "token c"]) -> None:
        self._seen = corpus.of("select").numpy()
        self._owners = corpus.owners[torch.tensor(self._seen)]
        self._n = len(corpus.samples)
        self._own, self._near = labels.own.numpy(), labels.near.numpy()
        self._counts = weights.numpy()[self._seen] > 0

    def worths(self, scores: NDArray[np.float32]) -> list[float]:
        own = scores[self._seen]
        texts = text_scores(own, self._owners, self._n)
        owners = self._owners.numpy()
        worths = []
        for n in range(own.shape[1]):
            counts = self._counts[:, n]
            there = np.isin(np.arange(self._n), owners[counts])
            label, near = self._own[:, n], self._near[:, n] & ~self._own[:, n]
            far, hard = there & ~near, there & (near | label)
            areas = (
                stats.area(texts[far, n], label[far]),
                stats.area(texts[hard, n], label[hard]),
                stats.area(own[counts, n], label[owners[counts]]),
            )
            worths.append(sum(areas) / len(areas))
        return worths


def _calibrated(
    corpus: Corpus,
    concept: Concept,
    number: int,
    option: _Option,
    label: NDArray[np.bool_],
    weights: Float[Tensor, " token"],
) -> Choice:
    """Standardises an option's scores by role, and fits the line that makes log-odds of them."""
    owners = corpus.owners.numpy()
    roles = np.array([one.role for one in corpus.samples])[owners]
    kinds = np.array([one.kind == "neutral" for one in corpus.samples])[owners]
    usual = kinds & corpus.of("select").numpy()
    neutral = {role: _spread(option.scores, usual & (roles == role), usual) for role in ROLES}
    mean, spread = (np.array([neutral[role][n] for role in roles]) for n in (0, 1))
    standard = ((option.scores - mean) / spread).astype(np.float32)
    seen = weights.numpy() > 0
    line = _line(standard[seen], label[owners[seen]], weights.numpy()[seen])
    z = (line[0] * standard + line[1]).astype(np.float32)
    select = corpus.of("select")
    texts = text_scores(z[select.numpy()], corpus.owners[select], len(corpus.samples))
    counts = np.isin(np.arange(len(texts)), owners[seen])
    others = texts[~label & counts]
    candidate = option.candidate
    detector = Detector(
        concept=concept.name,
        title=concept.title,
        danger=concept.danger,
        hookpoint=candidate.hookpoint,
        method=candidate.method,
        aggregate=option.aggregate,
        weights=tuple(candidate.weights[number].tolist()),
        bias=float(candidate.bias[number]),
        latents=tuple(candidate.latents[number]) if candidate.latents else (),
        neutral=neutral,
        line=line,
        threshold=threshold_at(others, FALSE_ALARMS),
    )
    return Choice(detector, z)


def _spread(
    scores: NDArray[np.float32], chosen: NDArray[np.bool_], otherwise: NDArray[np.bool_]
) -> tuple[float, float]:
    """Mean and spread of some scores; of others where these are too few."""
    own = scores[chosen] if chosen.sum() > 1 else scores[otherwise]
    own = own if len(own) > 1 else scores
    return float(own.mean()), max(float(own.std()), 1e-6)


def _line(
    scores: NDArray[np.float32], label: NDArray[np.bool_], weights: NDArray[np.float32]
) -> tuple[float, float]:
    """Slope and intercept of the weighted logistic regression on one score (Platt 1999)."""
    x, y, w = (torch.tensor(part)[:, None] for part in (scores, label, weights))
    slope, intercept = logistic_fit(x, y, w, penalty=_LINE_PENALTY)
    return max(float(slope), 1e-3), float(intercept)
