"""Where an effect is carried: a map of hookpoints by positions, from patching one at a time.

1. The colour diverges at 0: one hue for what brings the effect back, another for what takes it
   further away.
2. It is full at a share of 1. Where all shares are small, it is full at the largest of them,
   rounded up; the legend says which. A share beyond keeps the full colour.
3. Figures stand in the cells while there is room; in a wide map they are read by pointing at a
   cell or going to it with the arrow keys. All stand in the table below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from brainscan.errors import UsageError
from brainscan.views.data import LocationView
from brainscan.views.html import MINUS, NONE, Html, escape, join, percent, token_label, token_text
from brainscan.views.rates import table

ROOMY = 14
"""Columns at most for figures to stand in the cells."""

_LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_TOLD = 8


def location_map(view: LocationView) -> Html:
    """Shows which share of an effect each hookpoint and position recovers.

    Args:
        view: the shares, by row and column.

    Raises:
        UsageError: the shares or the marks do not fit the rows and columns.
    """
    _check(view)
    if not view.rows or not view.columns:
        return Html('<p class="bs-none">No place was patched.</p>')
    title = escape(view.title)
    kind = "bs-location" if len(view.columns) <= ROOMY else "bs-location bs-dense"
    note = f'<p class="bs-hint">{escape(view.note)}</p>' if view.note else ""
    return Html(
        f'<figure class="{kind}"><figcaption>{title}</figcaption>'
        '<p class="bs-readout" aria-hidden="true">Point at a cell to read it.</p>'
        f'<div class="bs-scroll"><table role="grid" aria-label="{title}; arrow keys go from cell '
        f'to cell">{_head(view)}<tbody>{_rows(view)}</tbody></table></div>'
        f"{_legend(view)}{_marked(view)}{note}"
        f'<details class="bs-fold"><summary>All figures</summary>{_figures(view)}</details>'
        "</figure>"
    )


def _check(view: LocationView) -> None:
    rows, columns = len(view.rows), len(view.columns)
    lengths = [len(values) for values in view.values]
    if lengths != [columns] * rows:
        raise UsageError(
            f"{rows} rows of {columns} shares", f"rows of {lengths}", "use None for what is missing"
        )
    for row, column in view.marked:
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(
                f"a marked cell within {rows} rows and {columns} columns",
                f"row {row}, column {column}",
                "count from 0",
            )


def _head(view: LocationView) -> str:
    columns = join(
        f'<th scope="col" title="{escape(token_label(name))}"><bdi>{_shown(name)}</bdi></th>'
        for name in view.columns
    )
    return f"<thead><tr><td></td>{columns}</tr></thead>"


def _shown(name: str) -> Html:
    return token_text(name if name.strip(" ") else token_label(name), breaks=False)


def _rows(view: LocationView) -> Html:
    limit, marked = _limit(view), set(view.marked)
    lines = []
    for i, (name, values) in enumerate(zip(view.rows, view.values, strict=True)):
        cells = join(
            _cell(view, (i, j), value, limit, (i, j) in marked) for j, value in enumerate(values)
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return join(lines)


def _cell(
    view: LocationView, place: tuple[int, int], value: float | None, limit: float, chosen: bool
) -> str:
    kinds = [kind for kind, on in (("bs-ring", chosen), ("bs-empty", not _known(value))) if on]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    told = escape(f"{_place(view, place)}: {_words(value, limit, chosen=chosen)}")
    return (
        f'<td{kind}{_colour(value, limit)} tabindex="{-1 if any(place) else 0}" title="{told}">'
        f"<span>{_figure(value, limit)}</span></td>"
    )


def _place(view: LocationView, place: tuple[int, int]) -> str:
    """A cell in words, with the column's number where others have the same name."""
    name = view.columns[place[1]]
    number = f" (column {place[1] + 1})" if view.columns.count(name) > 1 else ""
    return f"{view.rows[place[0]]} at \u201c{token_label(name)}\u201d{number}"


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _colour(value: float | None, limit: float) -> str:
    if value is None or math.isnan(value):
        return ""
    part = min(abs(value) / limit, 1.0)
    return f' data-side="{"down" if value < 0 else "up"}" style="--part:{part:.2f}"'


def _figure(value: float | None, limit: float) -> str:
    """A share to whole percent, or finer where all shares are small."""
    if value is None or not math.isfinite(value):
        return NONE if value is None else percent(value)
    digits = max(-math.floor(math.log10(limit)) - 1, 0) if limit < 1 else 0
    return f"{round(value * 100, digits) + 0.0:.{digits}f}%".replace("-", MINUS)


def _words(value: float | None, limit: float, *, chosen: bool) -> str:
    words = _figure(value, limit) if _known(value) else "not measured"
    return f"{words} (chosen)" if chosen else words


def _sizes(view: LocationView) -> Iterable[float]:
    return (abs(v) for values in view.values for v in values if v is not None and math.isfinite(v))


def _limit(view: LocationView) -> float:
    """The share at which the colour is full."""
    largest = max(_sizes(view), default=1.0) or 1.0
    return next((limit for limit in _LIMITS if largest <= limit), 1.0)


def _legend(view: LocationView) -> str:
    end = percent(_limit(view))
    parts = [
        f'<span class="bs-scale bs-diverging"><b>{percent(-_limit(view))}</b><i></i><b>0</b><i></i>'
        f"<b>{end}</b></span><span>of the effect recovered; beyond the ends the colour stays</span>"
    ]
    if view.marked:
        parts.append('<span><b class="bs-swatch bs-ring"></b> chosen</span>')
    if not all(_known(value) for values in view.values for value in values):
        parts.append('<span><b class="bs-swatch bs-empty"></b> not measured</span>')
    return f'<p class="bs-legend">{join(parts)}</p>'


def _marked(view: LocationView) -> str:
    if not view.marked:
        return ""
    limit = _limit(view)
    places = [
        f"{_place(view, (i, j))}, {_words(view.values[i][j], limit, chosen=False)}"
        for i, j in view.marked[:_TOLD]
    ]
    left = len(view.marked) - len(places)
    more = f"; and {left} more, in the table" if left else ""
    return f'<p class="bs-hint">Chosen: {escape("; ".join(places))}{more}.</p>'


def _figures(view: LocationView) -> Html:
    limit, marked = _limit(view), set(view.marked)
    rows = [
        [name, *(_words(value, limit, chosen=(i, j) in marked) for j, value in enumerate(values))]
        for i, (name, values) in enumerate(zip(view.rows, view.values, strict=True))
    ]
    headings = ["place", *(token_label(name) for name in view.columns)]
    return table(headings, rows, wrapped=False)
