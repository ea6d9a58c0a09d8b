"""Frozen arms on confirmation wordings, by generating, and what each costs.

Every arm answers the same prompts with the same noise; so do some of the random sets, fewer of
them. Costs are measured beside: neutral text and the capability set (`effects`), whether answers
can be scored, and ordinary tasks done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from brainscan import stats
from brainscan.auditing.answers import Answered, Arm, ask
from brainscan.auditing.arms import Candidate
from brainscan.auditing.config import MOST_ARMS, AuditConfig
from brainscan.auditing.design import Design, Question
from brainscan.auditing.pairing import done_change, harm_change, scored_change
from brainscan.auditing.results import Costs, FrozenArm
from brainscan.auditing.room import Room
from brainscan.auditing.screen import Screened
from brainscan.interventions import (
    Edit,
    Effects,
    capability_items,
    measure_effects_many,
    neutral_passages,
)
from brainscan.models import LanguageModel
from brainscan.models.generate import Sampling
from brainscan.stats import Estimate
from brainscan.stress.base import Asked
from brainscan.stress.catalogue import load_test

CONTROL = "control"
"""The kind of arms that should not work, or are there to compare with."""

UNTOUCHED, ZERO, TOLD, BASE = "untouched", "zero edit", "told not to", "base model"
"""Names of arms without features."""

FEATURES, OTHER, SIMPLER, FLIPPED = (
    "best features",
    "other dictionary's features",
    "best direction",
    "sign-flipped features",
)
"""Names of the others."""


@dataclass(frozen=True)
class Frozen:
    """An arm before it answers."""

    name: str
    """What it is called."""
    kind: str
    """Its kind."""
    candidate: Candidate | None = None
    """What it edits."""
    strength: float = 0.0
    """How strongly."""
    screened: Screened | None = None
    """What was found of it in the screen."""
    told: bool = False
    """Whether its prompts forbid the behaviour."""
    base: bool = False
    """Whether the base model answers."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Its edits."""
        return self.candidate.edits(self.strength) if self.candidate else ()


def freeze(
    features: Screened | None,
    other: Screened | None,
    simpler: Screened | None,
    design: Design,
    *,
    base: bool,
) -> list[Frozen]:
    """The arms that will answer, before any of them has.

    Args:
        features: the best set of features.
        other: the best set of the other dictionary.
        simpler: the best direction.
        design: whether prompts can forbid the behaviour.
        base: whether there is a base model.
    """
    arms = [Frozen(UNTOUCHED, CONTROL)]
    if features is not None:
        own = features.candidate
        arms += [
            Frozen(ZERO, CONTROL, own),
            _as_screened(FEATURES, features),
            Frozen(FLIPPED, CONTROL, own, -features.strength),
        ]
    for name, screened in ((OTHER, other), (SIMPLER, simpler)):
        if screened is not None:
            arms.append(_as_screened(name, screened))
    if design.forbids:
        arms.append(Frozen(TOLD, CONTROL, told=True))
    if base:
        arms.append(Frozen(BASE, CONTROL, base=True))
    assert len(arms) <= MOST_ARMS
    return arms


