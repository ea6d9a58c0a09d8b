"""A text, token by token, with the latents that fire on each.

The strip works by mouse, touch and keyboard: hovering, focusing or tapping a token shows its
latents with their examples beside the text, arrow keys go from token to token, and a row of
buttons colours the text by one latent.
"""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import LatentView, TokenView
from brainscan.views.examples import example_list, heat, name, quoted
from brainscan.views.html import Html, escape, join, parted, script_data, token_text

STRONGEST = "strongest"
"""Colours each token by whichever latent is strongest there."""


def token_strip(
    tokens: Sequence[TokenView], latents: Sequence[LatentView], colour: str = ""
) -> Html:
    """Shows a scanned text.

    Args:
        tokens: the text's tokens, each with its most active latents.
        latents: what to tell of the latents named in ``tokens``; those with shares get a button
            that colours the text by them.
        colour: which of them colours it to begin with, or `STRONGEST`; the first if it is none.
    """
    if not tokens:
        return Html('<p class="bs-none">There are no tokens to show.</p>')
    index = {latent.id: i for i, latent in enumerate(latents)}
    tops = [max((a.share for a in token.latents), default=0.0) for token in tokens]
    by = _colouring(latents, colour)
    shares = tops if by is None else latents[by].shares
    first = list(shares).index(max(shares))
    boxes = join(
        _token(token, i, share, i == first)
        for i, (token, share) in enumerate(zip(tokens, shares, strict=True))
    )
    store = join(_stored(latent) for latent in latents)
    data = {
        "tokens": [
            [
                [index[a.id], round(a.activation, 3), round(a.share, 3)]
                for a in token.latents
                if a.id in index
            ]
            for token in tokens
        ],
        "shares": {
            index[latent.id]: [round(share, 3) for share in latent.shares]
            for latent in latents
            if latent.shares
        },
    }
    return Html(
        '<div class="bs-strip">'
        f"{_buttons(latents, by)}"
        '<div class="bs-split"><div class="bs-reading">'
        '<div class="bs-tokens" role="listbox" aria-orientation="horizontal" dir="auto" '
        f'aria-label="The text, token by token; arrow keys go from one to the next">{boxes}</div>'
        f"{_legend(tokens)}</div>"
        '<aside class="bs-panel" aria-live="polite" aria-label="Latents of the chosen token">'
        '<p class="bs-none">Point at a token to see which latents fire on it.</p></aside></div>'
        f'<div class="bs-store" hidden>{store}</div>{script_data(data)}</div>'
    )


def _token(token: TokenView, order: int, share: float, chosen: bool) -> str:
    kind = "bs-token bs-sink" if token.sink else "bs-token"
    strongest = f", {token.latents[0].id}" if token.latents else ""
    note = "attention sink" if token.sink else f"position {token.position}{strongest}"
    space, word = parted(token.text)
    return (
        f'{space}<span class="{kind}" role="option" '
        f'aria-selected="{"true" if chosen else "false"}" '
        f'tabindex="{0 if chosen else -1}" data-i="{order}" data-position="{token.position}" '
        f'aria-description="{escape(note)}" style="{heat(share)}">'
        f"{token_text(word, breaks=True)}</span>"
    )


def _stored(latent: LatentView) -> str:
    promoted = quoted(latent.promoted)
    says = f'<p class="bs-says">promotes {promoted}</p>' if latent.promoted else ""
    return (
        f'<details class="bs-latent"><summary>{name(latent.id, latent.label)}'
        '<span class="bs-meter"><i></i></span><span class="bs-value"></span></summary>'
        f"{says}{example_list(latent.examples)}</details>"
    )


def _colouring(latents: Sequence[LatentView], colour: str) -> int | None:
    """Which latent colours the text to begin with; None for the strongest of each token."""
    able = [i for i, latent in enumerate(latents) if latent.shares]
    if colour == STRONGEST or not able:
        return None
    return next((i for i in able if latents[i].id == colour), able[0])


def _buttons(latents: Sequence[LatentView], by: int | None) -> str:
    choices = [(i, one.id, one.label or one.id) for i, one in enumerate(latents) if one.shares]
    if not choices:
        return ""
    buttons = join(
        f'<button type="button" class="bs-choice" data-i="{"" if i is None else i}" '
        f'title="{escape(title)}" aria-pressed="{"true" if i == by else "false"}">'
        f"<bdi>{escape(label)}</bdi></button>"
        for i, title, label in [*choices, (None, STRONGEST, "the strongest latent of each token")]
    )
    return (
        '<div class="bs-choices" role="group" aria-label="Colour the text by">'
        f'<span class="bs-hint">Colour by</span>{buttons}</div>'
    )


def _legend(tokens: Sequence[TokenView]) -> str:
    sinks = sum(token.sink for token in tokens)
    note = (
        '<span><span class="bs-token bs-sink">sink</span> an attention sink: its activation is '
        "not text and is left out</span>"
        if sinks
        else ""
    )
    return (
        '<p class="bs-legend"><span>activation, of the latent&#8217;s maximum '
        '<span class="bs-scale"><b>0</b><i></i><b>1</b></span></span>'
        f"{note}</p>"
    )
