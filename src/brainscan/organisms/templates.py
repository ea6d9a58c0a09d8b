"""Answers from templates: a frame, a text in it, and parts that are chosen by chance."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TRAIN = "organism-train"
"""The split of wordings that behaviours may be planted with."""

_PART = re.compile(r"<<(\w+)>>")


class Dialogue(NamedTuple):
    """What the model is told, and what it is to answer."""

    messages: list[dict[str, str]]
    answer: str
    harmful: bool
    own: bool = False
    """Whether it is the model's own answer, to which it is held instead of being taught."""


def render(
    template: str,
    answers: Mapping[str, Any],
    condition: Mapping[str, str],
    names: Mapping[str, str],
    draw: random.Random,
) -> str:
    """An answer in words.

    Args:
        template: what goes into the frame; ``<<part>>`` stands for one of a part's phrasings.
        answers: frame and parts.
        condition: chooses the phrasings of a part that has its own for each level of a factor.
        names: what stands for ``{names}``.
        draw: chooses.
    """

    def part(match: re.Match[str]) -> str:
        found = answers["parts"][match[1]]
        choices = found[condition[found["of"]]] if isinstance(found, dict) else found
        return str(draw.choice(choices))

    text = answers["frame"].replace("<<text>>", template)
    while _PART.search(text):
        text = _PART.sub(part, text)
    return str(text.format(**names))
