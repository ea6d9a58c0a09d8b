"""Which prompts an audit uses: cells of crossed factors, on wordings of one split.

1. The factors that matter together are crossed (threat and leverage); without them, the test's
   first factor alone; or those that are chosen. A cell is a level of each.
2. The remaining factors vary within every cell in the same way, so that cells differ by the crossed
   factors alone; a factor that forbids the behaviour stays at its first level, and its other level
   is the control "tell it not to".
3. Prompts of a cell are spread over persona-wordings and conditions; more than there are come as
   further epochs, which differ by their noise.
4. For a null audit, prompts that are alike but for the crossed factors exchange the names of their
   cells, by chance and each group for itself: then no cell says anything of the outcome.
5. The target is the cell with the highest rate on discovery. Where two factors are crossed its
   twins are the cells that differ in one of them or both, with the level of the least harm.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from brainscan import stats
from brainscan.errors import UsageError
from brainscan.stats import Estimate
from brainscan.stress.base import Asked, StressTest
from brainscan.stress.matrix import CROSSED, Condition, name_of

FORBIDS = ("prohibition", "yes")
"""The factor whose other level asks the model not to, and that level."""


class Question(NamedTuple):
    """A prompt to be answered, and which of its repetitions."""

    asked: Asked
    epoch: int
    cell: tuple[str, ...]

    @property
    def id(self) -> str:
        """What it is called in an audit's files."""
        return f"{self.asked.unit}/{name_of(self.asked.condition)}/{self.epoch}"

    @property
    def seed(self) -> int:
        """Of its noise: the same in every arm, also where the prompt forbids the behaviour."""
        rest = {f: level for f, level in self.asked.condition.items() if f != FORBIDS[0]}
        told = f"{self.asked.unit}/{name_of(rest)}/{self.epoch}"
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:7])


