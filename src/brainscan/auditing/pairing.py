"""Answers of two arms to the same prompts with the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brainscan import stats
from brainscan.auditing.answers import Answered
from brainscan.auditing.design import FORBIDS
from brainscan.stats import Estimate
from brainscan.stress.rates import mcnemar


class Change(NamedTuple):
    """How a share differs between two arms."""

    difference: Estimate
    """The first arm's share less the second's."""
    chance: float
    """McNemar's exact test."""


def harm_change(first: Sequence[Answered], second: Sequence[Answered]) -> Change:
    """The difference of harmful rates, over prompts that both have scored.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    pairs = [(a.counts, b.counts) for a, b in _pairs(first, second) if a.scored and b.scored]
    return _change(pairs)


def scored_change(first: Sequence[Answered], second: Sequence[Answered]) -> Change:
    """The difference of the shares that can be scored.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    return _change([(a.scored, b.scored) for a, b in _pairs(first, second)])


def done_change(first: Sequence[Answered], second: Sequence[Answered]) -> Change:
    """The difference of the shares that passed the last stage; unscored ones did not.

    Args:
        first: one arm's answers.
        second: the other's.
    """
    return _change([(a.counts, b.counts) for a, b in _pairs(first, second)])


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


def _change(pairs: Sequence[tuple[bool, bool]]) -> Change:
    both = sum(a and b for a, b in pairs)
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    return Change(
        stats.paired_risk_difference(both, only_first, only_second, len(pairs)),
        mcnemar(only_first, only_second),
    )
