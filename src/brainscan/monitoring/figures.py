"""Figures of a detector: how well it orders, how much it catches, how often it cries wolf.

Intervals are by the bootstrap over texts, positive and negative ones drawn apart. A detector that
orders all pairs rightly has no spread to draw from: then the interval is that of as many texts as
there are of the rarer kind (Wilson).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from brainscan import stats
from brainscan.stats import Estimate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Texts: TypeAlias = tuple[Sequence[str], Sequence[str]]
"""What each of some positives and of some negatives is made of."""

FALSE_ALARMS = 0.01
"""The share of others that may pass a threshold."""

_DRAWS, _TAILS, _BINS = 1000, (2.5, 97.5), 10


def auroc(positive: ArrayLike, negative: ArrayLike, texts: Texts | None = None) -> Estimate:
    """The share of pairs of a positive and a negative that are in order; ties count half.

    Args:
        positive: scores of those that should be high.
        negative: scores of the others.
        texts: what each of them is made of; those of one text are drawn together.
    """
    high, low = np.asarray(positive, float), np.asarray(negative, float)
    if not len(high) or not len(low):
        return Estimate(math.nan, 0.0, 1.0, len(high) + len(low), "bootstrap")
    won = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    draw = np.random.default_rng(0)
    first, n = _drawn(draw, len(high), texts and texts[0])
    second, m = _drawn(draw, len(low), texts and texts[1])
    ends = np.percentile(((first @ won) * second).sum(1), _TAILS)
    return _bounded(float(won.mean()), ends, min(n, m), n + m)


def auroc_lead(
    positive: ArrayLike,
    negative: ArrayLike,
    other_positive: ArrayLike,
    other_negative: ArrayLike,
) -> Estimate:
    """How much better one score orders the same positives and negatives than another.

    Where both order all pairs alike there is no spread to draw from: the interval is then that of
    nothing seen in as many texts as there are of the rarer kind (Wilson).

    Args:
        positive: scores of those that should be high.
        negative: scores of the others.
        other_positive: the other's scores of the same positives.
        other_negative: the other's scores of the same negatives.
    """
    highs = [np.asarray(one, float)[:, None] for one in (positive, other_positive)]
    lows = [np.asarray(one, float) for one in (negative, other_negative)]
    n, m = len(highs[0]), len(lows[0])
    if not n or not m:
        return Estimate(math.nan, -1.0, 1.0, n + m, "bootstrap, paired")
    first, second = (
        (high > low) + 0.5 * (high == low) for high, low in zip(highs, lows, strict=True)
    )
    won = first - second
    draw = np.random.default_rng(0)
    rows, columns = _drawn(draw, n, None)[0], _drawn(draw, m, None)[0]
    ends = np.percentile(((rows @ won) * columns).sum(1), _TAILS)
    value = float(won.mean())
    least = 0.0 if won.std() else stats.proportion(0, min(n, m)).high
    low, high = min(float(ends[0]), value - least), max(float(ends[1]), value + least)
    return Estimate(value, max(low, -1.0), min(high, 1.0), n + m, "bootstrap, paired")


def caught(
    positive: ArrayLike,
    negative: ArrayLike,
    rate: float,
    texts: Texts | None = None,
) -> Estimate:
    """The share of positives above what a share of the negatives passes (TPR at an FPR).

    Args:
        positive: scores of those that should be high.
        negative: scores of the others. With fewer than 1 / rate of them the threshold is the
            highest of all: nothing stricter can be shown.
        rate: the share of negatives that may pass.
        texts: what each of them is made of; those of one text are drawn together.
    """
    high, low = np.asarray(positive, float), np.asarray(negative, float)
    if not len(high) or not len(low):
        return Estimate(math.nan, 0.0, 1.0, len(high) + len(low), "bootstrap")
    value = float((high > np.sort(low)[_place(len(low), rate)]).mean())
    draw = np.random.default_rng(0)
    first, n = _drawn(draw, len(high), texts and texts[0])
    second, m = _drawn(draw, len(low), texts and texts[1])
    order = np.argsort(low)
    above = 1 - second[:, order].cumsum(1) <= rate  # what lies above each score
    thresholds = low[order][np.where(above.any(1), above.argmax(1), len(low) - 1)]
    ends = np.percentile((first * (high > thresholds[:, None])).sum(1), _TAILS)
    least = stats.proportion(round(value * n), n)
    low_end, high_end = min(float(ends[0]), least.low), max(float(ends[1]), least.high)
    return Estimate(value, min(low_end, value), max(high_end, value), n + m, "bootstrap")


def _drawn(
    draw: np.random.Generator, n: int, texts: Sequence[str] | None
) -> tuple[NDArray[np.float64], int]:
    """Weights of n units in each draw of the bootstrap, adding up to 1; and how many texts."""
    numbers = np.arange(n)
    if texts is not None:
        numbers = np.unique(np.asarray(texts), return_inverse=True)[1]
    groups = int(numbers.max()) + 1
    counts = draw.multinomial(groups, np.full(groups, 1 / groups), _DRAWS)[:, numbers]
    return counts / counts.sum(1, keepdims=True), groups


def threshold_at(negative: ArrayLike, rate: float) -> float:
    """What a share of such scores passes.

    Args:
        negative: scores.
        rate: the share; where they are too few for it, the highest score is the threshold.
    """
    ordered = np.sort(np.asarray(negative, float))
    return float(ordered[_place(len(ordered), rate)]) if len(ordered) else math.inf


def calibration_error(
    z: NDArray[np.float32],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64],
    texts: Sequence[int],
) -> Estimate:
    """How far log-odds are from the truth: the mean distance of chance and share in ten bins (ECE).

    Args:
        z: log-odds of tokens.
        labels: whether each token's text is of the concept.
        weights: what each counts for.
        texts: the text of each.
    """
    chance = 1 / (1 + np.exp(-np.clip(z.astype(float), -30, 30)))
    bins = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    numbers = np.unique(np.asarray(texts), return_inverse=True)[1]
    n = int(numbers.max()) + 1
    gaps = np.zeros((n, _BINS))
    np.add.at(gaps, (numbers, bins), weights * (chance - labels))
    total = np.bincount(numbers, weights, n)
    draw = np.random.default_rng(0)
    counts = draw.multinomial(n, np.full(n, 1 / n), _DRAWS)
    drawn = np.abs(counts @ gaps).sum(1) / (counts @ total)
    value = float(np.abs(gaps.sum(0)).sum() / total.sum())
    low, high = np.percentile(drawn, _TAILS)
    return Estimate(value, min(float(low), value), max(float(high), value), n, "bootstrap")


def per_10k(flagged: Sequence[int], tokens: Sequence[int]) -> Estimate:
    """False alarms per 10,000 tokens.

    Args:
        flagged: alarms of each text.
        tokens: its tokens.
    """
    rate = stats.ratio(flagged, tokens)
    if rate.value == 0:  # the rule of three, by texts: tokens of one go together
        rate = replace(rate, low=0.0, high=min(1.0, 3 / max(len(tokens), 1)))
    return replace(rate, **{k: 1e4 * getattr(rate, k) for k in ("value", "low", "high")})


def _place(n: int, rate: float) -> int:
    """The place of the threshold among n ordered scores."""
    return min(n - 1, math.ceil((n + 1) * (1 - rate)) - 1)


def _bounded(value: float, ends: NDArray[np.float64], fewest: int, n: int) -> Estimate:
    low, high = float(ends[0]), float(ends[1])
    if value in (0.0, 1.0):
        wider = stats.proportion(round(value * fewest), fewest)
        low, high = min(low, wider.low), max(high, wider.high)
    return Estimate(value, min(low, value), max(high, value), n, "bootstrap")