def confirm(
    room: Room,
    base: LanguageModel | None,
    target: tuple[str, ...],
    arms: Sequence[Frozen],
    random_sets: Sequence[Frozen],
) -> tuple[list[FrozenArm], list[FrozenArm]]:
    """Lets the frozen arms and some random sets answer; the arms, and the random ones.

    Args:
        room: the audit.
        base: the model without its adapter.
        target: the cell in which harm is done.
        arms: the frozen arms, untouched first.
        random_sets: sets that match the best features.
    """
    design, config, sampling = room.design, room.config, sampling_of(room.config)
    plain = tuple(design.questions("confirmation", target, config.confirmation))
    told: tuple[Question, ...] = ()
    if design.forbids:
        told = tuple(design.questions("confirmation", target, config.confirmation, forbidden=True))
    asked = [Arm(one.name, one.edits, told if one.told else plain) for one in arms if not one.base]
    asked += [Arm(one.name, one.edits, plain[: config.random_answers]) for one in random_sets]
    journal = room.folder / "confirmation.jsonl"
    found = ask(room.lm, design.test, asked, sampling, journal, "confirm")
    if base is not None:
        few = plain[: config.base_answers]
        there = [Arm(one.name, (), few) for one in arms if one.base]
        journal = room.folder / "base.jsonl"
        found |= ask(base, design.test, there, sampling, journal, "base model")
    changes = {name: harm_change(found[UNTOUCHED], answers) for name, answers in found.items()}
    names = [one.name for one in arms if one.name != UNTOUCHED]
    adjusted = dict(zip(names, stats.holm([changes[name].chance for name in names]), strict=True))

    def answered(one: Frozen) -> FrozenArm:
        return FrozenArm(
            one.name,
            one.kind,
            tuple(found[one.name]),
            one.candidate,
            one.strength,
            one.screened,
            change=changes[one.name].difference if one.name != UNTOUCHED else None,
            chance=changes[one.name].chance if one.name != UNTOUCHED else math.nan,
            adjusted=adjusted.get(one.name, math.nan),
        )

    return [answered(one) for one in arms], [answered(one) for one in random_sets]


def _as_screened(name: str, screened: Screened) -> Frozen:
    own = screened.candidate
    return Frozen(name, own.kind, own, screened.strength, screened)


def with_costs(room: Room, arms: Sequence[FrozenArm], frozen: Sequence[Frozen]) -> list[FrozenArm]:
    """The arms with what they cost.

    Args:
        room: the audit.
        arms: the arms that answered, untouched first.
        frozen: the same before they did.
    """
    edited = [one for one in frozen if one.edits and one.name != ZERO]

    def measure() -> list[dict[str, Any]]:
        measured = measure_effects_many(
            room.lm,
            [one.edits for one in edited],
            passages=neutral_passages(room.config.cost_passages),
            items=capability_items(room.config.cost_items),
        )
        return [one.to_json() for one in measured]

    lines = room.kept("effects", measure)
    found = [Effects(**{k: Estimate.from_json(v) for k, v in line.items()}) for line in lines]
    effects = dict(zip((one.name for one in edited), found, strict=True))
    work = _ordinary(room, [Frozen(UNTOUCHED, CONTROL), *edited])
    return [replace(arm, costs=_costs(arm, arms[0], effects.get(arm.name), work)) for arm in arms]


def sampling_of(config: AuditConfig) -> Sampling:
    """How an audit's answers are drawn."""
    return Sampling(config.max_new_tokens, config.temperature, seed=config.seed)


def _ordinary(room: Room, arms: Sequence[Frozen]) -> Mapping[str, list[Answered]]:
    """Ordinary tasks done under each arm."""
    test = load_test("benign")
    first = {factor: levels[0] for factor, levels in test.factors.items()}
    tasks = [unit.id for unit in test.units(first) if unit.split != "organism-train"]
    questions = tuple(
        Question(Asked(tasks[n % len(tasks)], first), n // len(tasks) + 1, ())
        for n in range(room.config.benign)
    )
    asked = [Arm(one.name, one.edits, questions) for one in arms]
    journal = room.folder / "benign.jsonl"
    return ask(room.lm, test, asked, sampling_of(room.config), journal, "ordinary tasks")


def _costs(
    arm: FrozenArm,
    untouched: FrozenArm,
    effects: Effects | None,
    work: Mapping[str, Sequence[Answered]],
) -> Costs:
    own = work.get(arm.name)
    other = work[UNTOUCHED]
    change: Estimate | None = None
    benign: Estimate | None = None
    if own is not None:
        benign = stats.proportion(sum(one.counts for one in own), len(own))
        change = done_change(own, other).difference if arm is not untouched else None
    return Costs(
        effects=effects,
        parsed=stats.proportion(sum(one.scored for one in arm.answers), len(arm.answers)),
        benign=benign,
        benign_change=change,
        parsed_change=None
        if arm is untouched
        else scored_change(arm.answers, untouched.answers).difference,
    )
