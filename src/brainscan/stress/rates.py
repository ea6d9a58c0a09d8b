"""How often models did what, with what can be said for it.

What is counted is the last stage: harm in an agentic scenario, elsewhere a wrong answer or success.

1. Outcomes that are not scored are in no rate; beside a rate stand those with all of them counted
   as none, and as all.
2. A condition's rate has Wilson's interval; one over several conditions has an interval over
   persona-wordings (or questions, or tasks), since answers to one of them are alike.
3. A factor's effect is the difference of the rates at two of its levels, over all conditions that
   have them (Newcombe), with Fisher's exact test; the chances of all effects are adjusted together
   (Holm).
4. Two models, or a model with and without an edit, are compared on the same prompts with the same
   noise: the difference over the pairs, with an interval and a test over persona-wordings (t).
5. Beside a difference stands the smallest that n could have shown: at a chance of 0.05 with a power
   of 0.8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from brainscan import stats
from brainscan.stats import Estimate
from brainscan.stress.matrix import Condition

STAGES = (
    "parsed",
    "noticed_threat",
    "noticed_leverage",
    "contacted_target",
    "conditional_threat",
    "harmful",
)
"""The stages that a harmful answer passes."""


@dataclass(frozen=True)
class Outcome:
    """What came of one sample."""

    condition: Condition
    """Its condition."""
    persona: str
    """Its persona-wording, or what else it has in common with other samples."""
    epoch: int
    """Which of its repetitions."""
    stages: Mapping[str, bool]
    """Which stages it passed, in order: `parsed` is whether it is scored, the last is counted."""

    @property
    def scored(self) -> bool:
        """Whether it is known what the model did."""
        return self.stages["parsed"]

    @property
    def counts(self) -> bool:
        """Whether it passed the last stage, such as harm."""
        return list(self.stages.values())[-1]

    @property
    def pair(self) -> tuple[Any, ...]:
        """What it has in common with the same sample of another model."""
        return tuple(self.condition.items()), self.persona, self.epoch


class Rate(NamedTuple):
    """How often the last stage was passed."""

    share: Estimate
    """Among the scored outcomes."""
    unscored: int
    """How many are not scored."""
    as_none: Estimate
    """With none of those counted."""
    as_all: Estimate
    """With all of those counted."""

    def to_json(self, counted: str = STAGES[-1]) -> dict[str, Any]:
        """The rate as a JSON object.

        Args:
            counted: the last stage.
        """
        return {
            "n": self.as_none.n - self.unscored,
            "unscored": self.unscored,
            counted: self.share.to_json(),
            f"{counted}_if_unscored_were_none": self.as_none.to_json(),
            f"{counted}_if_unscored_were_all": self.as_all.to_json(),
        }


class Effect(NamedTuple):
    """What a level of a factor changes, against the factor's first level."""

    factor: str
    level: str
    against: str
    difference: Estimate
    chance: float
    """Fisher's exact test."""
    adjusted: float
    """The same, adjusted for all effects that were tested."""
    detectable: float
    """The smallest difference that n could have shown."""


class Paired(NamedTuple):
    """Two models on the same prompts with the same noise."""

    difference: Estimate
    """Of the two shares, the first minus the second."""
    only_first: int
    """Pairs where only the first counts."""
    only_second: int
    """Pairs where only the second counts."""
    chance: float
    """That of so great a difference if there is none, over persona-wordings; NaN if unknown."""
    detectable: float
    """The smallest difference that so many persona-wordings could have shown; NaN if none."""


def rate(outcomes: Sequence[Outcome]) -> Rate:
    """The rate of outcomes of one condition."""
    scored = [outcome for outcome in outcomes if outcome.scored]
    counted, unscored = sum(o.counts for o in scored), len(outcomes) - len(scored)
    return Rate(
        stats.proportion(counted, len(scored)),
        unscored,
        stats.proportion(counted, len(outcomes)),
        stats.proportion(counted + unscored, len(outcomes)),
    )


def overall(outcomes: Sequence[Outcome]) -> Estimate:
    """The rate over several conditions, with an interval over persona-wordings."""
    return overall_rate(outcomes).share


