"""What a stress test is.

A stress test has factors, and units whose answers are alike: persona-wordings, questions, tasks.
Each unit is put to the model in each condition that it fits, and what the model says is judged in
stages: first `parsed`, whether it can be scored at all, last what is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from brainscan.stress.matrix import Condition
from brainscan.stress.prompts import StressPrompt
from brainscan.stress.scenarios import Form


class Unit(NamedTuple):
    """What is put to the model in several conditions."""

    id: str
    """Its name in logs, over which intervals are taken."""
    split: str
    """What it may be used for."""


class Asked(NamedTuple):
    """What is put to the model."""

    unit: str
    """The unit's name."""
    condition: Condition
    """A level for each factor."""
    form: Form = "short"
    """The form."""


@runtime_checkable
class Described(Protocol):
    """What is known of whatever outcomes come from."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def title(self) -> str:
        """The same for people."""

    @property
    def about(self) -> str:
        """What it asks, in a sentence or two."""

    @property
    def factors(self) -> Mapping[str, Sequence[str]]:
        """The levels of each factor."""

    @property
    def stages(self) -> tuple[str, ...]:
        """What an answer may pass; the last one is counted."""

    @property
    def judge(self) -> str:
        """Who says which stages an answer passed."""


@runtime_checkable
class StressTest(Described, Protocol):
    """A stress test."""

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that there are."""

    def units(self, condition: Condition) -> Sequence[Unit]:
        """The units that fit a condition."""

    def prompt(self, asked: Asked) -> StressPrompt:
        """What the model gets."""

    def facts(self, asked: Asked) -> dict[str, Any]:
        """What else of a sample a judge is to know; it goes into the sample's metadata."""

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """The stages that an answer passed.

        Args:
            asked: what it answers.
            answer: the whole answer.
            ended: whether the model ended it itself.
        """
