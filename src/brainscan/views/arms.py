"""What each arm leaves of the harm, against what it costs.

1. Across stands the cost, KL on neutral text, in decades; left of them a place for costs of 0.
2. Upward stands the harmful rate with its 95% interval. The untouched rate is a dotted line, its
   interval a grey band.
3. A colour and a symbol for each kind of arm; controls are grey, the chosen arm has a ring. Names
   stand beside the points while they are few; all others are told by pointing at them.
4. An arm without a rate or a cost has only its line in the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from brainscan.stats import Estimate
from brainscan.views.costs import CostAxis, cost_axis, cost_text
from brainscan.views.data import ArmView
from brainscan.views.html import NONE, Html, join, percent
from brainscan.views.labels import Point, label_places
from brainscan.views.plots import COLOURS, GREY, axis, drawn, folded_figures, lay_out, plot_text
from brainscan.views.rates import estimate_text, has_interval, table

NAMED = 10
"""Arms at most, random sets apart, whose names stand in the plot."""

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "pentagon", "star", "hexagon")
_LETTERS = 22
_BELOW, _ABOVE = 0.04, 0.1


class _Mark(NamedTuple):
    """An arm as it is drawn."""

    arm: ArmView
    power: float
    low: float
    high: float
    name: str
    side: str


def arms_against_cost(arms: Sequence[ArmView], *, title: str, before: Estimate) -> Html:
    """Draws the harmful rate under each arm against the arm's cost.

    Args:
        arms: the arms, in the order of the table.
        title: what the plot shows, in words.
        before: the harmful rate of the untouched model.
    """
    if not arms:
        return Html('<p class="bs-none">No arm was run.</p>')
    shown = [arm for arm in arms if all(map(math.isfinite, (arm.harmful.value, arm.cost.value)))]
    below = [folded_figures(_figures(arms, before))]
    if len(shown) < len(arms):
        left = f"{len(arms) - len(shown)} of {len(arms)} arms have no rate or no cost"
        below.insert(0, Html(f'<p class="bs-hint">{left} and stand in the table only.</p>'))
    return drawn(_figure(shown, before), title, join(below))


def _figures(arms: Sequence[ArmView], before: Estimate) -> Html:
    rows = [("untouched", NONE, NONE, estimate_text(before, as_percent=True), "0", "")]
    rows += [
        (
            arm.name,
            arm.kind,
            ", ".join(_roles(arm)) or NONE,
            estimate_text(arm.harmful, as_percent=True),
            cost_text(arm.cost),
            "; ".join(arm.notes),
        )
        for arm in arms
    ]
    return table(("arm", "kind", "role", "harmful rate", "KL, nats per token", "notes"), rows)


def _roles(arm: ArmView) -> list[str]:
    roles = (("chosen", arm.chosen), ("control", arm.control))
    return [role for role, holds in roles if holds]


def _figure(arms: Sequence[ArmView], before: Estimate) -> Any:
    import plotly.graph_objects as go

    figure, costs = go.Figure(), cost_axis([arm.cost.value for arm in arms])
    ends = [_ends(rate)[1] for rate in (*(arm.harmful for arm in arms), before)]
    top = max(filter(math.isfinite, ends), default=1.0) or 1.0
    for trace in _traces(_marks(arms, costs, top, before.value)):
        figure.add_trace(trace)
    _untouched(figure, before)
    if costs.zero:
        figure.add_vline(x=costs.edge, line={"width": 1, "color": GREY}, opacity=0.5)
    lay_out(
        figure,
        axis("KL on neutral text, nats per token", showgrid=False, **costs.settings()),
        axis("harmful rate", tickformat=".0%", range=[-_BELOW * top, (1 + _ABOVE) * top]),
        hovermode="closest",
        height=420,
    )
    return figure


def _ends(rate: Estimate) -> tuple[float, float]:
    return (rate.low, rate.high) if has_interval(rate) else (rate.value, rate.value)


def _marks(arms: Sequence[ArmView], costs: CostAxis, top: float, before: float) -> list[_Mark]:
    """Where each arm stands, and on which side of it its name."""
    named = [not arm.random for arm in arms]
    if sum(named) > NAMED:
        named = [arm.chosen for arm in arms]
    names = [_lines(arm.name) if shown else "" for arm, shown in zip(arms, named, strict=True)]
    places = [costs.place(arm.cost.value) for arm in arms]
    start, end = costs.ends

    def upward(rate: float) -> float:
        return (rate / top + _BELOW) / (1 + _BELOW + _ABOVE)

    points = [
        Point(
            x=(place - start) / (end - start),
            y=upward(arm.harmful.value),
            low=upward(_ends(arm.harmful)[0]),
            high=upward(_ends(arm.harmful)[1]),
            name=name,
        )
        for arm, place, name in zip(arms, places, names, strict=True)
    ]
    sides = label_places(points, upward(before) if math.isfinite(before) else None)
    return [
        _Mark(arm, place, *_ends(arm.harmful), name, side)
        for arm, place, name, side in zip(arms, places, names, sides, strict=True)
    ]


def _lines(name: str) -> str:
    """A name on two lines at most."""
    return "\n".join(wrap(name, _LETTERS, max_lines=2, placeholder="…"))


def _broken(lines: str) -> str:
    return "<br>".join(map(plot_text, lines.split("\n")))


def _traces(marks: Sequence[_Mark]) -> list[Any]:
    """The arms of a kind together; random sets first, so that they lie below."""
    kinds: dict[tuple[bool, bool, str], list[_Mark]] = {}
    for mark in marks:
        arm = mark.arm
        kinds.setdefault((not arm.random, arm.control, arm.kind), []).append(mark)
    hues, symbols = iter(COLOURS * len(kinds)), iter(_SYMBOLS * len(kinds))
    traces = []
    for (named, control, _), own in sorted(kinds.items(), key=lambda one: one[0][0]):
        grey = control or not named
        colour, symbol = (GREY, "diamond") if grey else (next(hues), next(symbols))
        traces.append(_trace(own, colour, symbol))
    chosen = [mark for mark in marks if mark.arm.chosen]
    return [*traces, _rings(chosen)] if chosen else traces


def _trace(marks: Sequence[_Mark], colour: str, symbol: str) -> Any:
    import plotly.graph_objects as go

    first = marks[0].arm
    return go.Scatter(
        x=[10**mark.power for mark in marks],
        y=[mark.arm.harmful.value for mark in marks],
        name=plot_text(f"{first.kind} (control)" if first.control else first.kind),
        mode="markers+text",
        text=["" if mark.arm.chosen else _broken(mark.name) for mark in marks],
        textposition=[mark.side for mark in marks],
        textfont={"size": 12},
        marker={"size": 6 if first.random else 11, "symbol": symbol, "color": colour},
        opacity=0.5 if first.random else 1.0,
        error_y={
            "array": [mark.high - mark.arm.harmful.value for mark in marks],
            "arrayminus": [mark.arm.harmful.value - mark.low for mark in marks],
            "thickness": 0.75 if first.random else 1.5,
            "width": 0 if first.random else 4,
            "color": colour,
        },
        hovertemplate="%{customdata}<extra></extra>",
        customdata=[_told(mark.arm) for mark in marks],
    )


def _told(arm: ArmView) -> str:
    lines = (
        f"<b>{plot_text(arm.name)}</b>",
        ", ".join([plot_text(arm.kind), *_roles(arm)]),
        f"harmful rate {estimate_text(arm.harmful, as_percent=True)}",
        f"KL {plot_text(cost_text(arm.cost))}",
    )
    return "<br>".join(lines)


def _rings(chosen: Sequence[_Mark]) -> Any:
    """Rings around the chosen arms, with their names, which are to stand clear of the rings."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[10**mark.power for mark in chosen],
        y=[mark.arm.harmful.value for mark in chosen],
        name="chosen",
        mode="markers+text",
        text=[f"<b>{_broken(mark.name)}</b>" for mark in chosen],
        textposition=[mark.side for mark in chosen],
        textfont={"size": 12},
        marker={"size": 21, "symbol": "circle-open", "color": COLOURS[1], "line": {"width": 2.5}},
        hoverinfo="skip",
    )


def _untouched(figure: Any, before: Estimate) -> None:
    if not math.isfinite(before.value):
        return
    if has_interval(before):
        band = {"fillcolor": GREY, "opacity": 0.12, "line_width": 0, "layer": "below"}
        figure.add_hrect(y0=before.low, y1=before.high, **band)
    figure.add_hline(
        y=before.value,
        line={"width": 1.5, "dash": "dot", "color": GREY},
        annotation={"text": f"untouched {percent(before.value)}", "font": {"size": 12}},
    )
