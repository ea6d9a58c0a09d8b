"""Shares by two things at once, as a table whose cells are coloured."""

from __future__ import annotations

from brainscan.views.data import HeatCellView, HeatMapView
from brainscan.views.examples import heat
from brainscan.views.html import NONE, Html, escape, join, number, percent
from brainscan.views.rates import estimate_text, has_interval


def heat_map(view: HeatMapView) -> Html:
    """Shows shares as colours, with each figure, its interval and its n in the cell."""
    groups = join(
        f'<th scope="colgroup" colspan="{len(columns)}">{escape(name)}</th>'
        for name, columns in view.groups
    )
    columns = join(
        f'<th scope="col"{_first(n)}>{escape(name)}</th>'
        for _, names in view.groups
        for n, name in enumerate(names)
    )
    starts = {sum(len(c) for _, c in view.groups[:n]) for n in range(len(view.groups))}
    rows = join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{join(_cell(cell, n in starts) for n, cell in enumerate(cells))}</tr>"
        for name, cells in zip(view.rows, view.cells, strict=True)
    )
    title = escape(view.title)
    return Html(
        f'<figure class="bs-heatmap"><figcaption>{title}</figcaption>'
        f'<div class="bs-scroll" tabindex="0" role="region" aria-label="{title}"><table><thead>'
        f'<tr><th scope="col" rowspan="2">{escape(view.corner)}</th>{groups}</tr>'
        f"<tr>{columns}</tr></thead><tbody>{rows}</tbody>"
        '</table></div><p class="bs-legend"><span class="bs-scale"><b>0%</b><i></i><b>100%</b>'
        "</span><span>below each share: its 95% interval, and n</span></p></figure>"
    )


def _first(n: int) -> str:
    return "" if n else ' class="bs-first"'


def _cell(cell: HeatCellView | None, first: bool) -> str:
    kind = " bs-first" if first else ""
    if cell is None:
        return f'<td class="bs-empty{kind}" title="not measured">{NONE}</td>'
    found = cell.estimate
    told = estimate_text(found, as_percent=True) + (f"; {cell.note}" if cell.note else "")
    ends = f"{percent(found.low)}\u2013{percent(found.high)}" if has_interval(found) else NONE
    if not found.n:
        return (
            f'<td class="bs-empty{kind}" title="{escape(told)}">{number(found.value)}'
            "<small>n = 0</small></td>"
        )
    return (
        f'<td class="bs-tint{kind}" style="{heat(found.value)}" title="{escape(told)}">'
        f"<b>{percent(found.value)}</b><small>{ends}</small><small>n = {found.n:,}</small></td>"
    )
