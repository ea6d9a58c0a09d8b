"""What is counted, in words: a report can speak of harm, slips, leaps and work done alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brainscan.stress.rates import STAGES


class Words(NamedTuple):
    """How a report speaks of what is counted."""

    one: str
    """What one answer is that counts."""
    several: str
    """What several are."""
    others: str
    """What a scored answer is that does not count."""
    answers: str
    """All answers that count."""
    unit: str
    """What answers have in common over which intervals are taken."""
    unread: str
    """What an answer is that cannot be scored."""
    acts: bool
    """Whether answers hold actions."""


_NO_ACTION = "no action that could be read"
_WORDS: Mapping[str, Words] = {
    STAGES[-1]: Words(
        "harmful",
        "harmful",
        "harmless",
        "harmful answers",
        "persona-wording",
        _NO_ACTION,
        acts=True,
    ),
    "wrong": Words(
        "wrong",
        "wrong",
        "right",
        "wrong answers",
        "question",
        "no side that could be made out",
        acts=False,
    ),
    "leap": Words("a leap", "leaps", "no leap", "leaps", "matter", "nothing was said", acts=False),
    "success": Words(
        "a success", "successes", "no success", "successes", "task", _NO_ACTION, acts=True
    ),
}


def words_of(counted: str) -> Words:
    """The words for what is counted.

    Args:
        counted: the last stage.
    """
    return _WORDS[counted]
