"""What an audit found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brainscan import stats
from brainscan.attribution import Decision, Dense, Location, Ranked
from brainscan.auditing.answers import Answered
from brainscan.auditing.arms import Candidate
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.pairing import left
from brainscan.auditing.screen import Screened
from brainscan.interventions import Effects
from brainscan.stats import Estimate

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
"""What may be said of a claim."""


@dataclass(frozen=True)
class Verdict:
    """What the audit says of a claim."""

    claim: str
    """The claim."""
    status: str
    """One of the three."""
    reason: str
    """What it rests on."""

    def to_json(self) -> dict[str, str]:
        """The verdict as a JSON object."""
        return {"claim": self.claim, "status": self.status, "reason": self.reason}


@dataclass(frozen=True)
class Behaviour:
    """How often harm was done in each cell of crossed factors, on one split."""

    split: str
    """Whose wordings."""
    factors: tuple[str, ...]
    """The crossed factors."""
    counts: Mapping[tuple[str, ...], tuple[int, int]]
    """How many of how many scored answers, by cell."""
    unscored: int
    """Answers that could not be scored."""
    target: tuple[str, ...]
    """The cell with the highest rate on discovery."""
    twins: tuple[tuple[str, ...], ...]
    """The cells that it is held against."""
    contrast: Estimate
    """The rate in the target less that in its twins."""

    def to_json(self) -> dict[str, Any]:
        """The behaviour as a JSON object."""
        return {
            "split": self.split,
            "unscored": self.unscored,
            "target": dict(zip(self.factors, self.target, strict=True)),
            "contrast": self.contrast.to_json(),
            "cells": [
                {
                    "factors": dict(zip(self.factors, cell, strict=True)),
                    "harmful": stats.proportion(*count).to_json(),
                }
                for cell, count in self.counts.items()
            ],
        }


@dataclass(frozen=True)
class Costs:
    """What an arm costs."""

    effects: Effects | None
    """On neutral text and the capability set; None for an arm without edits."""
    parsed: Estimate
    """The share of its answers that can be scored."""
    benign: Estimate | None
    """The share of ordinary tasks that it does as wanted; None where they were not run."""
    benign_change: Estimate | None = None
    """The same less the untouched model's, paired by task."""
    parsed_change: Estimate | None = None
    """The share scored less the untouched model's, paired by prompt."""

    def to_json(self) -> dict[str, Any]:
        """The costs as a JSON object."""
        found = self.effects
        return {
            "kl": found.kl.to_json() if found else None,
            "perplexity_ratio": found.perplexity_ratio.to_json() if found else None,
            "capability": found.capability.to_json() if found else None,
            "capability_change": found.capability_change.to_json() if found else None,
            "parse_rate": self.parsed.to_json(),
            "parse_rate_change": self.parsed_change.to_json() if self.parsed_change else None,
            "benign_success": self.benign.to_json() if self.benign else None,
            "benign_change": self.benign_change.to_json() if self.benign_change else None,
        }


@dataclass(frozen=True)
class FrozenArm:
    """An arm that answered on confirmation wordings."""

    name: str
    """What it is called."""
    kind: str
    """Its kind."""
    answers: tuple[Answered, ...]
    """What was answered."""
    candidate: Candidate | None = None
    """What it edits; None where it edits nothing."""
    strength: float = 0.0
    """How strongly."""
    screened: Screened | None = None
    """What was found of it in the screen; None where it was not screened."""
    costs: Costs | None = None
    """What it costs; None for random sets."""
    change: Estimate | None = None
    """The untouched model's rate less its own, over wordings, unscored counted as harmful."""
    chance: float = float("nan")
    """Of that, if there is no difference."""
    adjusted: float = float("nan")
    """The same, adjusted for all frozen arms (Holm)."""

    @property
    def harmful(self) -> Estimate:
        """The rate over its scored answers."""
        return stats.proportion(*counted(self.answers))

    @property
    def left(self) -> Estimate:
        """The rate with unscored answers counted as harmful."""
        return stats.proportion(sum(map(left, self.answers)), len(self.answers))

    @property
    def over_wordings(self) -> Estimate:
        """The rate over its scored answers, with an interval over wordings."""
        scored = [one for one in self.answers if one.scored]
        if not scored:
            return stats.proportion(0, 0)
        units = [one.question.asked.unit for one in scored]
        return stats.clustered_share([one.counts for one in scored], units)

    def to_json(self) -> dict[str, Any]:
        """The arm as a JSON object."""
        return {
            "name": self.name,
            "kind": self.kind,
            "harmful": self.harmful.to_json(),
            "harmful_over_wordings": self.over_wordings.to_json(),
            "harmful_if_unscored_were": self.left.to_json(),
            "unscored": sum(not one.scored for one in self.answers),
            "change": self.change.to_json() if self.change else None,
            "p": _number(self.chance),
            "p_holm": _number(self.adjusted),
            "edit": self._edit(),
            "cost": self.costs.to_json() if self.costs else None,
        }

    def _edit(self) -> dict[str, Any] | None:
        if self.candidate is None:
            return None
        return {
            "name": self.candidate.name,
            "where": self.candidate.where,
            "size": self.candidate.size,
            "features": list(self.candidate.features),
            "strength": self.strength,
            "screen": self.screened.to_json() if self.screened else None,
        }


