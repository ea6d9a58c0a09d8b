"""An axis of costs in decades, with a place for a cost of 0, which has no logarithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from brainscan.stats import Estimate
from brainscan.views.html import MINUS, number
from brainscan.views.rates import has_interval

DECADES = 6
"""Decades shown at most; what costs less stands where 0 does."""

_BEFORE, _AFTER = 0.3, 0.15


class CostAxis(NamedTuple):
    """Where costs stand. Places are powers of ten."""

    low: int
    """The lowest decade."""
    high: int
    """The highest decade."""
    zero: bool
    """Whether there is a place for costs of 0, one decade below the lowest."""
    exact: bool
    """Whether all costs that stand there are exactly 0."""

    @property
    def ends(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        return self.low - self.zero - _BEFORE, self.high + _AFTER

    @property
    def edge(self) -> float:
        """Where the place for 0 ends, as a cost."""
        return float(10 ** (self.low - 0.5))

    def place(self, cost: float) -> float:
        """Where a cost stands, as a power of ten."""
        if cost <= 0 or math.log10(cost) < self.low:
            return self.low - 1.0
        return math.log10(cost)

    def settings(self) -> dict[str, Any]:
        """What plotly is to know of the axis."""
        powers = range(self.low, self.high + 1)
        texts = [f"{10.0**power:g}" for power in powers]
        values = [10.0**power for power in powers]
        if self.zero:
            texts.insert(0, "0" if self.exact else f"under {texts[0]}")
            values.insert(0, 10.0 ** (self.low - 1))
        return {"type": "log", "range": list(self.ends), "tickvals": values, "ticktext": texts}


def cost_axis(costs: Sequence[float]) -> CostAxis:
    """The axis for some costs.

    Args:
        costs: finite numbers; those below 0 are taken as 0.
    """
    powers = [math.log10(cost) for cost in costs if cost > 0]
    high = math.ceil(max(powers, default=0.0))
    low = min(max(math.floor(min(powers, default=0.0)), high - DECADES), high - 1)
    below = [cost for cost in costs if cost <= 0 or math.log10(cost) < low]
    return CostAxis(low, high, bool(below), not any(below))


def cost_text(cost: Estimate) -> str:
    """A cost in words, to two significant digits however small it is.

    Args:
        cost: the cost; of one that rests on no units its method is told.
    """
    if not has_interval(cost):
        return f"{_short(cost.value)} ({f'n = {cost.n:,}' if cost.n else cost.method})"
    return f"{_short(cost.value)} ({_short(cost.low)} to {_short(cost.high)}, n = {cost.n:,})"


def _short(value: float) -> str:
    return f"{value:.2g}".replace("-", MINUS) if math.isfinite(value) else number(value)
