"""A tested set of features beside random sets: is its measure more than chance gives?

1. The measures of the random sets are counted in bins of equal width.
2. The tested set's rank counts it among them: one more than the random sets that reach its
   measure. The one-sided p is the rank over the number of all sets, so that it is never 0 (Phipson
   & Smyth 2010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from brainscan.views.html import MINUS, Html, escape, join, number
from brainscan.views.plots import COLOURS, GREY, axis, drawn, folded_figures, lay_out
from brainscan.views.rates import table

_FEWEST, _MOST = 5, 30
_FEW = 8
_MARKS = (("smallest", 0.0), ("2.5%", 0.025), ("median", 0.5), ("97.5%", 0.975), ("largest", 1.0))


class _Bin(NamedTuple):
    low: float
    high: float
    sets: int

    def __str__(self) -> str:
        width = self.high - self.low
        return f"{_short(self.low, width)} to {_short(self.high, width)}"


def null_plot(
    values: Sequence[float], own: float, *, title: str, measure: str, smaller: bool = False
) -> Html:
    """Draws how a measure is distributed over random sets, with the tested set's own.

    Args:
        values: the measure of each random set; those that are no numbers are left out.
        own: the measure of the tested set.
        title: what the plot shows, in words.
        measure: what is measured, for the horizontal axis.
        smaller: whether a small measure is the one that counts, such as a harmful rate.
    """
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return Html('<p class="bs-none">No random set was measured: nothing to compare with.</p>')
    bins = _bins(known)
    told = _short(own, bins[0].high - bins[0].low)
    said = f"Tested set {told}: {_rank(known, own, smaller)}"
    if len(known) < len(values):
        said += f" {len(values) - len(known)} random sets without a value are left out."
    below = Html(f'<p class="bs-finding">{escape(said)}</p>')
    figures = folded_figures(_figures(known, bins, told, measure))
    return drawn(_figure(bins, own, told, measure), title, join([below, figures]))


def _short(value: float, width: float) -> str:
    """A value with as many digits as a bin is fine."""
    if not (math.isfinite(value) and 0 < width < math.inf):
        return number(value)
    digits = max(-math.floor(math.log10(width)), 0)
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", MINUS)


def _rank(known: Sequence[float], own: float, smaller: bool) -> str:
    """The tested set's rank and p in words."""
    if not math.isfinite(own):
        return f"not measured, beside {len(known):,} random sets."
    reach = sum(value <= own if smaller else value >= own for value in known)
    rank, sets = reach + 1, len(known) + 1
    first = "smallest" if smaller else "largest"
    return (
        f"rank {rank:,} of {sets:,}, p = {rank / sets:.2g} (one-sided; {first} first, with "
        f"{len(known):,} random sets)."
    )


def _figures(known: Sequence[float], bins: Sequence[_Bin], told: str, measure: str) -> Html:
    width = bins[0].high - bins[0].low
    marks = [
        (f"random sets, {name}", _short(known[round(at * (len(known) - 1))], width))
        for name, at in _MARKS
    ]
    counts = [(str(each), f"{each.sets:,}") for each in bins]
    return join(
        [
            table(("set", measure), [("tested set", told), *marks]),
            table((measure, "random sets"), counts),
        ]
    )


def _bins(known: Sequence[float]) -> list[_Bin]:
    """Sorted values in bins, each with its lower end, the last with both."""
    low, high = known[0], known[-1]
    parts = min(max(round(1.4 * math.sqrt(len(known))), _FEWEST), _MOST)
    width = (high - low) / parts
    if not 0 < width < math.inf:
        return [_Bin(low, high, len(known))]
    counts = [0] * parts
    for value in known:
        counts[min(int((value - low) / width), parts - 1)] += 1
    return [_Bin(low + i * width, low + (i + 1) * width, n) for i, n in enumerate(counts)]


def _figure(bins: Sequence[_Bin], own: float, told: str, measure: str) -> Any:
    import plotly.graph_objects as go

    low, high = bins[0].low, bins[-1].high
    width = bins[0].high - bins[0].low or abs(low) * 0.02 or 0.02
    figure = go.Figure(
        go.Bar(
            x=[(b.low + b.high) / 2 for b in bins],
            y=[b.sets for b in bins],
            width=width,
            marker={"color": GREY, "line": {"width": 0}},
            customdata=[f"{b}: {b.sets:,} sets" for b in bins],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    ends = [low - width, high + width]
    if math.isfinite(own):
        ends = [min(low, own), max(high, own)]
        room = 0.04 * (ends[1] - ends[0]) or width
        ends = [ends[0] - room, ends[1] + room]
        right = own > sum(ends) / 2
        figure.add_vline(
            x=own,
            line={"width": 2.5, "color": COLOURS[1]},
            annotation={
                "text": f"<b>tested set {told}</b>",
                "font": {"size": 12},
                "xanchor": "right" if right else "left",
                "yanchor": "bottom",
            },
        )
    step = 1 if max(b.sets for b in bins) <= _FEW else None
    across = axis(measure, showgrid=False, range=ends)
    counts = axis("random sets", dtick=step)
    lay_out(figure, across, counts, bargap=0, margin={"t": 26})
    return figure
