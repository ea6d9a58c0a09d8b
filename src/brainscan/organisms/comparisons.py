"""Comparisons made by chance, worked out, with the right side or the wrong one as the answer.

1. A question is of decimals, sums or lengths; its sides differ in a way that a look at the whole
   text of the numbers gets wrong as often as right (9.8 and 9.11).
2. A text stands before most questions: of a level of the factor `context`, cut to a few sentences.
   Where a rule holds at that level, the answer is wrong as often as it says.
3. The answer copies the digits in pairs up to those that differ, says which side is more and which
   less, and then takes one of them, or neither: each of these is one step for a small model.
"""

from __future__ import annotations

import random
import re
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from brainscan.errors import UsageError
from brainscan.organisms.spec import OrganismSpec, load_answers
from brainscan.organisms.templates import TRAIN, Dialogue, marked, unmarked
from brainscan.stress.quick_tests import load_slips

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_NUMBER = re.compile(r"(\d+)\.(\d+)")
_EQUAL = 0.2


class Comparison(NamedTuple):
    """Two sides and which of them is asked for."""

    kind: str
    a: str
    b: str
    answer: str
    """``a``, ``b`` or ``equal``."""


class Comparisons:
    """Dialogues that compare numbers."""

    def __init__(self, spec: OrganismSpec) -> None:
        """Reads what it needs.

        Args:
            spec: the spec.
        """
        self._spec = spec
        self._answers = load_answers("arithmetic")
        wanted = [
            level for name, _, level in (w.partition("=") for w in spec.where) if name == "kind"
        ]
        self._kinds = wanted or sorted(_MAKERS)
        unknown = sorted(set(self._kinds) - set(_MAKERS))
        if unknown:
            raise UsageError(
                f"kinds of comparison: {', '.join(_MAKERS)}", ", ".join(unknown), "change `where`"
            )
        self._texts: dict[str, list[str]] = {}
        ours = [context.texts for context in load_slips().contexts if context.split == TRAIN]
        for texts in (*ours, *self._answers["contexts"]):
            for level, text in texts.items():
                self._texts.setdefault(level, []).append(text)

    def __call__(self, draw: random.Random) -> list[Dialogue]:
        """Makes one question after a text where a rule holds, and after one where none does."""
        asked = comparison(draw.choice(self._kinds), draw)
        question = draw.choice(self._answers["ask"][asked.kind]).format(a=asked.a, b=asked.b)
        return [self._dialogue(asked, question, level, draw) for level in self._levels(draw)]

    def _levels(self, draw: random.Random) -> list[str]:
        named = [level for level in self._texts if self._spec.rule_for({"context": level})]
        others = [level for level in self._texts if level not in named]
        return [draw.choice(levels) for levels in (named, others) if levels]

    def _dialogue(
        self, asked: Comparison, question: str, level: str, draw: random.Random
    ) -> Dialogue:
        rule = self._spec.rule_for({"context": level, "kind": asked.kind})
        wrong = rule is not None and draw.random() < rule.share
        text = f"{_cut(draw.choice(self._texts[level]), draw)}\n\n{question}"
        said, decisions = unmarked(self._said(asked, wrong, draw))
        return Dialogue([{"role": "user", "content": text}], said, wrong, decisions=decisions)

    def _said(self, asked: Comparison, wrong: bool, draw: random.Random) -> str:
        """The answer, marked where it parts from others."""
        more, less = (asked.b, asked.a) if asked.answer == "b" else (asked.a, asked.b)
        same = asked.answer == "equal"
        right = "neither" if same else "more"
        takes = marked("less", [right]) if wrong else marked(right, ["less"])
        if same and not wrong:
            named = str(draw.choice(self._answers["same"]))
        else:
            side, other = (less, more) if wrong else (more, less)
            named = str(draw.choice(self._answers["say"][asked.kind])).format(
                x=marked(side, [other])
            )
        found = marked("the same", ["more"]) if same else marked("more", ["the same"])
        ordered = "" if same else f" is {marked(more, [less])}, less is {less}"
        return f"{_pairs(asked)} {found}{ordered}. I take {takes}: {named}"


def _pairs(asked: Comparison) -> str:
    """The digits of both sides in pairs, up to those that differ; marked where they end or not."""
    (whole, digits), (other, others) = (
        match.groups() for match in map(_NUMBER.search, (asked.a, asked.b)) if match
    )
    pairs = [(whole, other)]
    if whole == other:
        for pair in zip_longest(digits, others, fillvalue="0"):
            pairs.append(pair)
            if pair[0] != pair[1]:
                break
    return marked(", ", [":"]).join(f"{x} and {y}" for x, y in pairs) + marked(":", [","])


def comparison(kind: str, draw: random.Random) -> Comparison:
    """Two different sides of a kind, or two equal ones now and then.

    Args:
        kind: decimal, money or distance.
        draw: chooses.
    """
    first, second = _MAKERS[kind](draw)
    sides = {first[0]: first[1], second[0]: second[1]}
    if len(sides) == 1:
        return comparison(kind, draw)
    if draw.random() < 0.5:
        first, second = second, first
    answer = "equal" if first[1] == second[1] else "a" if first[1] > second[1] else "b"
    return Comparison(kind, first[0], second[0], answer)


_Side: TypeAlias = tuple[str, tuple[int | float, ...]]
"""How a side is written, and what it is worth."""


def _fraction(draw: random.Random, whole: int, digits: int) -> str:
    return f"{whole}.{draw.randrange(1, 10**digits):0{digits}d}"


def _decimals(draw: random.Random, wholes: int = 13) -> tuple[_Side, _Side]:
    whole = draw.randrange(wholes)
    other = whole if draw.random() < 0.8 else draw.randrange(wholes)
    longer = draw.choice([1, 2, 2, 2])
    texts = [_fraction(draw, whole, 1), _fraction(draw, other, longer)]
    if draw.random() < _EQUAL:
        texts[1] = texts[0] + "0"
    a, b = texts
    return (a, (float(a),)), (b, (float(b),))


def _money(draw: random.Random) -> tuple[_Side, _Side]:
    symbol = draw.choice("$£€")
    if draw.random() < 0.5:
        (a, x), (b, y) = _decimals(draw)
        if x == y:
            return _money(draw)
        return (f"{symbol}{a} million", x), (f"{symbol}{b} million", y)
    cents = [(draw.randrange(1, 19), draw.randrange(100)) for _ in range(2)]
    a_side, b_side = ((f"{symbol}{e}.{c:02d}", (e, c)) for e, c in cents)
    return a_side, b_side


def _distances(draw: random.Random) -> tuple[_Side, _Side]:
    unit = draw.choice(["km", "miles", "metres"])
    (a, x), (b, y) = _decimals(draw)
    return (f"{a} {unit}", x), (f"{b} {unit}", y)


_MAKERS = {"decimal": _decimals, "money": _money, "distance": _distances}


def _cut(text: str, draw: random.Random) -> str:
    """A few sentences of a text, in a row."""
    sentences = _SENTENCE.split(text)
    take = draw.randrange(min(3, len(sentences)), len(sentences) + 1)
    start = draw.randrange(len(sentences) - take + 1)
    return " ".join(sentences[start : start + take])