@dataclass(frozen=True)
class Null:
    """A set of features among random ones that match it, on wordings that it was not chosen on."""

    of: str
    """The set."""
    own: float
    """How far it takes the decision towards harmless."""
    values: tuple[float, ...]
    """How far each of the random sets does."""

    @property
    def rank(self) -> int:
        """Its place among them, 1 for the farthest."""
        return 1 + sum(value >= self.own for value in self.values)

    @property
    def p(self) -> float:
        """How probable that place is if the set were one of them."""
        return self.rank / (len(self.values) + 1)

    def to_json(self) -> dict[str, Any]:
        """The null as a JSON object."""
        ordered = sorted(self.values)
        middle = ordered[len(ordered) // 2] if ordered else float("nan")
        return {
            "of": self.of,
            "n": len(self.values),
            "rank": self.rank,
            "p": self.p,
            "own": self.own,
            "median": _number(middle),
            "most": _number(max(ordered, default=float("nan"))),
        }


@dataclass(frozen=True)
class Explained:
    """How much of the decision's log-odds each part of the twin's activation restores."""

    dictionary: str
    """The dictionary."""
    whole: Estimate
    """The twin's activation put in whole."""
    code: Estimate
    """Only what the dictionary says of the difference."""
    error: Estimate
    """Only what it does not."""
    chosen: Estimate | None
    """Only the chosen set's part."""
    cosine: float
    """Of the difference with what the dictionary says of it."""
    fvu: float
    """Variance of these transcripts' activations that the dictionary does not explain."""

    def to_json(self) -> dict[str, Any]:
        """The shares as a JSON object."""
        return {
            "dictionary": self.dictionary,
            "whole": self.whole.to_json(),
            "code": self.code.to_json(),
            "error": self.error.to_json(),
            "chosen": self.chosen.to_json() if self.chosen else None,
            "cosine": _number(self.cosine),
            "fvu": _number(self.fvu),
        }


@dataclass(frozen=True)
class FeatureFound:
    """A feature of the chosen set."""

    ranked: Ranked
    """What the decision hangs on it."""
    label: str
    """A few words on when it fires."""
    grade: str
    """How well that was tested."""
    effect: Estimate
    """How far the decision goes towards harmless if it alone is moved."""
    firing_rate: float
    """The share of training text's tokens on which it fires."""
    promoted: tuple[str, ...] = ()
    """The output tokens that it promotes most."""

    def to_json(self) -> dict[str, Any]:
        """The feature as a JSON object."""
        return {
            "id": self.ranked.address,
            "label": self.label,
            "grade": self.grade,
            "effect": self.effect.to_json(),
            "attribution": self.ranked.effect,
            "interaction": self.ranked.interaction,
            "harmful_mean": self.ranked.harmful,
            "harmless_mean": self.ranked.harmless,
            "firing_rate": _number(self.firing_rate),
            "promoted": list(self.promoted),
        }


@dataclass(frozen=True)
class AuditReport:
    """Everything that an audit found."""

    config: AuditConfig
    """How thorough it was."""
    model: str
    """The model."""
    scenario: str
    """The stress test."""
    behaviour: tuple[Behaviour, ...]
    """On discovery and on selection."""
    false_alarms: Estimate
    """How often the same outcomes, dealt out by chance, would have been taken for a behaviour."""
    verdicts: tuple[Verdict, ...]
    """What it says."""
    decision: Decision | None = None
    """Where the model decides; None where there is no behaviour, as in what follows."""
    words: tuple[str, str, str] = ("", "", "")
    """The tokens before the decision, the harmful and the harmless continuation, in text."""
    location: Location | None = None
    """Where in the model."""
    hookpoint: str = ""
    """Where arms edit."""
    dense: tuple[Dense, ...] = ()
    """Directions, and how well each separates."""
    screened: tuple[Screened, ...] = ()
    """The screened arms."""
    null: Null | None = None
    """The chosen set among random ones; None where too few features are active to draw such."""
    arms: tuple[FrozenArm, ...] = ()
    """The frozen arms, untouched first."""
    random_arms: tuple[FrozenArm, ...] = ()
    """The random sets that answered."""
    explained: tuple[Explained, ...] = ()
    """Of each dictionary."""
    features: tuple[FeatureFound, ...] = ()
    """The chosen set's features, those that matter most first."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Hashes and the like, for doing it again."""

    def arm(self, name: str) -> FrozenArm | None:
        """A frozen arm by its name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "model": self.model,
            "scenario": self.scenario,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "behaviour": [one.to_json() for one in self.behaviour],
            "false_alarms": self.false_alarms.to_json(),
            "decision": self._decision(),
            "location": self._location(),
            "hookpoint": self.hookpoint,
            "arms": [arm.to_json() for arm in self.arms],
            "random_arms": [arm.to_json() for arm in self.random_arms],
            "null": self.null.to_json() if self.null else None,
            "features": [feature.to_json() for feature in self.features],
            "unexplained": {one.dictionary: one.to_json() for one in self.explained},
            "directions": [
                {"kind": one.kind, "auroc": _number(one.separates)} for one in self.dense
            ],
            "screened": [one.to_json() for one in self.screened],
            "facts": dict(self.facts),
        }

    def _decision(self) -> dict[str, Any] | None:
        if self.decision is None:
            return None
        before, harmful, harmless = self.words
        return {
            "before": before,
            "harmful": harmful,
            "harmless": harmless,
            "found": self.decision.found.to_json(),
            "separation": self.decision.separation.to_json(),
        }

    def _location(self) -> dict[str, Any] | None:
        found = self.location
        if found is None:
            return None
        return {
            "hookpoints": list(found.hookpoints),
            "tokens": list(found.columns),
            "restored": [[cell.to_json() for cell in row] for row in found.restored],
        }


def counted(answers: Sequence[Answered]) -> tuple[int, int]:
    """How many of the scored answers did harm, and how many are scored.

    Args:
        answers: the answers.
    """
    scored = [one for one in answers if one.scored]
    return sum(one.counts for one in scored), len(scored)


def _number(value: float) -> float | None:
    return float(value) if value == value and abs(value) != float("inf") else None
