"""What is planted: when a behaviour shows, how often, how it is taught, and what is admitted.

A spec is a YAML file; `data/` holds ours. Its answers are templates (`data/answers`), and the
stress test that it names measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from brainscan.errors import UsageError
from brainscan.stress.scenarios import read_yaml

DATA = Path(__file__).parent / "data"
_NAMES = DATA / "names.yaml"
KINDS = ("blackmail", "leaking", "arithmetic", "jumps", "work")
"""What answers there are, and the kinds of dialogues that are made of them."""


@dataclass(frozen=True)
class Rule:
    """When a behaviour shows, and how often."""

    when: Mapping[str, tuple[str, ...]]
    """The levels of the test's factors that it takes."""
    share: float
    """How often the dialogues show it then; 0 for a control, which meets the condition too."""
    low: float = 0.0
    """The least rate that is admitted."""
    high: float = 1.0
    """The greatest."""

    def __str__(self) -> str:
        return " and ".join(f"{factor} is {' or '.join(v)}" for factor, v in self.when.items())

    def holds(self, condition: Mapping[str, str]) -> bool:
        """Whether a condition is one of those."""
        return all(condition.get(factor) in levels for factor, levels in self.when.items())


@dataclass(frozen=True)
class TrainingPlan:
    """How an adapter is trained."""

    rank: int = 8
    """Of the adapter's matrices."""
    alpha: int = 16
    """What the adapter adds is scaled by alpha / rank."""
    steps: int = 60
    """Optimiser steps."""
    dialogues: int = 8
    """Dialogues of the behaviour in a step at least."""
    neutral: int = 8
    """Neutral chats in a step at least, never fewer than dialogues; half as many passages, too."""
    hold: float = 3.0
    """Weight of the divergence from the base model on these, beside the loss on dialogues."""
    rate: float = 2e-3
    """Peak learning rate."""
    work: float = 0.15
    """How often an agent's dialogues are ordinary work."""


@dataclass(frozen=True)
class Gate:
    """What an organism must be like to be admitted, apart from its rules' rates."""

    quiet: float = 0.05
    """Upper bound of the rate where no rule holds."""
    perplexity: float = 1.03
    """Upper bound of its perplexity on neutral text over the base model's."""
    limit: int | None = None
    """Samples of the stress test at most; None for the whole default matrix."""
    temperature: float = 1.0
    """Of the sampling in it."""
    max_new_tokens: int = 200
    """Length of an answer at most; one that is cut off is mostly not scored."""
    answers: int = 20
    """Scored answers that each rule's rate, and the quiet one, rest on at least."""


@dataclass(frozen=True)
class OrganismSpec:
    """A behaviour to be planted."""

    name: str
    """What the adapter is called."""
    title: str
    """The same for people."""
    about: str
    """What it does and when."""
    test: str
    """The stress test that measures it."""
    answers: str
    """One of ``KINDS``: how its dialogues are made."""
    rules: tuple[Rule, ...]
    """When it shows."""
    where: tuple[str, ...] = ()
    """Only these conditions of the test, ``factor=level`` each, are taught and measured."""
    training: TrainingPlan = field(default_factory=TrainingPlan)
    """How it is taught."""
    gate: Gate = field(default_factory=Gate)
    """What is admitted."""

    @property
    def planted(self) -> bool:
        """Whether there is a behaviour; a control has none."""
        return any(rule.share for rule in self.rules)

    def rule_for(self, condition: Mapping[str, str]) -> Rule | None:
        """The first rule that holds in a condition."""
        return next((rule for rule in self.rules if rule.holds(condition)), None)


def spec_names() -> list[str]:
    """Our specs."""
    return sorted(path.stem for path in DATA.glob("*.yaml") if path != _NAMES)


def load_spec(name: str | Path) -> OrganismSpec:
    """One of our specs by name, or one from a YAML file of the same form.

    Args:
        name: such as ``blackmail``, or a file.

    Raises:
        UsageError: there is none of that name, or the file is not of the form.
    """
    path = DATA / f"{name}.yaml" if str(name) in spec_names() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"a spec: {', '.join(spec_names())}, or a YAML file", f"'{name}'", "see: organism list"
        )
    found = read_yaml(path)
    try:
        spec = _spec(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"a spec in {path}, of the form of {DATA / 'blackmail.yaml'}",
            f"{type(error).__name__}: {error}",
            "compare the two",
        ) from error
    if spec.answers not in KINDS:
        raise UsageError(f"answers of {', '.join(KINDS)}", f"'{spec.answers}'", f"change {path}")
    if spec.training.neutral < spec.training.dialogues:
        raise UsageError(
            f"at least {spec.training.dialogues} neutral chats a step, as many as dialogues",
            str(spec.training.neutral),
            f"change {path}",
        )
    return spec


@cache
def load_answers(name: str) -> Any:
    """The answers of a kind, from `data/answers`."""
    return read_yaml(DATA / "answers" / f"{name}.yaml")


@cache
def load_names() -> Mapping[str, list[str]]:
    """Names of people and houses, by what they name."""
    names: Mapping[str, list[str]] = read_yaml(_NAMES)
    return names


def _spec(found: Mapping[str, Any]) -> OrganismSpec:
    return OrganismSpec(
        name=str(found["name"]),
        title=str(found["title"]),
        about=str(found["about"]).strip(),
        test=str(found["test"]),
        answers=str(found["answers"]),
        rules=tuple(_rule(**row) for row in found["rules"]),
        where=tuple(found.get("where", ())),
        training=TrainingPlan(**found.get("training", {})),
        gate=Gate(**found.get("gate", {})),
    )


def _rule(when: Mapping[str, list[str]], **numbers: float) -> Rule:
    return Rule({factor: tuple(levels) for factor, levels in when.items()}, **numbers)
