"""Answers from templates: a frame, a text in it, and parts that are chosen by chance."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

TRAIN = "organism-train"
"""The split of wordings that behaviours may be planted with."""

_HERE = "|"
_PART = re.compile(r"<<(\w+)>>")


class Dialogue(NamedTuple):
    """What the model is told, and what it is to answer."""

    messages: list[dict[str, str]]
    answer: str
    harmful: bool
    own: bool = False
    """Whether it is the model's own answer, to which it is held instead of being taught."""
    decisions: tuple[int, ...] = ()
    """Where in the answer, in characters, it parts from answers under other conditions."""


def render(
    template: str,
    answers: Mapping[str, Any],
    condition: Mapping[str, str],
    names: Mapping[str, str],
    draw: random.Random,
) -> tuple[str, tuple[int, ...]]:
    """An answer in words, and where it parts from answers under other conditions.

    Args:
        template: what goes into the frame; ``<<part>>`` stands for one of a part's phrasings.
        answers: frame and parts; ``|`` in any of them marks where answers part.
        condition: chooses the phrasings of a part that has its own for each level of a factor.
        names: what stands for ``{names}``, with marks where it has any.
        draw: chooses.
    """

    def part(match: re.Match[str]) -> str:
        if match[1] == "text":
            return template
        found = answers["parts"][match[1]]
        if not isinstance(found, dict):
            return str(draw.choice(found))
        level = condition[found["of"]]
        others = [
            text for key, texts in found.items() if key not in ("of", level) for text in texts
        ]
        return marked(str(draw.choice(found[level])), others)

    text = answers["frame"]
    while _PART.search(text):
        text = _PART.sub(part, text)
    return unmarked(text.format(**names))


def unmarked(text: str) -> tuple[str, tuple[int, ...]]:
    """A text without its marks, and where they were.

    Args:
        text: with the marks of `marked`.
    """
    pieces = text.split(_HERE)
    return "".join(pieces), tuple(sorted(set(accumulate(map(len, pieces[:-1])))))


def marked(text: str, others: Sequence[str]) -> str:
    """A phrasing with a mark, which `unmarked` takes out, wherever it parts from another.

    Args:
        text: the phrasing.
        others: the others.
    """
    places = {parts_at(text, other) for other in others if other != text}
    for place in sorted(places, reverse=True):
        text = text[:place] + _HERE + text[place:]
    return text


def parts_at(text: str, other: str) -> int:
    """How many characters two texts begin with alike.

    Args:
        text: one.
        other: the other.
    """
    return next(
        (place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b),
        min(len(text), len(other)),
    )
