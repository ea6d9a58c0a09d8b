"""Estimates: every reported figure, with its interval, its n and how the interval was made.

1. A share of n: Wilson's score interval (Wilson 1927), which holds near 0 and 1.
2. A mean of independent values: Student's t.
3. A ratio of sums, or a mean of values that come in clusters (tokens of one document): the
   percentile bootstrap over whole clusters (Efron & Tibshirani 1993, ch. 13), since the tokens
   of one document are not independent of each other.
4. A difference on the same items: t on the differences.

All intervals are at 95%. The bootstrap is seeded: the same data gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from brainscan.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""How often the bootstrap draws."""

SEED = 0
"""Of its draws."""
_DRAWS_AT_ONCE = 4_000_000
TAILS = (2.5, 97.5)
"""The percentiles at which an interval ends."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty."""

    value: float
    """The figure."""

    low: float
    """Lower end of the 95% interval; not a number where there is none."""

    high: float
    """Upper end of the 95% interval; not a number where there is none."""

    n: int
    """How many independent units it rests on."""

    method: str
    """How the interval was made."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Estimate:
        """An estimate from its JSON object; what is null there is not a number."""
        value, low, high = (
            math.nan if found[name] is None else float(found[name])
            for name in ("value", "low", "high")
        )
        return cls(value, low, high, int(found["n"]), str(found["method"]))

    def to_json(self) -> dict[str, float | int | str | None]:
        """The estimate as a JSON object; what is not a finite number becomes null."""
        return {
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "n": self.n,
            "method": self.method,
        }

    def __str__(self) -> str:
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}] (n={self.n})"


def proportion(successes: int, n: int) -> Estimate:
    """A share, with Wilson's interval.

    Args:
        successes: how many of the units.
        n: how many units; with none, the share is unknown between 0 and 1.
    """
    if not 0 <= successes <= n:
        raise UsageError("0 <= successes <= n", f"{successes} of {n}", "check the counts")
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "wilson")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    share = successes / n
    return Estimate(share, min(float(low), share), max(float(high), share), n, "wilson")


def mean(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A mean, with Student's t or, when the values come in clusters, the cluster bootstrap.

    Args:
        values: the values.
        clusters: what each value belongs to (its document); None when they are independent.
    """
    import numpy as np

    array = vector(values, "values")
    if clusters is None:
        return _student(array, "t")
    ids = numbered(clusters, len(array))
    return ratio(np.bincount(ids, weights=array), np.bincount(ids).astype(float))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Estimate:
    """A sum over a sum, with the bootstrap over clusters.

    Args:
        numerator: each cluster's part of the numerator.
        denominator: each cluster's part of the denominator.
    """
    import numpy as np

    top, bottom = vector(numerator, "numerator"), vector(denominator, "denominator")
    if len(top) != len(bottom):
        raise UsageError(
            "numerator and denominator of one length",
            f"{len(top)} and {len(bottom)}",
            "pass one number of each per cluster",
        )
    n = len(top)
    value = divide(top.sum(keepdims=True), bottom.sum(keepdims=True))[0]
    if n == 1:
        return Estimate(float(value), math.nan, math.nan, 1, "cluster bootstrap")
    random = np.random.default_rng(SEED)
    drawn = []
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, RESAMPLES, at_once):
        rows = random.integers(0, n, size=(min(at_once, RESAMPLES - start), n))
        drawn.append(divide(top[rows].sum(axis=1), bottom[rows].sum(axis=1)))
    kept = np.concatenate(drawn)
    kept = kept[~np.isnan(kept)]
    low, high = np.percentile(kept, TAILS) if len(kept) else (math.nan, math.nan)
    return Estimate(float(value), float(low), float(high), n, "cluster bootstrap")


def exponential(estimate: Estimate) -> Estimate:
    """The exponential of a figure and of its interval's ends.

    Args:
        estimate: the figure, such as a change of log-likelihood per token.
    """
    value, low, high = map(math.exp, (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The mean of ``a - b`` over the same items, with t on the differences.

    Args:
        a: each item's value in one arm.
        b: the same item's value in the other.
    """
    left, right = vector(a, "a"), vector(b, "b")
    if len(left) != len(right):
        raise UsageError(
            "the same items in both",
            f"{len(left)} and {len(right)} values",
            "pass one value per item for each arm",
        )
    return _student(left - right, "paired t")


def _student(array: NDArray[np.float64], method: str) -> Estimate:
    from scipy.stats import t

    n = len(array)
    value = float(array.mean())
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1, method)
    half = float(t.ppf(0.975, n - 1)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, value - half, value + half, n, method)


def numbered(clusters: Sequence[Hashable], n: int) -> NDArray[np.int64]:
    """The number of each value's cluster."""
    import numpy as np

    if len(clusters) != n:
        raise UsageError(
            f"one cluster for each of the {n} values",
            f"{len(clusters)} clusters",
            "pass lists of one length",
        )
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(cluster, len(number)) for cluster in clusters], np.int64)


def vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """A list of at least one number, as an array."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise UsageError(
            f"a list of at least one number as {name}",
            f"an array of shape {array.shape}",
            "check that anything was measured",
        )
    return array


def divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the other; not a number where the other is 0."""
    import numpy as np

    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)


def finite(value: float) -> float | None:
    """A number as JSON can say it: what is not finite becomes null.

    Args:
        value: the number.
    """
    return float(value) if math.isfinite(value) else None


def _short(value: Any) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"