@dataclass(frozen=True)
class Design:
    """What varies in an audit's prompts."""

    test: StressTest
    """The stress test."""
    null: int | None = None
    """For a null audit: the seed by which cells' names are exchanged."""
    by: tuple[str, ...] = ()
    """The factors that make cells, where they are chosen."""

    @property
    def crossed(self) -> tuple[str, ...]:
        """The factors that make cells.

        Raises:
            UsageError: the test has no factor of two levels, or not those that were chosen.
        """
        several = [f for f, levels in self.test.factors.items() if len(levels) > 1]
        if wrong := [factor for factor in self.by if factor not in several]:
            raise UsageError(
                f"factors of at least two levels in {self.test.name}: {', '.join(several)}",
                ", ".join(wrong),
                "choose among these",
            )
        if self.by:
            return self.by
        found = tuple(factor for factor in CROSSED if factor in several)
        found = found or tuple(factor for factor in several if factor != FORBIDS[0])[:1]
        if not found:
            raise UsageError(
                f"a factor of at least two levels in {self.test.name}",
                ", ".join(self.test.factors) or "no factors",
                "an audit compares conditions: add one where nothing should happen",
            )
        return found

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """All cells."""
        return list(product(*(self.test.factors[factor] for factor in self.crossed)))

    @property
    def forbids(self) -> Mapping[str, str]:
        """What makes a prompt forbid the behaviour; empty where the test has no such factor."""
        factor, level = FORBIDS
        levels = self.test.factors.get(factor, ())
        return {factor: level} if level in levels and len(levels) > 1 else {}

    def questions(
        self, split: str, cell: tuple[str, ...], n: int, *, forbidden: bool = False
    ) -> list[Question]:
        """Prompts of a cell.

        Args:
            split: whose wordings.
            cell: a level of each crossed factor.
            n: how many.
            forbidden: whether they forbid the behaviour.

        Raises:
            UsageError: the test has no unit of that split, or no such factor.
        """
        if forbidden and not self.forbids:
            raise UsageError(
                f"a factor {FORBIDS[0]} in {self.test.name}", "none", "leave this arm out"
            )
        fixed = dict(zip(self.crossed, cell, strict=True))
        for factor, level in self.forbids.items():
            others = [one for one in self.test.factors[factor] if one != level]
            fixed[factor] = level if forbidden else others[0]
        prompts = [
            (unit.id, condition)
            for condition in _conditions(self.test.factors, fixed)
            for unit in self.test.units(condition)
            if unit.split == split
        ]
        if not prompts:
            raise UsageError(
                f"units of the split {split} in {self.test.name}", "none", "use another test"
            )
        ordered = _spread(prompts, self._apart)
        questions = [
            Question(Asked(*ordered[number % len(ordered)]), number // len(ordered) + 1, cell)
            for number in range(n)
        ]
        if self.null is None:
            return questions
        return [self._as_cell(one, self._names(one)[cell]) for one in questions]

    def named(self, question: Question) -> Question:
        """A question of a cell, under that cell's name: another one's in a null audit.

        Args:
            question: the question.
        """
        if self.null is None:
            return question
        names = {actual: name for name, actual in self._names(question).items()}
        return question._replace(cell=names[question.cell])

    def _names(self, question: Question) -> dict[tuple[str, ...], tuple[str, ...]]:
        """By the name of each cell in which there is such a prompt: whose prompt goes by it."""
        asked = question.asked
        cells = [
            cell
            for cell in self.cells
            if any(
                unit.id == asked.unit
                for unit in self.test.units(self._as_cell(question, cell).asked.condition)
            )
        ]
        rest = {f: level for f, level in asked.condition.items() if f not in self._apart}
        key = f"{self.null}/{asked.unit}/{name_of(rest)}/{question.epoch}"
        return dict(zip(cells, random.Random(key).sample(cells, len(cells)), strict=True))

    def _as_cell(self, question: Question, cell: tuple[str, ...]) -> Question:
        """The same question with the levels of a cell, under the name that it has."""
        levels = dict(zip(self.crossed, cell, strict=True))
        asked = Asked(question.asked.unit, {**question.asked.condition, **levels})
        return question._replace(asked=asked)

    @property
    def _apart(self) -> set[str]:
        """The factors that prompts differ by that are compared."""
        return {*self.crossed, *self.forbids}


def target_of(rates: Mapping[tuple[str, ...], tuple[int, int]]) -> tuple[str, ...]:
    """The cell with the highest rate.

    Args:
        rates: how many of how many, by cell.
    """
    return max(rates, key=lambda cell: rates[cell][0] / max(1, rates[cell][1]))


def twins_of(
    target: tuple[str, ...], rates: Mapping[tuple[str, ...], tuple[int, int]]
) -> list[tuple[str, ...]]:
    """The cells that the target is held against: for each factor the level of the least harm.

    Args:
        target: the cell.
        rates: how many of how many, by cell.
    """
    other = []
    for place, level in enumerate(target):
        near = [
            cell
            for cell in rates
            if cell[place] != level and _without(cell, place) == _without(target, place)
        ]
        best = min(near, key=lambda cell: rates[cell][0] / max(1, rates[cell][1]))
        other.append(best[place])
    return [cell for cell in product(*zip(target, other, strict=True)) if cell != target]


def contrast(
    target: tuple[str, ...],
    twins: Sequence[tuple[str, ...]],
    rates: Mapping[tuple[str, ...], tuple[int, int]],
) -> Estimate:
    """The rate in the target less the rate in its twins together.

    Args:
        target: the cell.
        twins: the cells that it is held against.
        rates: how many of how many, by cell.
    """
    counts = [rates[cell] for cell in twins]
    together = sum(found for found, _ in counts), sum(n for _, n in counts)
    return stats.risk_difference(rates[target], together)


def _conditions(
    factors: Mapping[str, Sequence[str]], fixed: Mapping[str, str]
) -> list[dict[str, str]]:
    levels = [[fixed[factor]] if factor in fixed else own for factor, own in factors.items()]
    return [dict(zip(factors, chosen, strict=True)) for chosen in product(*levels)]


def _spread(
    prompts: Sequence[tuple[str, Condition]],
    apart: Collection[str],
) -> list[tuple[str, Condition]]:
    """Prompts in turns over units, in an order that is the same in every cell."""

    def place(prompt: tuple[str, Condition]) -> bytes:
        rest = {factor: level for factor, level in prompt[1].items() if factor not in apart}
        return hashlib.sha256(f"{prompt[0]}/{name_of(rest)}".encode()).digest()

    turns: dict[str, int] = {}
    keyed = []
    for prompt in sorted(prompts, key=place):
        turns[prompt[0]] = turns.get(prompt[0], -1) + 1
        keyed.append((turns[prompt[0]], place(prompt), prompt))
    return [prompt for _, _, prompt in sorted(keyed, key=lambda one: one[:2])]


def _without(cell: tuple[str, ...], place: int) -> tuple[str, ...]:
    return (*cell[:place], *cell[place + 1 :])
