"""A page that is one file: nothing in it is fetched from elsewhere.

1. The views' markup goes into sections with headings and a list of contents.
2. Our style sheet and scripts are put in whole; plotly.js too, if a section has a plot.
3. A content security policy forbids the browser to load anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import Section
from brainscan.views.html import Html, asset, escape, join, slug
from brainscan.views.plots import PLOT, plotly_script

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)


def page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    facts: Sequence[tuple[str, str]] = (),
    footer: str = "",
) -> str:
    """Puts sections together into a self-contained HTML file.

    Args:
        title: the page's heading.
        sections: its parts, in order.
        subtitle: a sentence below the heading.
        facts: names and values that say what the page is of (model, dictionary, seed, ...).
        footer: a last line.
    """
    names = _names(sections)
    body = join(_section(s, n, i) for i, (s, n) in enumerate(zip(sections, names, strict=True), 1))
    has_plot = any(PLOT in section.body for section in sections)
    plots = f"<script>{plotly_script()}</script><script>{asset('plots.js')}</script>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{asset('report.css')}</style></head>"
        f'<body class="bs bs-page"><a class="bs-skip" href="#content">To the content</a>'
        f"{_header(title, subtitle, facts)}{_contents(sections, names)}"
        f'<main id="content">{body}</main>'
        f"<footer><p>{escape(footer)}</p><p>Made by brainscan. This page is one file and loads "
        f"nothing from elsewhere.</p></footer>{_scripts()}"
        f"{plots if has_plot else ''}</body></html>\n"
    )


def fragment(body: Html) -> Html:
    """A view with its style and script, to show itself in a notebook's cell."""
    return Html(
        f'<div class="bs bs-fragment"><style>{asset("report.css")}</style>{body}{_scripts()}</div>'
    )


def _scripts() -> str:
    return f"<script>{asset('strip.js')}{asset('location.js')}</script>"


def _names(sections: Sequence[Section]) -> list[str]:
    names: list[str] = []
    for section in sections:
        name = slug(section.title)
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _header(title: str, subtitle: str, facts: Sequence[tuple[str, str]]) -> str:
    items = join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return (
        f'<header class="bs-top"><p class="bs-brand">brainscan</p><h1>{escape(title)}</h1>'
        + (f'<p class="bs-subtitle">{escape(subtitle)}</p>' if subtitle else "")
        + (f'<dl class="bs-facts">{items}</dl>' if items else "")
        + "</header>"
    )


def _contents(sections: Sequence[Section], names: Sequence[str]) -> str:
    if len(sections) < 2:
        return ""
    items = join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for section, name in zip(sections, names, strict=True)
    )
    return f'<nav aria-label="Contents"><ol>{items}</ol></nav>'


def _section(section: Section, name: str, order: int) -> str:
    lead = f'<p class="bs-lead">{escape(section.lead)}</p>' if section.lead else ""
    title = (
        f'<h2 id="{name}-title"><span class="bs-order" aria-hidden="true">{order}</span>'
        f"{escape(section.title)}</h2>"
        if section.title
        else ""
    )
    named = f' aria-labelledby="{name}-title"' if title else ""
    return f'<section id="{name}" class="bs-section"{named}>{title}{lead}{section.body}</section>'
