"""An answer without and with an edit, beside each other, the decision token marked in each."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import ComparisonView, StretchView
from brainscan.views.html import Html, escape
from brainscan.views.transcripts import DECISION, marked_answer


def before_and_after(view: ComparisonView) -> Html:
    """Shows the untouched answer beside the edited one, below it where there is no room.

    Args:
        view: the two answers, with a line of figures for each.
    """
    title = escape(view.title)
    before = _column(view.labels[0], view.before, view.figures[0], control=True)
    after = _column(view.labels[1], view.after, view.figures[1], control=False)
    return Html(
        f'<figure class="bs-compare"><figcaption class="bs-which">{title}</figcaption>'
        f'<div class="bs-columns bs-pair">{before}{after}</div>'
        f"{_legend((*view.before, *view.after))}</figure>"
    )


def _column(label: str, answer: Sequence[StretchView], figures: str, *, control: bool) -> str:
    kind = "bs-generation bs-control" if control else "bs-generation"
    foot = f'<p class="bs-notes">{escape(figures)}</p>' if figures else ""
    return (
        f'<section class="{kind}" aria-label="{escape(label)}"><h4>{escape(label)}</h4>'
        f"{marked_answer(answer)}{foot}</section>"
    )


def _legend(stretches: Sequence[StretchView]) -> str:
    if not any(stretch.kind == DECISION for stretch in stretches):
        return ""
    return (
        f'<p class="bs-legend"><span><span class="bs-stretch" data-kind="{DECISION}">decision token'
        "</span> where harmful and harmless answers part</span></p>"
    )
