"""Plots, drawn by plotly in the page; the figures stand below each in a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from brainscan.views.data import CurveView
from brainscan.views.html import NONE, TIMES, Html, escape, number, script_data
from brainscan.views.rates import estimate_text, has_interval, table

COLOURS = ("#2b8cc4", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""After Okabe and Ito: told apart with any colour vision, and on light and dark ground."""
GREY = "#8a8a8a"
PLOT = '<figure class="bs-plot"'


def strength_response_plot(
    curves: Sequence[CurveView], *, title: str, measure: str, reference: float | None = None
) -> Html:
    """Draws a measure against the strength of an edit, with intervals.

    Args:
        curves: one per edit; controls are drawn in grey and dashed.
        title: what the plot shows, in words.
        measure: what is measured, for the vertical axis.
        reference: the measure without any edit, drawn as a thin line.
    """
    figure = _figure(curves, measure, reference)
    data = json.loads(str(figure.to_json()))
    headings = ["strength", *(curve.name for curve in curves)]
    strengths = sorted({s for curve in curves for s in curve.strengths})
    by_strength = [dict(zip(curve.strengths, curve.estimates, strict=True)) for curve in curves]
    rows = [
        [
            f"{number(s)}{TIMES}",
            *(estimate_text(found[s]) if s in found else NONE for found in by_strength),
        ]
        for s in strengths
    ]
    return Html(
        f'{PLOT}><figcaption>{escape(title)}</figcaption><div class="bs-canvas" role="img" '
        f'aria-label="{escape(title)}; the figures follow in a table"></div>{script_data(data)}'
        f"<details><summary>The figures</summary>{table(headings, rows)}</details></figure>"
    )


def plotly_script() -> str:
    """The source of plotly.js, to be put in a page once."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _figure(curves: Sequence[CurveView], measure: str, reference: float | None) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    hues = iter(COLOURS * (len(curves) // len(COLOURS) + 1))
    for curve in curves:
        colour = GREY if curve.control else next(hues)
        for trace in _traces(curve, colour):
            figure.add_trace(trace)
    if reference is not None:
        figure.add_hline(y=reference, line={"width": 1, "dash": "dot", "color": GREY})
    axis = {"automargin": True, "zeroline": False, "ticks": "", "title": {"standoff": 8}}
    figure.update_layout(
        template="none",
        height=360,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "family": "inherit"},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis=axis
        | {"title": {"text": "strength, in multiples of the maximum"}, "showgrid": False},
        yaxis=axis | {"title": {"text": measure}},
    )
    return figure


def _traces(curve: CurveView, colour: str) -> list[Any]:
    import plotly.graph_objects as go

    x = list(curve.strengths)
    value = [e.value for e in curve.estimates]
    low = [e.low if has_interval(e) else e.value for e in curve.estimates]
    high = [e.high if has_interval(e) else e.value for e in curve.estimates]
    band = go.Scatter(
        x=x + x[::-1],
        y=high + low[::-1],
        mode="lines",
        fill="toself",
        fillcolor=_clear(colour),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=curve.name,
    )
    line = go.Scatter(
        x=x,
        y=value,
        name=escape(curve.name),
        mode="lines+markers",
        legendgroup=curve.name,
        line={"color": colour, "width": 2.5, "dash": "dash" if curve.control else "solid"},
        marker={"size": 7, "symbol": "diamond" if curve.control else "circle"},
        hovertemplate="%{y:.3g}  [%{customdata[0]:.3g}, %{customdata[1]:.3g}]",
        customdata=list(map(list, zip(low, high, strict=True))),
    )
    return [band, line]


def _clear(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
