"""Frozen arms on confirmation wordings, by generating, and what each costs.

Every arm answers the same prompts with the same noise; so do some of the random sets, fewer of
them. Costs are measured beside: neutral text and the capability set (`effects`), whether answers
can be scored, and ordinary tasks done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainscan import stats
from brainscan.auditing.answers import Answered, Arm, ask
from brainscan.auditing.config import MOST_ARMS, AuditConfig
from brainscan.auditing.design import Design, Question
from brainscan.auditing.kept import Kept, as_estimate
from brainscan.auditing.pairing import done_change, harm_change, scored_change
from brainscan.auditing.results import Costs, FrozenArm
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
    screened: Screened | None = None
    """The arm as it was screened."""
    edits: tuple[Edit, ...] = ()
    """Its edits."""
    told: bool = False
    """Whether its prompts forbid the behaviour."""
    base: bool = False
    """Whether the base model answers."""


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
    arms = [Frozen(UNTOUCHED, "control")]
    if features is not None:
        zero, flipped = features.candidate.at(0.0), features.candidate.at(-features.strength)
        arms += [
            Frozen(ZERO, "control", edits=zero),
            Frozen(FEATURES, features.candidate.kind, features, features.edits),
            Frozen(FLIPPED, "control", replace(features, strength=-features.strength), flipped),
        ]
    if other is not None:
        arms.append(Frozen(OTHER, other.candidate.kind, other, other.edits))
    if simpler is not None:
        arms.append(Frozen(SIMPLER, simpler.candidate.kind, simpler, simpler.edits))
    if design.forbids:
        arms.append(Frozen(TOLD, "control", told=True))
    if base:
        arms.append(Frozen(BASE, "control", base=True))
    assert len(arms) <= MOST_ARMS
    return arms


def confirm(
    lm: LanguageModel,
    base: LanguageModel | None,
    design: Design,
    target: tuple[str, ...],
    arms: Sequence[Frozen],
    random_sets: Sequence[Screened],
    config: AuditConfig,
    folder: Path,
) -> tuple[list[FrozenArm], list[FrozenArm]]:
    """Lets the frozen arms and some random sets answer; the arms, and the random ones.

    Args:
        lm: the model.
        base: the model without its adapter.
        design: the prompts.
        target: the cell in which harm is done.
        arms: the frozen arms, untouched first.
        random_sets: sets that match the best features.
        config: how many answers.
        folder: where journals are kept.
    """
    n, sampling = config.confirmation, sampling_of(config)
    plain = tuple(design.questions("confirmation", target, n))
    told = (
        tuple(design.questions("confirmation", target, n, forbidden=True)) if design.forbids else ()
    )
    own = [Arm(one.name, one.edits, told if one.told else plain) for one in arms if not one.base]
    few = plain[: config.random_answers]
    own += [Arm(one.candidate.name, one.edits, few) for one in random_sets]
    found = ask(lm, design.test, own, sampling, folder / "confirmation.jsonl", "confirm")
    if base is not None:
        there = [Arm(one.name, (), plain) for one in arms if one.base]
        found |= ask(base, design.test, there, sampling, folder / "base.jsonl", "base model")
    untouched = found[UNTOUCHED]
    changed = {name: harm_change(untouched, answers) for name, answers in found.items()}
    names = [one.name for one in arms if one.name != UNTOUCHED]
    adjusted = dict(zip(names, stats.holm([changed[name].chance for name in names]), strict=True))
    frozen = [
        FrozenArm(
            one.name,
            one.kind,
            tuple(found[one.name]),
            one.screened,
            change=changed[one.name].difference if one.name != UNTOUCHED else None,
            chance=changed[one.name].chance if one.name != UNTOUCHED else math.nan,
            adjusted=adjusted.get(one.name, math.nan),
        )
        for one in arms
    ]
    random_arms = [
        FrozenArm(
            one.candidate.name,
            one.candidate.kind,
            tuple(found[one.candidate.name]),
            one,
            change=changed[one.candidate.name].difference,
            chance=changed[one.candidate.name].chance,
        )
        for one in random_sets
    ]
    return frozen, random_arms


def with_costs(
    lm: LanguageModel,
    arms: Sequence[FrozenArm],
    frozen: Sequence[Frozen],
    config: AuditConfig,
    folder: Path,
    kept: Kept,
) -> list[FrozenArm]:
    """The arms with what they cost.

    Args:
        lm: the model.
        arms: the arms that answered, untouched first.
        frozen: the same before they did.
        config: how thorough.
        folder: where journals are kept.
        kept: what was measured already.
    """
    edited = [one for one in frozen if one.edits and one.name != ZERO]

    def measure() -> list[dict[str, Any]]:
        measured = measure_effects_many(
            lm,
            [one.edits for one in edited],
            passages=neutral_passages(config.cost_passages),
            items=capability_items(config.cost_items),
        )
        return [one.to_json() for one in measured]

    lines = kept("effects", measure)
    found = [Effects(**{k: as_estimate(v) for k, v in line.items()}) for line in lines]
    effects = dict(zip((one.name for one in edited), found, strict=True))
    work = _ordinary(lm, [Frozen(UNTOUCHED, "control"), *edited], config, folder)
    return [replace(arm, costs=_costs(arm, arms[0], effects.get(arm.name), work)) for arm in arms]


def sampling_of(config: AuditConfig) -> Sampling:
    """How an audit's answers are drawn."""
    return Sampling(config.max_new_tokens, config.temperature, seed=config.seed)


def _ordinary(
    lm: LanguageModel, arms: Sequence[Frozen], config: AuditConfig, folder: Path
) -> Mapping[str, list[Answered]]:
    """Ordinary tasks done under each arm."""
    test = load_test("benign")
    first = {factor: levels[0] for factor, levels in test.factors.items()}
    tasks = [unit.id for unit in test.units(first) if unit.split != "organism-train"]
    questions = tuple(
        Question(Asked(tasks[n % len(tasks)], first), n // len(tasks) + 1, ())
        for n in range(config.benign)
    )
    asked = [Arm(one.name, one.edits, questions) for one in arms]
    return ask(lm, test, asked, sampling_of(config), folder / "benign.jsonl", "ordinary tasks")


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
