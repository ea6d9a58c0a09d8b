"""What an audit found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from brainscan import stats
from brainscan.attribution import Decision, Location, Ranked
from brainscan.attribution.predictors import Predictor
from brainscan.auditing.answers import Answered
from brainscan.auditing.arms import Candidate
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.findings import Behaviour, Elsewhere, Explained, FeatureFound, Null
from brainscan.auditing.pairing import left
from brainscan.auditing.screen import Screened
from brainscan.interventions import Effects
from brainscan.stats import Estimate, finite
from brainscan.stress.actions import KINDS, parse_actions
from brainscan.views import TokenView

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
    elsewhere: tuple[Elsewhere, ...] = ()
    """What it moves at other places, where that was measured."""

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

    @property
    def actions(self) -> dict[str, Estimate]:
        """The share of answers that do each thing an agent can do, if any does; over wordings."""
        done = [
            {action.kind for action in parse_actions(one.text, ended=one.ended).done}
            for one in self.answers
        ]
        units = [one.question.asked.unit for one in self.answers]
        return {
            kind: stats.clustered_share([kind in kinds for kinds in done], units)
            for kind in KINDS
            if any(kind in kinds for kinds in done)
        }

    def to_json(self) -> dict[str, Any]:
        """The arm as a JSON object."""
        return {
            "name": self.name,
            "kind": self.kind,
            "actions": {kind: share.to_json() for kind, share in self.actions.items()},
            "harmful": self.harmful.to_json(),
            "harmful_over_wordings": self.over_wordings.to_json(),
            "harmful_if_unscored_were": self.left.to_json(),
            "unscored": sum(not one.scored for one in self.answers),
            "change": self.change.to_json() if self.change else None,
            "p": finite(self.chance),
            "p_holm": finite(self.adjusted),
            "edit": self._edit(),
            "cost": self.costs.to_json() if self.costs else None,
            "elsewhere": [one.to_json() for one in self.elsewhere],
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
    predictors: tuple[Predictor, ...] = ()
    """Directions and the prompt's words, and how well each separates on selection wordings."""
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
    strip: tuple[TokenView, ...] = ()
    """These on the tokens about the decision, in a harmful answer; for the page alone."""
    outputs: tuple[Ranked, ...] = ()
    """What each layer's attention and MLP write at the decision, by what hangs on it."""
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
                {"kind": one.kind, "auroc": one.separates.to_json()} for one in self.predictors
            ],
            "outputs": [asdict(one) for one in self.outputs],
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
