"""A stretch of text with a latent's activation as the tokens' colour."""

from __future__ import annotations

from collections.abc import Sequence

from brainscan.views.data import ExampleView, GenerationView
from brainscan.views.html import Html, escape, join, number, parted, token_text


def heat(share: float) -> str:
    """The style that colours an element by a share from 0 to 1."""
    return f"--heat:{min(max(share, 0.0), 1.0):.2f}"


def tinted(
    tokens: Sequence[str], shares: Sequence[float], *, breaks: bool, start: int = 0, peak: int = -1
) -> Html:
    """Tokens in a row, each coloured by its share; those with none are left plain.

    Args:
        tokens: the tokens' texts.
        shares: their shares; missing ones count as 0.
        breaks: whether line breaks in the text break the line.
        start: the index of the first token, to find the peak.
        peak: which token to mark as the strongest.
    """
    parts = []
    for i, token in enumerate(tokens):
        share = shares[i] if i < len(shares) else 0.0
        space, word = parted(token)
        text = token_text(word, breaks=breaks)
        if start + i == peak:
            text = Html(f'<mark class="bs-tint bs-peak" style="{heat(share)}">{text}</mark>')
        elif share > 0.02:
            text = Html(f'<span class="bs-tint" style="{heat(share)}">{text}</span>')
        parts.append(space + text)
    return join(parts)


def example_line(example: ExampleView) -> Html:
    """One example on a line, its strongest token in the middle column."""
    peak, tokens, shares = example.peak, example.tokens, example.shares
    before = tinted(tokens[:peak], shares[:peak], breaks=False)
    middle = tinted(
        tokens[peak : peak + 1], shares[peak : peak + 1], breaks=False, start=peak, peak=peak
    )
    after = tinted(tokens[peak + 1 :], shares[peak + 1 :], breaks=False)
    return Html(
        f'<li class="bs-example" dir="auto"><span class="bs-before"><span>{before}</span></span>'
        f'<span class="bs-at">{middle}</span><span class="bs-after">{after}</span>'
        f'<span class="bs-value">{number(example.activation)}</span></li>'
    )


def example_list(examples: Sequence[ExampleView]) -> Html:
    """Examples one below the other, aligned at their strongest tokens."""
    if not examples:
        return Html('<p class="bs-none">There are no examples of it.</p>')
    lines = join(example_line(example) for example in examples)
    return Html(f'<ul class="bs-examples">{lines}</ul>')


def answer(view: GenerationView) -> Html:
    """The text of a generation."""
    if not "".join(view.tokens).strip():
        return Html('<p class="bs-none">An empty answer.</p>')
    text = tinted(view.tokens, view.shares, breaks=True)
    return Html(f'<p class="bs-answer" dir="auto">{text}</p>')


def quoted(tokens: Sequence[str]) -> Html:
    """Tokens as a list of small boxes."""
    boxes = (f"<bdi><code>{token_text(token, breaks=False)}</code></bdi>" for token in tokens)
    return Html(f'<span class="bs-boxes">{join(boxes)}</span>')


def name(identity: str, label: str) -> Html:
    """A latent's label and address."""
    return Html(
        f'<bdi class="bs-label">{escape(label)}</bdi> '
        f'<code class="bs-address">{escape(identity)}</code>'
    )
