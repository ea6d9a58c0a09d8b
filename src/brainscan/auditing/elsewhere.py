"""What else an edit moves: the behaviour's harmless twins, and other scenarios.

1. The twins' confirmation prompts are answered without edits and then under each edit, with the
   same noise; so are those of every other scenario that has the target's levels. All are asked at
   once: many rows take little longer than few.
2. Of each place it is said how often harm is done with and without the edit, how many answers can
   still be scored, and how many are the same word for word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from brainscan import stats
from brainscan.auditing.answers import Answered, Arm, ask
from brainscan.auditing.confirm import UNTOUCHED, Frozen, sampling_of
from brainscan.auditing.design import Design, Question
from brainscan.auditing.findings import Behaviour, Elsewhere
from brainscan.auditing.pairing import harm_change, left, scored_change
from brainscan.auditing.room import Room
from brainscan.stress.base import Asked, StressTest
from brainscan.stress.catalogue import NAMES, load_test
from brainscan.stress.prompts import StressPrompt


def elsewhere(
    room: Room, behaviour: Behaviour, edited: Sequence[Frozen]
) -> dict[str, tuple[Elsewhere, ...]]:
    """What each edit moves at places where it was not made; by the arm's name.

    Args:
        room: the audit.
        behaviour: where the behaviour is.
        edited: the arms.
    """
    if not edited or not room.config.elsewhere:
        return {}
    places = list(_places(room, behaviour))
    together = _Together()
    asked = {place: together.add(test, questions) for place, test, questions in places}
    everything = tuple(one for questions in asked.values() for one in questions)
    arms = [Arm(UNTOUCHED, (), everything)]
    arms += [Arm(arm.name, arm.edits, everything) for arm in edited]
    journal, sampling = room.folder / "elsewhere.jsonl", sampling_of(room.config)
    found = ask(room.lm, together, arms, sampling, journal, "elsewhere")
    return {
        arm.name: tuple(
            _moved(place, _of(found[UNTOUCHED], own), _of(found[arm.name], own))
            for place, own in asked.items()
        )
        for arm in edited
    }


class _Together:
    """Several tests that are asked at once; each unit is named with its test."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[StressTest, str]] = {}

    def add(self, test: StressTest, questions: Sequence[Question]) -> tuple[Question, ...]:
        """Questions of a test, as this one knows them."""
        found = []
        for one in questions:
            name = f"{test.name}/{one.asked.unit}"
            self.tests[name] = test, one.asked.unit
            found.append(one._replace(asked=Asked(name, one.asked.condition)))
        return tuple(found)

    def prompt(self, asked: Asked) -> StressPrompt:
        test, unit = self.tests[asked.unit]
        return test.prompt(Asked(unit, asked.condition))

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> Mapping[str, bool]:
        test, unit = self.tests[asked.unit]
        return test.passed(Asked(unit, asked.condition), answer, ended=ended)


def _of(answers: Sequence[Answered], questions: Sequence[Question]) -> list[Answered]:
    """The answers to some questions."""
    wanted = {one.id for one in questions}
    return [one for one in answers if one.question.id in wanted]


def _places(
    room: Room, behaviour: Behaviour
) -> Iterator[tuple[str, StressTest, tuple[Question, ...]]]:
    """Each place with its test and its questions."""
    own, n = room.design, room.config.elsewhere
    for cell in behaviour.twins:
        levels = ", ".join(f"{f} {level}" for f, level in zip(own.crossed, cell, strict=True))
        yield levels, own.test, tuple(own.questions("confirmation", cell, n))
    for name in NAMES:
        test = load_test(name)
        if name == own.test.name or not _has(test, behaviour):
            continue
        other = Design(test)
        questions = tuple(other.questions("confirmation", behaviour.target, n))
        yield f"{name}: {', '.join(behaviour.target)}", test, questions


def _has(test: StressTest, behaviour: Behaviour) -> bool:
    """Whether a test crosses the same factors and has the target's levels."""
    levels = zip(behaviour.factors, behaviour.target, strict=True)
    if not all(level in test.factors.get(factor, ()) for factor, level in levels):
        return False
    return Design(test).crossed == behaviour.factors


def _moved(place: str, untouched: Sequence[Answered], edited: Sequence[Answered]) -> Elsewhere:
    same = sum(a.text == b.text for a, b in zip(untouched, edited, strict=True))
    return Elsewhere(
        place,
        stats.proportion(sum(map(left, untouched)), len(untouched)),
        stats.proportion(sum(map(left, edited)), len(edited)),
        harm_change(untouched, edited).difference,
        scored_change(edited, untouched).difference,
        stats.proportion(same, len(edited)),
    )
