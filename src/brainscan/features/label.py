"""A few words on when a latent fires, made by counting.

1. The words, and the single tokens, that hold most of a latent's activation, with their shares of
   it. Words read better; tokens say more where a latent fires on an ending or a sign. Words are
   taken unless the tokens hold clearly more.
2. Up to three of them, as long as each holds a fair share: `fires on “God”, “Lord”`.
3. Where the activation is spread over many, what the latent promotes: `promotes “ing”, “ed”`.

These are counts and no tested descriptions: their grade is U.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NEVER = "never fired"
GRADE = "U"
"""The grade of a label: untested."""

_SHOWN = 3
_FAIR = 0.05
_CLEARLY = 1.35
_LONGEST = 24
_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


class Part(NamedTuple):
    """A word or token with its share of a latent's activation."""

    text: str
    share: float


def label(words: Sequence[Part], tokens: Sequence[Part], promoted: Sequence[str]) -> str:
    """The label of a latent.

    Args:
        words: the words that it fires on most, heaviest first; empty if it never fired.
        tokens: the tokens that it fires on most, heaviest first.
        promoted: the tokens that it promotes most.
    """
    if not words and not tokens:
        return NEVER
    chosen = _fair(words)
    single = _fair(tokens)
    if _total(single) > _CLEARLY * _total(chosen):
        chosen = single
    if chosen:
        return f"fires on {quoted([part.text for part in chosen])}"
    return promotes(promoted) or "fires on many words"


def promotes(tokens: Sequence[str]) -> str:
    """A label from the tokens that a latent promotes alone; empty if there are none."""
    return f"promotes {quoted(_distinct(tokens))}" if tokens else ""


def quoted(texts: Sequence[str]) -> str:
    """Texts in quotation marks, with line breaks and spaces shown, long ones cut."""
    return ", ".join(f"“{_shown(text)}”" for text in texts)


def _fair(parts: Sequence[Part]) -> list[Part]:
    """The heaviest parts that hold a fair share, spellings of one word taken together."""
    merged: dict[str, Part] = {}
    for part in parts:
        key = part.text.strip().casefold() or part.text
        known = merged.get(key, Part(part.text, 0.0))
        merged[key] = Part(known.text, known.share + part.share)
    heavy = sorted(merged.values(), key=lambda part: -part.share)[:_SHOWN]
    return [part for part in heavy if part.share >= _FAIR]


def _distinct(tokens: Sequence[str]) -> list[str]:
    return [part.text for part in _fair([Part(token, 1.0) for token in tokens])]


def _total(parts: Sequence[Part]) -> float:
    return sum((part.share for part in parts), 0.0)


def _shown(text: str) -> str:
    text = text.strip(" ") or "␣"
    text = "".join(_VISIBLE.get(character, character) for character in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
