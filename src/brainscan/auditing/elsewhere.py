"""What else an edit moves: the behaviour's harmless twins, and other scenarios.

1. The twins' confirmation prompts are answered without edits and then under each edit, with the
   same noise; so are those of every other scenario that has the target's levels.
2. Of each place it is said how often harm is done with and without the edit, how many answers can
   still be scored, and how many are the same word for word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brainscan import stats
from brainscan.auditing.answers import Answered, Arm, ask
from brainscan.auditing.confirm import UNTOUCHED, Frozen, sampling_of
from brainscan.auditing.design import Design, Question
from brainscan.auditing.findings import Behaviour, Elsewhere
from brainscan.auditing.pairing import harm_change, left, scored_change
from brainscan.auditing.room import Room
from brainscan.stress.base import StressTest
from brainscan.stress.catalogue import NAMES, load_test


def elsewhere(
    room: Room, behaviour: Behaviour, edited: Sequence[Frozen]
) -> dict[str, tuple[Elsewhere, ...]]:
    """What each edit moves at places where it was not made; by the arm's name.

    Args:
        room: the audit.
        behaviour: where the behaviour is.
        edited: the arms.
    """
    found: dict[str, list[Elsewhere]] = {arm.name: [] for arm in edited}
    if not edited or not room.config.elsewhere:
        return {}
    for number, (place, test, questions) in enumerate(_places(room, behaviour)):
        asked = [Arm(UNTOUCHED, (), questions)]
        asked += [Arm(arm.name, arm.edits, questions) for arm in edited]
        journal = room.folder / f"elsewhere-{number}.jsonl"
        answers = ask(room.lm, test, asked, sampling_of(room.config), journal, place)
        for arm in edited:
            found[arm.name].append(_moved(place, answers[UNTOUCHED], answers[arm.name]))
    return {name: tuple(places) for name, places in found.items()}


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
