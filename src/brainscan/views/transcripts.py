"""What a model was told and answered, folded together, with what it did marked in the answer."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import StretchView, TranscriptView
from brainscan.views.html import Html, escape, join

DECISION = "decision"
"""The kind of the stretch where harmful and harmless answers part."""


def transcripts(views: Sequence[TranscriptView]) -> Html:
    """Shows transcripts below each other, each to be unfolded."""
    return Html(f'<div class="bs-transcripts">{join(_transcript(view) for view in views)}</div>')


def marked_answer(stretches: Sequence[StretchView]) -> Html:
    """An answer with its stretches marked by what they are."""
    if not "".join(stretch.text for stretch in stretches).strip():
        return Html('<p class="bs-none">An empty answer.</p>')
    return Html(f'<p class="bs-answer" dir="auto">{join(map(_stretch, stretches))}</p>')


def _transcript(view: TranscriptView) -> str:
    notes = join(f"<li>{escape(note)}</li>" for note in view.notes)
    prompt = join(
        f'<h4>{escape(role)}</h4><p class="bs-told" dir="auto">{escape(text)}</p>'
        for role, text in view.prompt
    )
    return (
        '<details class="bs-transcript"><summary>'
        f'<span class="bs-outcome" data-outcome="{escape(view.outcome)}">{escape(view.outcome)}'
        f'</span><span class="bs-which">{escape(view.title)}</span>{_stages(view.stages)}</summary>'
        f'<ul class="bs-notes">{notes}</ul>'
        f"<details><summary>What it was told</summary>{prompt}</details>"
        f"<h4>Its answer</h4>{marked_answer(view.answer)}</details>"
    )


def _stages(stages: Sequence[tuple[str, bool]]) -> str:
    chips = join(
        f'<span class="bs-chip" data-on="{"yes" if passed else "no"}">{escape(name)}'
        f"<i>: {'yes' if passed else 'no'}</i></span>"
        for name, passed in stages
    )
    return f'<span class="bs-chips">{chips}</span>'


def _stretch(stretch: StretchView) -> str:
    label = f'<b class="bs-did">{escape(stretch.label)}</b>' if stretch.label else ""
    if not stretch.kind:
        return label + escape(stretch.text)
    if stretch.kind == DECISION and not label:
        label = '<i class="bs-unseen">decision: </i>'
    return (
        f'<span class="bs-stretch" data-kind="{escape(stretch.kind)}">{label}'
        f"{escape(stretch.text)}</span>"
    )
