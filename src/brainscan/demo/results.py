"""What the demo's experiment is set to, and what it finds, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from brainscan import stats
from brainscan.demo.texts import CHOOSING_PROMPTS, FOOD, JUDGING_PROMPTS, Concept
from brainscan.errors import UsageError
from brainscan.interventions import Effects, MatchedEdit, format_edit
from brainscan.stats import Estimate

_CHANCE = 0.025


@dataclass(frozen=True)
class ExperimentConfig:
    """The experiment's settings."""

    concept: Concept = FOOD
    """What answers are to speak of."""
    strengths: tuple[float, ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    """In multiples of the latent's largest activation."""
    choosing_strengths: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Those among which the strength is chosen; they and their opposites are among the others."""
    candidates: int = 5
    """How many of the search's results are tried."""
    random_latents: int = 4
    """How many latents the random control has."""
    tokens: int = 32
    """The length of an answer."""
    temperature: float = 0.7
    """Of the sampling."""
    passages: int = 12
    """Neutral passages for the cost and for matching the controls."""
    items: int = 20
    """Capability items for the cost."""
    seed: int = 0
    """Of the sampling and of the random latents."""

    def __post_init__(self) -> None:
        """Checks that what may be chosen is measured, in both directions."""
        needed = {sign * strength for strength in self.choosing_strengths for sign in (1, -1)}
        if not needed <= set(self.strengths):
            raise UsageError(
                f"strengths with {sorted(needed)} among them", f"{self.strengths}", "add them"
            )
        if not (self.choosing_prompts and self.judging_prompts):
            raise UsageError(
                "a concept that the demo's prompts do not speak of themselves",
                f"'{self.concept.name}', which is in all of them",
                "choose rarer words",
            )

    @property
    def choosing_prompts(self) -> tuple[str, ...]:
        """The prompts for choosing, without those that speak of the concept themselves."""
        return tuple(text for text in CHOOSING_PROMPTS if not self.concept.mentioned(text))

    @property
    def judging_prompts(self) -> tuple[str, ...]:
        """The prompts for judging, likewise."""
        return tuple(text for text in JUDGING_PROMPTS if not self.concept.mentioned(text))


class Trial(NamedTuple):
    """One candidate at one strength, on the prompts for choosing."""

    address: str
    strength: float
    share: Estimate


class Choice(NamedTuple):
    """The latent and the strength that the experiment judges."""

    address: str
    strength: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Answers:
    """What an arm wrote."""

    texts: tuple[str, ...]
    """An answer for each prompt."""
    speaks: tuple[bool, ...]
    """Whether each speaks of the concept."""

    @property
    def share(self) -> Estimate:
        """The share that speaks of the concept."""
        return stats.proportion(sum(self.speaks), len(self.speaks))


class Comparison(NamedTuple):
    """Of the prompts where two arms differ, in how many the first speaks of the concept."""

    against: str
    wins: int
    differing: int

    @property
    def share(self) -> Estimate:
        """The share of wins."""
        return stats.proportion(self.wins, self.differing)

    @property
    def chance(self) -> float:
        """How probable so many wins are if a coin decides each prompt (the sign test)."""
        ways = sum(math.comb(self.differing, k) for k in range(self.wins, self.differing + 1))
        return float(ways / 2**self.differing)

    @property
    def supported(self) -> bool:
        """Whether the first arm wins beyond chance."""
        return self.chance < _CHANCE

    @property
    def undecided(self) -> bool:
        """Whether it is ahead by no more than chance allows, or no prompt differs at all."""
        return not self.supported and (2 * self.wins > self.differing or not self.differing)


@dataclass(frozen=True)
class Claim:
    """Something the experiment says, with what it was compared to."""

    text: str
    """The claim."""
    comparisons: tuple[Comparison, ...]
    """One for each control."""

    @property
    def verdict(self) -> str:
        """Supported by every control, or not, or inconclusive."""
        if all(comparison.supported for comparison in self.comparisons):
            return "supported"
        fine = all(comparison.supported or comparison.undecided for comparison in self.comparisons)
        return "inconclusive" if fine else "not supported"


class RandomLatent(NamedTuple):
    """One latent of the random control, at the strength that is judged."""

    match: MatchedEdit
    effects: Effects


@dataclass(frozen=True)
class Findings:
    """Everything the experiment found."""

    config: ExperimentConfig
    """Its settings."""
    choice: Choice
    """The latent and strength that were judged."""
    answers: Mapping[str, Answers]
    """By the arm's name."""
    claims: tuple[Claim, ...]
    """What can be said."""
    effects: Mapping[str, Effects]
    """The cost, by the arm's name."""
    controls: tuple[RandomLatent, ...]
    """The random latents that stood beside the chosen latent at its strength."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as a JSON object."""
        return {
            "settings": asdict(self.config),
            "latent": self.choice.address,
            "strength": self.choice.strength,
            "trials": [
                {"id": trial.address, "strength": trial.strength, "share": trial.share.to_json()}
                for trial in self.choice.trials
            ],
            "arms": [
                {
                    "name": name,
                    "share": answers.share.to_json(),
                    "answers": list(answers.texts),
                    "speaks": list(answers.speaks),
                    "effects": self.effects[name].to_json() if name in self.effects else None,
                }
                for name, answers in self.answers.items()
            ],
            "controls": [
                {
                    "edit": format_edit(control.match.edit),
                    "change_of_norm": {
                        "edit": control.match.change.to_json(),
                        "control": control.match.control_change.to_json(),
                    },
                    "effects": control.effects.to_json(),
                }
                for control in self.controls
            ],
            "claims": [
                {
                    "claim": claim.text,
                    "verdict": claim.verdict,
                    "comparisons": [
                        {
                            "against": comparison.against,
                            "share": comparison.share.to_json(),
                            "chance": comparison.chance,
                        }
                        for comparison in claim.comparisons
                    ],
                }
                for claim in self.claims
            ],
        }


UNTOUCHED, ASKED = "untouched", "asked in words"


def latent_at(strength: float) -> str:
    """The name of the arm that clamps the chosen latent."""
    return f"latent at {strength:g}x"


def random_at(strength: float) -> str:
    """The name of the arm that clamps a random latent with the same change of norm."""
    return f"random latent, matched to {strength:g}x"


def asked_and(arm: str) -> str:
    """The name of an arm that is asked for the concept as well."""
    return f"{ASKED}, {arm}"
