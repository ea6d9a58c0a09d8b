"""Screening arms on selection wordings, by the decision's log-odds, without sampling.

With L the mean log-odds over the target's contexts, L0 untouched and H over the harmless ones:

    share = (L0 - L) / (L0 - H)

0 where an arm changes nothing, 1 where it takes the decision to where harmless contexts have it.
Beside it stands how far the same edit moves harmless contexts, which have nothing to mend.

Strength is set by cost. KL from the untouched model on neutral text grows with the square of a
small strength; it is measured at strength 1, and an arm is screened at 1 and at the strengths where
its KL would reach each budget, up to `MOST` times. Arms are compared within a budget. What the
chosen ones really cost is measured again, by `effects`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from brainscan import stats
from brainscan.attribution import Context, log_odds
from brainscan.attribution.ranking import is_target
from brainscan.auditing.arms import DECISION, Candidate
from brainscan.auditing.kept import Kept
from brainscan.interventions import Edit, neutral_passages
from brainscan.interventions.scoring import score_passages
from brainscan.models import Intervention, LanguageModel
from brainscan.models.replay import Replay
from brainscan.progress import progress
from brainscan.shapes import Float, Tensor
from brainscan.stats import Estimate

MOST = 3.0
"""The greatest strength."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Screened:
    """An arm at a strength, and what it did to the decision."""

    candidate: Candidate
    """The arm."""
    strength: float
    """How strongly it was edited."""
    kl: float
    """The KL on neutral text that is expected of it, nats per token."""
    share: Estimate
    """How far it takes the decision of harmful contexts towards harmless."""
    harmless: Estimate
    """How far it moves harmless contexts' log-odds, as a share of the same way."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Its edits."""
        return self.candidate.edits(self.strength)

    @property
    def merit(self) -> float:
        """What arms are compared by: how near it comes, and no further."""
        return min(self.share.value, 1.0) - abs(self.harmless.value)

    def to_json(self) -> dict[str, Any]:
        """The arm as a JSON object."""
        return {
            "name": self.candidate.name,
            "kind": self.candidate.kind,
            "where": self.candidate.where,
            "size": self.candidate.size,
            "features": list(self.candidate.features),
            "strength": self.strength,
            "expected_kl": self.kl,
            "share": self.share.to_json(),
            "harmless": self.harmless.to_json(),
        }


@dataclass(frozen=True)
class Bench:
    """Contexts that arms are tried on."""

    lm: LanguageModel
    """The model."""
    states: Mapping[str, Replay]
    """The contexts' states at the arms' hookpoint, by where arms act."""
    contexts: tuple[Context, ...]
    """The contexts, of the target and of its twins."""
    target: tuple[str, ...]
    """The cell in which harm is done."""

    @torch.no_grad()
    def odds(self, where: str, edits: Sequence[Intervention] = ()) -> Float[Tensor, " context"]:
        """The log-odds of every context under edits.

        Args:
            where: where they act.
            edits: the edits.
        """
        states = self.states[where]
        return log_odds(states.run(edits) if edits else states.logits, self.contexts)

    def gap(self, where: str) -> float:
        """How far harmful contexts' log-odds lie above harmless ones', untouched.

        Args:
            where: where arms act.
        """
        before, harm = self.odds(where), is_target(self.contexts, self.target)
        return float(before[harm].mean() - before[~harm].mean())

    def shares(self, where: str, edits: Sequence[Intervention]) -> tuple[Estimate, Estimate]:
        """How far edits take harmful contexts towards harmless, and move harmless ones.

        Args:
            where: where they act.
            edits: the edits.
        """
        before, after = self.odds(where), self.odds(where, edits)
        harm = is_target(self.contexts, self.target)
        moved = (before - after) / self.gap(where)
        units = [one.unit for one in self.contexts]
        return _mean(moved, harm, units), _mean(moved, ~harm, units)


def screen(
    bench: Bench,
    candidates: Sequence[Candidate],
    budgets: Sequence[float],
    passages: int,
    kept: Kept,
) -> list[Screened]:
    """Tries every arm at strength 1 and at the strengths that its cost allows.

    Args:
        bench: the contexts.
        candidates: the arms.
        budgets: KL on neutral text, nats per token.
        passages: how many neutral passages the KL is measured on.
        kept: what was measured already.
    """
    names = ", ".join(one.name for one in candidates)
    costs = kept(f"kl of {names}", lambda: _costs(bench.lm, candidates, passages))
    found = []
    with progress("screen arms", len(candidates), "arms") as advance:
        for candidate, cost in zip(candidates, costs, strict=True):
            for strength in strengths(cost, budgets):
                found.append(_tried(bench, candidate, strength, cost * strength**2, kept))
            advance(1)
    return found


def _tried(bench: Bench, candidate: Candidate, strength: float, kl: float, kept: Kept) -> Screened:
    def measure() -> list[dict[str, Any]]:
        return [one.to_json() for one in bench.shares(candidate.where, candidate.at(strength))]

    found = kept(f"share of {candidate.name} x{strength:g}", measure)
    share, harmless = map(Estimate.from_json, found)
    return Screened(candidate, strength, kl, share, harmless)


def strengths(cost: float, budgets: Sequence[float]) -> list[float]:
    """Strengths to try: 1, and where the KL would reach each budget.

    Args:
        cost: the KL at strength 1.
        budgets: the budgets.
    """
    reached = [min(MOST, math.sqrt(budget / cost)) if cost > 0 else 1.0 for budget in budgets]
    return sorted({1.0, *(round(one, 3) for one in reached)})


def best(found: Sequence[Screened], budget: float) -> Screened | None:
    """The arm that does best within a budget; of those nearly as good, the one of fewest parts.

    Args:
        found: screened arms.
        budget: the most KL on neutral text.
    """
    within = [one for one in found if one.kl <= budget * 1.01 + _ROUNDING]
    if not within:
        return None
    enough = max(one.merit for one in within) - 0.05
    good = [one for one in within if one.merit >= enough]
    return min(good, key=lambda one: (one.candidate.size, abs(one.strength - 1), -one.merit))


def _costs(lm: LanguageModel, candidates: Sequence[Candidate], passages: int) -> list[float]:
    """The KL of each arm at strength 1; none is measured where the detector never fires."""
    found = dict.fromkeys(candidates, 0.0)
    for where in dict.fromkeys(one.where for one in candidates):
        arms = [one for one in candidates if one.where == where]
        if where == DECISION:
            largest = max(arms, key=lambda one: one.size)
            if expected_kl(lm, [largest.at(1.0)], passages) == [0.0]:
                continue
        costs = expected_kl(lm, [one.at(1.0) for one in arms], passages)
        found |= dict(zip(arms, costs, strict=True))
    return [found[one] for one in candidates]


def expected_kl(
    lm: LanguageModel, edit_sets: Sequence[Sequence[Intervention]], passages: int
) -> list[float]:
    """KL from the untouched model on neutral text, nats per token.

    Args:
        lm: the model.
        edit_sets: the sets of edits.
        passages: how many passages.
    """
    if not edit_sets:
        return []
    sums = score_passages(lm, edit_sets, neutral_passages(passages), 16)
    total: list[float] = (sums.kl.sum(1) / sums.tokens.sum()).tolist()
    return [max(0.0, value) for value in total]


def _mean(values: Float[Tensor, " context"], kept: Tensor, units: Sequence[str]) -> Estimate:
    chosen = kept.nonzero()[:, 0].tolist()
    return stats.mean([float(values[n]) for n in chosen], [units[n] for n in chosen])
