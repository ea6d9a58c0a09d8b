"""Figures with their intervals: bars, tables, and facts in a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from brainscan.stats import Estimate
from brainscan.views.data import RateView
from brainscan.views.html import Html, escape, join, number, percent


def estimate_text(estimate: Estimate, *, as_percent: bool = False) -> str:
    """An estimate in words: value, interval, and the number of independent units."""
    show = percent if as_percent else number
    return f"{show(estimate.value)} ({_rest(estimate, as_percent)})"


def rates(
    views: Sequence[RateView], *, low: float = 0.0, high: float = 1.0, as_percent: bool = True
) -> Html:
    """Bars with intervals on one scale; controls in grey.

    Args:
        views: the figures.
        low: where the scale begins; bars grow from 0, or from here if 0 is not on the scale.
        high: where it ends.
        as_percent: whether the figures are fractions to show as percentages.
    """
    span = (high - low) or 1.0
    origin = min(max(0.0, low), high)

    def place(value: float) -> float:
        if math.isnan(value):
            return 0.0
        return min(max((value - low) / span, 0.0), 1.0) * 100

    rows = join(_row(view, place, place(origin), as_percent) for view in views)
    return Html(f'<ul class="bs-rates">{rows}</ul>')


def _row(view: RateView, place: Callable[[float], float], base: float, as_percent: bool) -> str:
    show = percent if as_percent else number
    estimate, value = view.estimate, place(view.estimate.value)
    whisker = ""
    if has_interval(estimate):
        start, stop = place(estimate.low), place(estimate.high)
        whisker = f'<b style="left:{start:.2f}%;width:{stop - start:.2f}%"></b>'
    bar = f"left:{min(value, base):.2f}%;width:{abs(value - base):.2f}%"
    return (
        f'<li class="{"bs-control" if view.control else ""}">'
        f'<span class="bs-name">{escape(view.label)}</span><span class="bs-track" '
        f'aria-hidden="true"><i style="{bar}"></i>{whisker}</span><span class="bs-reads"><strong>'
        f"{show(estimate.value)}</strong> {_rest(estimate, as_percent)}</span></li>"
    )


def has_interval(estimate: Estimate) -> bool:
    """Whether the estimate has an interval with two ends."""
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)


def _rest(estimate: Estimate, as_percent: bool) -> str:
    if not has_interval(estimate):
        return f"n = {estimate.n:,}"
    show = percent if as_percent else number
    return f"{show(estimate.low)} to {show(estimate.high)}, n = {estimate.n:,}"


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Names and values in a row."""
    items = join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return Html(f'<dl class="bs-figures">{items}</dl>')


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, wrapped: bool = True) -> Html:
    """A plain table; the first cell of a row is its heading.

    Args:
        headings: the columns' names.
        rows: the cells' texts.
        wrapped: whether a cell may take several lines; figures are read better on one.
    """
    kind = "bs-table" if wrapped else "bs-table bs-oneline"
    head = join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        f"{join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
        if row
    )
    return Html(
        f'<div class="{kind}" tabindex="0" role="region" aria-label="Table"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
