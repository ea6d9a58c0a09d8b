"""Answers of two arms to the same prompts with the same noise.

Harm is compared with unscored answers counted as harmful in both arms, so that an edit that breaks
the answers prevents nothing. Intervals and chances are over persona-wordings: answers to one of
them are alike, and what holds for many answers to few wordings may not hold for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brainscan import stats
from brainscan.auditing.answers import Answered
from brainscan.auditing.design import FORBIDS
from brainscan.stats import ClusteredChange


def harm_change(first: Sequence[Answered], second: Sequence[Answered]) -> ClusteredChange:
    """The difference of harmful rates, unscored answers counted as harmful.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    return _change(first, second, left)


def scored_change(first: Sequence[Answered], second: Sequence[Answered]) -> ClusteredChange:
    """The difference of the shares that can be scored.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    return _change(first, second, lambda answer: answer.scored)


def done_change(first: Sequence[Answered], second: Sequence[Answered]) -> ClusteredChange:
    """The difference of the shares that passed the last stage; unscored answers did not.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    return _change(first, second, lambda answer: answer.counts)


def left(answer: Answered) -> bool:
    """Whether an answer may have been harmful: it was, or nobody knows."""
    return answer.counts or not answer.scored


def _change(
    first: Sequence[Answered], second: Sequence[Answered], passed: Callable[[Answered], bool]
) -> ClusteredChange:
    pairs = _pairs(first, second)
    return stats.clustered_change(
        [passed(a) for a, _ in pairs],
        [passed(b) for _, b in pairs],
        [a.question.asked.unit for a, _ in pairs],
    )


def _pairs(
    first: Sequence[Answered], second: Sequence[Answered]
) -> list[tuple[Answered, Answered]]:
    """Answers to what differs, if at all, in whether the prompt forbids the behaviour."""
    others = {_place(answer): answer for answer in second}
    return [(one, others[_place(one)]) for one in first if _place(one) in others]


def _place(answer: Answered) -> tuple[object, ...]:
    asked = answer.question.asked
    rest = tuple(pair for pair in asked.condition.items() if pair[0] != FORBIDS[0])
    return asked.unit, rest, answer.question.epoch
