"""Estimates: every reported figure, with its interval, its n and how the interval was made.

1. A share of n: Wilson's score interval (Wilson 1927), which holds near 0 and 1.
2. A mean of independent values: Student's t.
3. A ratio of sums, or a mean of values that come in clusters (tokens of one document): the
   percentile bootstrap over whole clusters (Efron & Tibshirani 1993, ch. 13), since the tokens
   of one document are not independent of each other.
4. A difference on the same items: t on the differences.
5. A rate whose units come in a few clusters: the wild cluster bootstrap-t (Cameron, Gelbach, Miller
   2008) with Webb's six weights (Webb 2014), since with few clusters the plain bootstrap's
   intervals are too narrow. Where all units agree there is no spread to draw from: then Wilson's
   interval with the clusters as units.
6. A difference of two shares: Newcombe's hybrid score interval (Newcombe 1998, method 10); of two
   shares of the same units, his interval for pairs (Newcombe 1998b, method 10), which has a width
   even where no pair differs.
7. The same where the units come in a few clusters: t over these, with a standard error never below
   that of independent pairs with one more of each kind, so that agreement by chance is not certain.

All intervals are at 95%. The bootstrap is seeded: the same data gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from brainscan.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""How often the bootstrap draws."""

_SEED = 0
_DRAWS_AT_ONCE = 4_000_000
_TAILS = (2.5, 97.5)


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

    array = _vector(values, "values")
    if clusters is None:
        return _student(array, "t")
    ids = _numbered(clusters, len(array))
    return ratio(np.bincount(ids, weights=array), np.bincount(ids).astype(float))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Estimate:
    """A sum over a sum, with the bootstrap over clusters.

    Args:
        numerator: each cluster's part of the numerator.
        denominator: each cluster's part of the denominator.
    """
    import numpy as np

    top, bottom = _vector(numerator, "numerator"), _vector(denominator, "denominator")
    if len(top) != len(bottom):
        raise UsageError(
            "numerator and denominator of one length",
            f"{len(top)} and {len(bottom)}",
            "pass one number of each per cluster",
        )
    n = len(top)
    value = _divide(top.sum(keepdims=True), bottom.sum(keepdims=True))[0]
    if n == 1:
        return Estimate(float(value), math.nan, math.nan, 1, "cluster bootstrap")
    random = np.random.default_rng(_SEED)
    drawn = []
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, RESAMPLES, at_once):
        rows = random.integers(0, n, size=(min(at_once, RESAMPLES - start), n))
        drawn.append(_divide(top[rows].sum(axis=1), bottom[rows].sum(axis=1)))
    kept = np.concatenate(drawn)
    kept = kept[~np.isnan(kept)]
    low, high = np.percentile(kept, _TAILS) if len(kept) else (math.nan, math.nan)
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
    left, right = _vector(a, "a"), _vector(b, "b")
    if len(left) != len(right):
        raise UsageError(
            "the same items in both",
            f"{len(left)} and {len(right)} values",
            "pass one value per item for each arm",
        )
    return _student(left - right, "paired t")


def clustered_share(values: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """A share of units that come in a few clusters; n is the number of clusters.

    Args:
        values: 0 or 1 for each unit.
        clusters: what each unit belongs to.
    """
    import numpy as np

    array = _vector(values, "values")
    ids = _numbered(clusters, len(array))
    n, groups = len(array), int(ids.max()) + 1
    share = float(array.mean())
    sums = np.bincount(ids, weights=array - share, minlength=groups)
    error = float(np.sqrt((sums**2).sum())) / n
    if error == 0 or groups == 1:
        plain = proportion(round(share * groups), groups)
        return Estimate(share, min(plain.low, share), max(plain.high, share), groups, "wilson")
    weights = np.array([-math.sqrt(1.5), -1.0, -math.sqrt(0.5), math.sqrt(0.5), 1, math.sqrt(1.5)])
    drawn = np.random.default_rng(_SEED).choice(weights, size=(RESAMPLES, groups)) * sums
    shifts = drawn.sum(axis=1) / n
    sizes = np.bincount(ids, minlength=groups)
    errors = np.sqrt(((drawn - sizes * shifts[:, None]) ** 2).sum(axis=1)) / n
    ratios = _divide(shifts, errors)
    low, high = np.nanpercentile(ratios, _TAILS)
    ends = (share - float(high) * error, share - float(low) * error)
    return Estimate(share, max(0.0, ends[0]), min(1.0, ends[1]), groups, "wild cluster bootstrap-t")


def risk_difference(first: tuple[int, int], second: tuple[int, int]) -> Estimate:
    """The difference of two shares of other units, with Newcombe's interval.

    Args:
        first: how many of how many.
        second: the same, for what is subtracted.
    """
    if not first[1] or not second[1]:
        return Estimate(math.nan, -1.0, 1.0, 0, "newcombe")
    a, b = proportion(*first), proportion(*second)
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, first[1] + second[1], "newcombe")