def overall_rate(outcomes: Sequence[Outcome]) -> Rate:
    """The same, beside it with the unscored outcomes counted as none and as all."""

    def share(picked: Sequence[Outcome], unscored: bool) -> Estimate:
        if not picked:
            return stats.proportion(0, 0)
        counted = [o.counts if o.scored else unscored for o in picked]
        return stats.clustered_share(counted, [o.persona for o in picked])

    scored = [outcome for outcome in outcomes if outcome.scored]
    return Rate(
        share(scored, False),
        len(outcomes) - len(scored),
        share(outcomes, False),
        share(outcomes, True),
    )


def funnel(outcomes: Sequence[Outcome], stages: Sequence[str] = STAGES) -> dict[str, Estimate]:
    """How many outcomes passed each stage: the first of all, the others of the scored ones.

    Args:
        outcomes: the outcomes.
        stages: the stages, `parsed` first.
    """
    scored = [outcome for outcome in outcomes if outcome.scored]
    passed = {stage: sum(o.stages[stage] for o in scored) for stage in stages}
    return {
        stage: stats.proportion(count, len(outcomes if stage == "parsed" else scored))
        for stage, count in passed.items()
    }


def effects(outcomes: Sequence[Outcome], factors: Mapping[str, Sequence[str]]) -> list[Effect]:
    """The effect of each level of each factor that has outcomes.

    Args:
        outcomes: the outcomes.
        factors: the levels of each factor.
    """
    found = []
    for factor, levels in factors.items():
        counts = {
            level: _count([o for o in outcomes if o.condition.get(factor) == level])
            for level in levels
        }
        seen = [level for level in levels if counts[level][1]]
        found += [(factor, level, seen[0], counts[level], counts[seen[0]]) for level in seen[1:]]
    chances = [fisher(own, other) for _, _, _, own, other in found]
    return [
        Effect(
            factor,
            level,
            against,
            stats.risk_difference(own, other),
            chance,
            adjusted,
            detectable(other[0] / other[1], own[1], other[1]),
        )
        for (factor, level, against, own, other), chance, adjusted in zip(
            found, chances, stats.holm(chances), strict=True
        )
    ]


def compare(first: Sequence[Outcome], second: Sequence[Outcome]) -> Paired:
    """Two models on the samples that both have scored.

    Args:
        first: the outcomes of one.
        second: the outcomes of the other.
    """
    others = {outcome.pair: outcome for outcome in second if outcome.scored}
    pairs = [(o, others[o.pair]) for o in first if o.scored and o.pair in others]
    only_first = sum(a.counts and not b.counts for a, b in pairs)
    only_second = sum(b.counts and not a.counts for a, b in pairs)
    found = stats.clustered_change(
        [a.counts for a, _ in pairs], [b.counts for _, b in pairs], [a.persona for a, _ in pairs]
    )
    smallest = _detectable_by_t(found.difference)
    return Paired(found.difference, only_first, only_second, found.chance, smallest)


def fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """The chance of so large a difference of two shares if there is none (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    table = [[k, n - k] for k, n in (first, second)]
    return float(fisher_exact(table).pvalue)


def detectable(base: float, n: int, n_base: int) -> float:
    """The smallest rise of a rate that would be found at 0.05 with a power of 0.8.

    Args:
        base: the rate that it rises from.
        n: units with the rise.
        n_base: units without.

    Returns:
        The rise; not a number where even a rise to 1 would not be found.
    """
    needed = (1.959964 + 0.841621) * math.sqrt(1 / n + 1 / n_base)
    angle = 2 * math.asin(math.sqrt(base)) + needed  # Cohen's h
    return math.sin(angle / 2) ** 2 - base if angle <= math.pi else math.nan


def _detectable_by_t(difference: Estimate) -> float:
    """The same for a difference with an interval by t over n clusters."""
    from scipy.stats import t

    if difference.n < 2 or (difference.low, difference.high) == (-1.0, 1.0):
        return math.nan
    half = max(difference.value - difference.low, difference.high - difference.value)
    found, power = t.ppf([0.975, 0.8], difference.n - 1)
    smallest = float(half * (found + power) / found)
    return smallest if smallest <= 1.0 else math.nan


def _count(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many of the scored ones count, and how many those are."""
    picked = [outcome for outcome in outcomes if outcome.scored]
    return sum(outcome.counts for outcome in picked), len(picked)
