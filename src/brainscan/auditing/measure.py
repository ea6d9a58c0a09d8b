"""Is there a behaviour at all, where, and does it hold on other wordings?

The cells of the crossed factors are run on discovery wordings. The one with the highest rate is the
target; since it was chosen for that, the difference to its twins is measured again on selection
wordings, and both must be above 0. The first split takes the best of several cells, so that alone
it finds something in nothing more often than its interval says. `false_alarms` says how often both
do: with the same outcomes dealt out again among the cells, within each wording and condition.

A null audit (`AuditConfig.null`) goes on whatever was measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from brainscan import stats
from brainscan.attribution.decision import Answer, Pair
from brainscan.auditing.answers import Answered, Arm, ask
from brainscan.auditing.confirm import sampling_of
from brainscan.auditing.design import Design, contrast, target_of, twins_of
from brainscan.auditing.findings import Behaviour
from brainscan.auditing.results import counted
from brainscan.auditing.room import Room
from brainscan.stats import Estimate

PLAIN = "untouched"
"""The arm without edits."""


@dataclass(frozen=True)
class Measured:
    """A split's answers, and what they say."""

    behaviour: Behaviour
    """The rates."""
    answers: tuple[Answered, ...]
    """The answers of the target and its twins."""
    all: tuple[Answered, ...]
    """The answers of all cells."""

    def as_answers(self) -> list[Answer]:
        """The answers in tokens, as attribution takes them."""
        return [answer_of(one) for one in self.answers]

    def pairs(self) -> list[Pair]:
        """Harmful answers of the target with a harmless one of each twin of the same prompt."""
        target, factors = self.behaviour.target, self.behaviour.factors
        found = []
        for harmful in self.answers:
            if harmful.question.cell != target or not harmful.counts:
                continue
            for other in self.answers:
                cell = other.question.cell
                if cell == target or other.counts or not other.scored:
                    continue
                changed = [f for f, a, b in zip(factors, target, cell, strict=True) if a != b]
                if len(changed) == 1 and rest_of(other, factors) == rest_of(harmful, factors):
                    found.append(Pair(answer_of(harmful), answer_of(other), changed[0]))
        return found


def measure(room: Room) -> list[Measured]:
    """The behaviour on discovery wordings, and if it is there on selection wordings.

    Args:
        room: the audit.
    """
    first = measure_discovery(room)
    target, twins = first.behaviour.target, first.behaviour.twins
    if not first.behaviour.contrast.low > 0 and not room.config.null:
        return [first]
    again = _on(room, "selection", [target, *twins], room.config.selection)
    return [first, _measured("selection", room.design, target, twins, again)]


def measure_discovery(room: Room) -> Measured:
    """The rates in all cells on discovery wordings, and which of them is the target.

    Args:
        room: the audit.
    """
    design = room.design
    found = _on(room, "discovery", design.cells, room.config.per_cell)
    rates = {cell: counted([a for a in found if a.question.cell == cell]) for cell in design.cells}
    target = target_of(rates)
    return _measured("discovery", design, target, twins_of(target, rates), found)


def _on(room: Room, split: str, cells: Sequence[tuple[str, ...]], n: int) -> list[Answered]:
    """Answers in some cells: recorded ones, or n of each given now."""
    if room.recorded:
        return [one for one in room.recorded[split] if one.question.cell in cells]
    questions = tuple(q for cell in cells for q in room.design.questions(split, cell, n))
    journal, arms = room.folder / f"{split}.jsonl", [Arm(PLAIN, (), questions)]
    return ask(room.lm, room.design.test, arms, sampling_of(room.config), journal, split)[PLAIN]


def _measured(
    split: str,
    design: Design,
    target: tuple[str, ...],
    twins: Sequence[tuple[str, ...]],
    answers: Sequence[Answered],
) -> Measured:
    cells = list(dict.fromkeys(one.question.cell for one in answers))
    counts = {cell: counted([a for a in answers if a.question.cell == cell]) for cell in cells}
    kept = tuple(one for one in answers if one.question.cell in (target, *twins))
    behaviour = Behaviour(
        split=split,
        factors=design.crossed,
        counts=counts,
        unscored=sum(not one.scored for one in answers),
        target=target,
        twins=tuple(twins),
        contrast=contrast(target, twins, counts),
    )
    return Measured(behaviour, kept, tuple(answers))


def false_alarms(measured: Sequence[Measured], seed: int, rounds: int = 500) -> Estimate:
    """How often outcomes that say nothing of the cells would have been taken for a behaviour.

    On discovery the cell that looks worst is chosen anew each time. On selection the cells have
    then nothing to do with that choice, so any of them may stand for the target.

    Args:
        measured: discovery, and selection if it went so far; else discovery alone must be passed.
        seed: deals the outcomes out.
        rounds: how often.
    """
    draw = random.Random(seed)
    found = 0
    for _ in range(rounds):
        first, *again = (_dealt_again(one, draw) for one in measured)
        target = target_of(first)
        passed = contrast(target, twins_of(target, first), first).low > 0
        for counts in again:
            one, *others = counts
            passed = passed and contrast(one, others, counts).low > 0
        found += passed
    return stats.proportion(found, rounds)


def _dealt_again(measured: Measured, draw: random.Random) -> dict[tuple[str, ...], tuple[int, int]]:
    """The counts of cells with outcomes dealt out again among answers that are alike else."""
    alike: dict[tuple[object, ...], list[Answered]] = {}
    for one in measured.all:
        if one.scored:
            alike.setdefault(rest_of(one, measured.behaviour.factors), []).append(one)
    found = dict.fromkeys(measured.behaviour.counts, (0, 0))
    for group in alike.values():
        outcomes = [one.counts for one in group]
        draw.shuffle(outcomes)
        for one, counts in zip(group, outcomes, strict=True):
            harmful, n = found[one.question.cell]
            found[one.question.cell] = (harmful + counts, n + 1)
    return found


def rest_of(one: Answered, factors: Sequence[str]) -> tuple[object, ...]:
    """What an answer's prompt has in common with its twins': all but the crossed factors.

    Args:
        one: the answer.
        factors: the crossed factors.
    """
    asked = one.question.asked
    levels = tuple(pair for pair in asked.condition.items() if pair[0] not in factors)
    return asked.unit, one.question.epoch, levels


def answer_of(one: Answered) -> Answer:
    """An answer in tokens, as attribution takes it."""
    return Answer(one.prompt, one.response, one.question.asked.unit, one.question.cell)
