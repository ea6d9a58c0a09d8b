"""What an edit costs: how far it moves the model on text that it is not about.

On neutral passages the divergence from the untouched model and the change of perplexity, on a
small capability set the share of right answers; `scoring` says how each is computed. Passages and
items are the independent units: intervals are clustered by passage, and the change of capability
is paired by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from brainscan import stats
from brainscan.interventions.edits import Edit
from brainscan.interventions.scoring import PassageSums, score_items, score_passages
from brainscan.interventions.texts import Item, Passage, capability_items, neutral_passages
from brainscan.models import LanguageModel
from brainscan.shapes import Bool, Tensor
from brainscan.stats import Estimate


@dataclass(frozen=True)
class Effects:
    """The cost of a set of edits."""

    kl: Estimate
    """KL(untouched || edited) per token of neutral text, in nats."""

    perplexity_ratio: Estimate
    """Perplexity on neutral text, edited over untouched."""

    capability: Estimate
    """Share of capability items answered rightly with the edits."""

    capability_baseline: Estimate
    """The same share without them."""

    capability_change: Estimate
    """The difference, paired by item."""

    def to_json(self) -> dict[str, Any]:
        """Each estimate as a JSON object."""
        return {item.name: getattr(self, item.name).to_json() for item in fields(self)}


def measure_effects(
    lm: LanguageModel,
    edits: Sequence[Edit],
    *,
    passages: Sequence[Passage] | None = None,
    items: Sequence[Item] | None = None,
    batch: int = 8,
) -> Effects:
    """What a set of edits costs.

    Args:
        lm: the model.
        edits: the edits, applied together.
        passages: neutral text; all 200 of ours when left out.
        items: capability items; all 200 of ours when left out.
        batch: the most passages or items at once.
    """
    return measure_effects_many(lm, [edits], passages=passages, items=items, batch=batch)[0]


def measure_effects_many(
    lm: LanguageModel,
    edit_sets: Sequence[Sequence[Edit]],
    *,
    passages: Sequence[Passage] | None = None,
    items: Sequence[Item] | None = None,
    batch: int = 8,
) -> list[Effects]:
    """What several sets of edits cost, each on its own; the untouched model runs once for all.

    Args:
        lm: the model.
        edit_sets: the sets.
        passages: neutral text; all 200 of ours when left out.
        items: capability items; all 200 of ours when left out.
        batch: the most passages or items at once.
    """
    texts = neutral_passages() if passages is None else passages
    questions = capability_items() if items is None else items
    sums = score_passages(lm, edit_sets, texts, batch)
    correct = score_items(lm, [(), *edit_sets], questions, batch)
    return [_effects(sums, correct, arm) for arm in range(len(edit_sets))]


def _effects(sums: PassageSums, correct: Bool[Tensor, "arm item"], arm: int) -> Effects:
    tokens = sums.tokens.numpy()
    nll_change = stats.ratio(sums.nll_change[arm].numpy(), tokens)
    edited, untouched = correct[arm + 1].int(), correct[0].int()
    n = len(untouched)
    return Effects(
        kl=stats.ratio(sums.kl[arm].numpy(), tokens),
        perplexity_ratio=stats.exponential(nll_change),
        capability=stats.proportion(int(edited.sum()), n),
        capability_baseline=stats.proportion(int(untouched.sum()), n),
        capability_change=stats.paired_risk_difference(
            int((edited & untouched).sum()),
            int((edited > untouched).sum()),
            int((untouched > edited).sum()),
            n,
        ),
    )
