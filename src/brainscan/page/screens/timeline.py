"""How concepts, surprise and jumps go on over an answer: a small drawing for each, in plain SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from brainscan.views import Html, escape, join
from brainscan.views.html import NONE, number, token_label
from brainscan.views.plots import folded_figures
from brainscan.views.rates import table

SHOWN = 8
"""Lines drawn at once; the others are folded below."""

_HEIGHT = 34.0
_ORDER = ("jump", "surprise", "concept")


@dataclass(frozen=True)
class Line:
    """One figure over the tokens of an answer."""

    name: str
    """What it is."""
    values: tuple[float, ...]
    """Its value at each token; not a number where there is none."""
    kind: Literal["jump", "surprise", "concept"] = "concept"
    """What kind of figure; the jump statistic and the surprise stand before the concepts."""
    onsets: tuple[int, ...] = ()
    """Tokens at which an alarm says that it rose."""

    @property
    def peak(self) -> int:
        """The token at which it is highest."""
        return max(range(len(self.values)), key=lambda i: _or(self.values[i], -math.inf))


def timeline(tokens: Sequence[str], lines: Sequence[Line], title: str) -> Html:
    """Draws figures below each other: the jumps, the surprise, concepts with alarms, the others.

    Args:
        tokens: the answer's tokens.
        lines: the figures, each with a value for every token.
        title: what they are of.
    """
    drawn = [line for line in lines if any(map(math.isfinite, line.values))]
    if not tokens or not drawn:
        return Html("")
    ordered = sorted(
        drawn,
        key=lambda one: (
            _ORDER.index(one.kind),
            not one.onsets,
            -_or(one.values[one.peak], 0.0),
        ),
    )
    rows = [_row(tokens, line) for line in ordered]
    more = (
        Html(
            f'<details class="bs-fold"><summary>{len(rows) - SHOWN} more</summary>'
            f'<ul class="bp-lines">{join(rows[SHOWN:])}</ul></details>'
        )
        if len(rows) > SHOWN
        else Html("")
    )
    figures = [
        (
            line.name,
            number(line.values[line.peak]),
            token_label(tokens[line.peak]),
            _alarms(tokens, line),
        )
        for line in ordered
    ]
    below = folded_figures(table(("line", "highest", "at", "alarms"), figures))
    return Html(
        f'<section class="bp-timeline" aria-label="{escape(title)}"><h4>{escape(title)}</h4>'
        f'<ul class="bp-lines">{join(rows[:SHOWN])}</ul>{more}{below}</section>'
    )


def _row(tokens: Sequence[str], line: Line) -> Html:
    values = [_or(value, 0.0) for value in line.values]
    top, bottom = max(*values, 0.0, 1e-9), min(*values, 0.0)
    width = max(len(values) - 1, 1)

    def height(value: float) -> float:
        return _HEIGHT - (value - bottom) / (top - bottom) * _HEIGHT

    points = " ".join(f"{i},{height(value):.1f}" for i, value in enumerate(values))
    zero = f"{height(0.0):.1f}"
    marks = join(
        f'<line class="bp-at" x1="{at}" x2="{at}" y1="0" y2="{_HEIGHT:g}"/>' for at in line.onsets
    )
    highest = f"{number(line.values[line.peak])} at “{token_label(tokens[line.peak]).strip()}”"
    return Html(
        f'<li class="bp-{line.kind}"><span class="bs-name">{escape(line.name)}</span>'
        f'<svg viewBox="0 0 {width} {_HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(line.name)}: highest {escape(highest)}">'
        f'<polygon class="bp-area" points="0,{zero} {points} {len(values) - 1},{zero}"/>'
        f'<line class="bp-zero" x1="0" x2="{width}" y1="{zero}" y2="{zero}"/>'
        f'<polyline points="{points}"/>{marks}</svg>'
        f'<span class="bs-value">{escape(highest)}</span></li>'
    )


def _alarms(tokens: Sequence[str], line: Line) -> str:
    return ", ".join(token_label(tokens[at]) for at in line.onsets) or NONE


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other
