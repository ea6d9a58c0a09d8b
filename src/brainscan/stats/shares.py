"""Shares of units that come in clusters, and differences of shares.

1. A rate whose units come in a few clusters: the wild cluster bootstrap-t (Cameron, Gelbach, Miller
   2008) with Webb's six weights (Webb 2014), since with few clusters the plain bootstrap's
   intervals are too narrow. Where all units agree there is no spread to draw from: then Wilson's
   interval with the clusters as units.
2. A difference of two shares: Newcombe's hybrid score interval (Newcombe 1998, method 10); of two
   shares of the same units, his interval for pairs (Newcombe 1998b, method 10), which has a width
   even where no pair differs.
3. The same where the units come in a few clusters: t over these, with a standard error never below
   that of independent pairs with one more of each kind, so that agreement by chance is not certain.
   Of shares of other units it is no narrower than Newcombe's interval, nor less likely by chance
   than Fisher's exact test says.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from brainscan.errors import UsageError
from brainscan.stats.estimates import (
    RESAMPLES,
    SEED,
    TAILS,
    Estimate,
    divide,
    numbered,
    proportion,
    vector,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def clustered_share(values: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """A share of units that come in a few clusters; n is the number of clusters.

    Args:
        values: 0 or 1 for each unit.
        clusters: what each unit belongs to.
    """
    import numpy as np

    array = vector(values, "values")
    ids = numbered(clusters, len(array))
    n, groups = len(array), int(ids.max()) + 1
    share = float(array.mean())
    sums = np.bincount(ids, weights=array - share, minlength=groups)
    error = float(np.sqrt((sums**2).sum())) / n
    if error == 0 or groups == 1:
        plain = proportion(round(share * groups), groups)
        return Estimate(share, min(plain.low, share), max(plain.high, share), groups, "wilson")
    weights = np.array([-math.sqrt(1.5), -1.0, -math.sqrt(0.5), math.sqrt(0.5), 1, math.sqrt(1.5)])
    drawn = np.random.default_rng(SEED).choice(weights, size=(RESAMPLES, groups)) * sums
    shifts = drawn.sum(axis=1) / n
    sizes = np.bincount(ids, minlength=groups)
    errors = np.sqrt(((drawn - sizes * shifts[:, None]) ** 2).sum(axis=1)) / n
    ratios = divide(shifts, errors)
    low, high = np.nanpercentile(ratios, TAILS)
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
    ids = numbered(clusters, len(change))
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


def clustered_risk_difference(
    first: Sequence[tuple[bool, Hashable]], second: Sequence[tuple[bool, Hashable]]
) -> ClusteredChange:
    """The difference of two shares of other units, which come in clusters; n is their number.

    Args:
        first: whether each unit has it, and what the unit belongs to.
        second: the same, for what is subtracted.
    """
    import numpy as np
    from scipy.stats import fisher_exact, t

    counts = [(sum(has for has, _ in units), len(units)) for units in (first, second)]
    plain = risk_difference(*counts)
    names = [cluster for _, cluster in (*first, *second)]
    groups = len(set(names))
    if not first or not second or groups == 1:
        return ClusteredChange(
            Estimate(plain.value, -1.0, 1.0, groups, "t over clusters"), math.nan
        )
    parts = [
        sign * (np.array([has for has, _ in units], float) - count / n) / n
        for sign, units, (count, n) in zip((1, -1), (first, second), counts, strict=True)
    ]
    sums = np.bincount(numbered(names, len(names)), weights=np.concatenate(parts))
    error = math.sqrt(groups / (groups - 1) * float((sums**2).sum()))
    if not error:  # each arm is of one mind: its clusters are what is counted
        sizes = [len({cluster for _, cluster in units}) for units in (first, second)]
        counts = [(g if k else 0, g) for (k, _), g in zip(counts, sizes, strict=True)]
        plain = risk_difference(*counts)
    half = float(t.ppf(0.975, groups - 1)) * error
    low, high = min(plain.low, plain.value - half), max(plain.high, plain.value + half)
    estimate = Estimate(plain.value, max(-1.0, low), min(1.0, high), groups, "t over clusters")
    chance = 2 * float(t.sf(abs(plain.value) / error, groups - 1)) if error else 0.0
    table = [[k, n - k] for k, n in counts]
    return ClusteredChange(estimate, max(chance, float(fisher_exact(table).pvalue)))


def holm(chances: Sequence[float]) -> list[float]:
    """Chances adjusted for their number (Holm 1979); what is no number stays so.

    Args:
        chances: p-values.
    """
    from statsmodels.stats.multitest import multipletests

    known = [chance for chance in chances if math.isfinite(chance)]
    adjusted = iter(multipletests(known, method="holm")[1].tolist() if known else ())
    return [next(adjusted) if math.isfinite(chance) else chance for chance in chances]
