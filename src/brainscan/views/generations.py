"""Answers beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import GenerationView
from brainscan.views.examples import answer
from brainscan.views.html import Html, escape, join


def side_by_side(prompt: str, generations: Sequence[GenerationView]) -> Html:
    """Shows the answers that a model gave to one prompt under several settings."""
    return Html(
        '<figure class="bs-compare"><figcaption><span class="bs-hint">Prompt</span>'
        f'<p class="bs-prompt" dir="auto">{escape(prompt)}</p></figcaption>'
        f'<div class="bs-columns">{join(_column(view) for view in generations)}</div></figure>'
    )


def _column(view: GenerationView) -> str:
    kind = "bs-generation bs-control" if view.control else "bs-generation"
    tag = '<span class="bs-tag">control</span>' if view.control else ""
    notes = join(f"<li>{escape(note)}</li>" for note in view.notes)
    foot = f'<ul class="bs-notes">{notes}</ul>' if notes else ""
    return (
        f'<section class="{kind}"><h4>{escape(view.title)}{tag}</h4>{answer(view)}{foot}</section>'
    )
