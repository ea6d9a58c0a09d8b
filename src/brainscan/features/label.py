"""A few words on when a latent fires, made by counting.

1. The words, and the single tokens, that hold a fair share of a latent's activation, and more of
   it than of the text: common words are not named for being common. The first three by
   share x ln(share / rate in the text), their part of the divergence of the two.
2. Words read better; tokens say more where a latent fires on an ending or a sign. Words are taken
   unless the tokens hold clearly more: `fires on “God”, “Lord”`.
3. Where the activation is spread over many, what the latent promotes: `promotes “ing”, “ed”`.

These are counts and no tested descriptions: their grade is U.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

NEVER = "never fired"
GRADE = "U"
"""The grade of a label: untested."""

_SHOWN = 3
_FAIR = 0.03
_MORE = 2.0
_CLEARLY = 1.35
_LONGEST = 24
_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


class Part(NamedTuple):
    """A word or token, its share of a latent's activation, and its share of the text."""

    text: str
    share: float
    rate: float

    @property
    def weight(self) -> float:
        """How much it sets the latent's activation apart from the text."""
        return self.share * math.log(self.share / self.rate)


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
    """The parts that tell most, spellings of one word taken together."""
    merged: dict[str, Part] = {}
    for part in parts:
        key = part.text.strip().casefold() or part.text
        known = merged.get(key, Part(part.text, 0.0, 0.0))
        merged[key] = Part(known.text, known.share + part.share, known.rate + part.rate)
    fair = [part for part in merged.values() if part.share >= max(_FAIR, _MORE * part.rate)]
    return sorted(fair, key=lambda part: -part.weight)[:_SHOWN]


def _distinct(tokens: Sequence[str]) -> list[str]:
    spellings = {token.strip().casefold() or token: token for token in reversed(tokens)}
    return list(reversed(spellings.values()))[:_SHOWN]


def _total(parts: Sequence[Part]) -> float:
    return sum((part.share for part in parts), 0.0)


def _shown(text: str) -> str:
    text = text.strip(" ") or "␣"
    text = "".join(_VISIBLE.get(character, character) for character in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