def paired_risk_difference(both: int, only_first: int, only_second: int, n: int) -> Estimate:
    """The difference of two shares of the same units, with Newcombe's interval for pairs.

    Args:
        both: units that have it both times.
        only_first: units that have it the first time only.
        only_second: units that have it the second time only.
        n: how many units.
    """
    neither = n - both - only_first - only_second
    if min(both, only_first, only_second, neither) < 0:
        raise UsageError("counts of pairs that add up to n", f"{neither} left", "check the counts")
    if not n:
        return Estimate(math.nan, -1.0, 1.0, 0, "newcombe, paired")
    a, b = proportion(both + only_first, n), proportion(both + only_second, n)
    margins = (both + only_first) * (only_second + neither) * (both + only_second)
    margins *= only_first + neither
    covered = float(both * neither - only_first * only_second)
    if covered > 0:  # the continuity correction
        covered = max(covered - n / 2, 0.0)
    tie = covered / math.sqrt(margins) if margins else 0.0

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(down**2 - 2 * tie * down * up + up**2, 0.0))

    value = (only_first - only_second) / n
    low = value - reach(a.value - a.low, b.high - b.value)
    high = value + reach(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, n, "newcombe, paired")


class ClusteredChange(NamedTuple):
    """A difference of two shares over clusters, and its chance if there is none."""

    difference: Estimate
    chance: float


def clustered_change(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]
) -> ClusteredChange:
    """The difference of two shares of the same units, which come in clusters; n is their number.

    Args:
        first: whether each unit has it the first time.
        second: whether it has it the second time.
        clusters: what each unit belongs to.
    """
    import numpy as np
    from scipy.stats import t

    if not clusters:
        return ClusteredChange(Estimate(math.nan, -1.0, 1.0, 0, "t over clusters"), math.nan)
    change = np.array(first, float) - np.array(second, float)
    ids = _numbered(clusters, len(change))
    n, groups, value = len(change), int(ids.max()) + 1, float(change.mean())
    if groups == 1:
        return ClusteredChange(Estimate(value, -1.0, 1.0, 1, "t over clusters"), math.nan)
    sums = np.bincount(ids, weights=change - value)
    spread = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / n
    up, down = (float((change == sign).sum() + 1) / (n + 2) for sign in (1, -1))
    least = math.sqrt((up + down - (up - down) ** 2) / n)
    error = max(spread, least)
    half = float(t.ppf(0.975, groups - 1)) * error
    low, high = max(-1.0, value - half), min(1.0, value + half)
    estimate = Estimate(value, low, high, groups, "t over clusters")
    return ClusteredChange(estimate, 2 * float(t.sf(abs(value) / error, groups - 1)))


def holm(chances: Sequence[float]) -> list[float]:
    """Chances adjusted for their number (Holm 1979); what is no number stays so.

    Args:
        chances: p-values.
    """
    from statsmodels.stats.multitest import multipletests

    known = [chance for chance in chances if math.isfinite(chance)]
    adjusted = iter(multipletests(known, method="holm")[1].tolist() if known else ())
    return [next(adjusted) if math.isfinite(chance) else chance for chance in chances]


def _student(array: NDArray[np.float64], method: str) -> Estimate:
    from scipy.stats import t

    n = len(array)
    value = float(array.mean())
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1, method)
    half = float(t.ppf(0.975, n - 1)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, value - half, value + half, n, method)


def _numbered(clusters: Sequence[Hashable], n: int) -> NDArray[np.int64]:
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


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise UsageError(
            f"a list of at least one number as {name}",
            f"an array of shape {array.shape}",
            "check that anything was measured",
        )
    return array


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
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
