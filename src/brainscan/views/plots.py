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
    return drawn(figure, title, folded_figures(table(headings, rows)))


def drawn(figure: Any, title: str, below: Html) -> Html:
    """A plot under its title, for plotly to draw.

    Args:
        figure: plotly's figure.
        title: what the plot shows, in words.
        below: its figures, for those who read rather than look.
    """
    # Not by orjson, which plotly takes where it is installed: it refuses half a surrogate pair.
    data = json.loads(str(figure.to_json(engine="json")))
    return Html(
        f'{PLOT}><figcaption>{escape(title)}</figcaption><div class="bs-canvas" role="img" '
        f'aria-label="{escape(title)}; the figures follow in a table"></div>{script_data(data)}'
        f"{below}</figure>"
    )


def folded_figures(body: Html) -> Html:
    """A plot's figures, to be unfolded below it."""
    return Html(f"<details><summary>The figures</summary>{body}</details>")


def plot_text(text: str) -> str:
    """Text inside a plot: plotly reads tags in it, and knows quotation marks by number only."""
    return escape(text).replace("&quot;", "&#34;")


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """An axis as all plots have it, with settings of its own."""
    named = {"text": plot_text(title), "standoff": 8}
    return {"automargin": True, "zeroline": False, "ticks": "", "title": named} | settings


def lay_out(figure: Any, x: dict[str, Any], y: dict[str, Any], **settings: Any) -> None:
    """Gives a figure the look that all plots have.

    Args:
        figure: plotly's figure, changed in place.
        x: the horizontal axis.
        y: the vertical one.
        settings: what else to set in its layout.
    """
    figure.update_layout(
        template="none",
        height=360,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "family": "inherit"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        xaxis=x,
        yaxis=y,
    )
    figure.update_layout(**settings)


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
    strength = axis("strength, in multiples of the maximum", showgrid=False)
    lay_out(figure, strength, axis(measure), hovermode="x unified")
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
        name=plot_text(curve.name),
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
