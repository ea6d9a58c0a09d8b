"""What an atlas says of one latent."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import CardView, ExampleGroupView, NeighbourView, ScoredTokenView
from brainscan.views.examples import example_list
from brainscan.views.html import Html, escape, join, number, percent, token_text

GRADES = {
    "A": "tested: predicts new text well",
    "B": "tested: predicts new text",
    "C": "tested: predicts new text poorly",
    "U": "not tested",
}


def feature_card(card: CardView) -> Html:
    """Shows a latent: its figures, examples, the tokens it promotes, and its neighbours."""
    grade = escape(card.grade)
    meaning = escape(GRADES.get(card.grade, ""))
    return Html(
        f'<article class="bs-card" aria-label="{escape(card.id)}"><header>'
        f'<h3><bdi class="bs-label">{escape(card.label)}</bdi></h3>'
        f'<code class="bs-address">{escape(card.id)}</code>'
        f'<span class="bs-grade" data-grade="{grade}">grade {grade}<i>{meaning}</i></span></header>'
        f"{_figures(card)}"
        f'<div class="bs-body"><div>{join(_group(group) for group in card.groups)}</div>'
        f"<div>{_outputs('Promotes', card.promoted, 'bs-up')}"
        f"{_outputs('Suppresses', card.suppressed, 'bs-down')}{_neighbours(card.neighbours)}</div>"
        "</div></article>"
    )


def _figures(card: CardView) -> str:
    figures = [("fires on", f"{percent(card.firing_rate)} of tokens")]
    figures += [(f"{fraction * 100:.0f}%", number(value)) for fraction, value in card.quantiles]
    figures += [("maximum", number(card.maximum))]
    items = join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in figures)
    return f'<dl class="bs-figures">{items}</dl>'


def _group(group: ExampleGroupView) -> str:
    return f"<h4>{escape(group.name)}</h4>{example_list(group.examples)}"


def _outputs(title: str, tokens: Sequence[ScoredTokenView], kind: str) -> str:
    if not tokens:
        return ""
    largest = max(abs(token.value) for token in tokens) or 1.0
    rows = join(
        f'<li style="--part:{abs(token.value) / largest:.2f}"><bdi><code>'
        f"{token_text(token.text, breaks=False)}</code></bdi>"
        f'<span class="bs-value">{"+" if token.value > 0 else ""}{number(token.value)}</span></li>'
        for token in tokens
    )
    return f'<h4>{title}</h4><ul class="bs-outputs {kind}">{rows}</ul>'


def _neighbours(neighbours: Sequence[NeighbourView]) -> str:
    if not neighbours:
        return ""
    rows = join(
        f'<li><bdi class="bs-label">{escape(n.label)}</bdi><code class="bs-address">{escape(n.id)}'
        f'</code><span class="bs-value">cos {number(n.cosine)}</span></li>'
        for n in neighbours
    )
    return f'<h4>Nearest latents</h4><ul class="bs-near">{rows}</ul>'
