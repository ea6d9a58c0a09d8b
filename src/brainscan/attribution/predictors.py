"""How well single directions, and the prompt's words alone, tell harmful decisions from others.

Made on some contexts, judged on others: the share of pairs of a harmful and a harmless context that
are ordered rightly (AUROC), of pairs with the same persona-wording, so that nothing is gained by
knowing the wording. Intervals are over wordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from brainscan import stats
from brainscan.attribution.contexts import Context
from brainscan.attribution.directions import Dense, logistic
from brainscan.attribution.ranking import is_target
from brainscan.shapes import Float, Tensor
from brainscan.stats import Estimate

WORDS = "bag of words"
"""The predictor that sees the prompt's tokens alone, without their order."""


class Predictor(NamedTuple):
    """Something that orders contexts by how harmful the decision is going to be."""

    kind: str
    separates: Estimate


def predictors(
    dense: Sequence[Dense],
    made_on: Sequence[Context],
    judged_on: Sequence[Context],
    x: Float[Tensor, "context d"],
    target: tuple[str, ...],
) -> list[Predictor]:
    """The directions and the bag of words, on contexts that they were not made on.

    Args:
        dense: the directions.
        made_on: the contexts that they were made on.
        judged_on: other contexts.
        x: these contexts' activations where the directions are.
        target: the cell in which harm is done.
    """
    scores = {one.kind: x.float() @ F.normalize(one.direction.vector, dim=0) for one in dense}
    scores |= {one.kind: -scores[one.kind] for one in dense if one.harmful < one.harmless}
    words = _words(made_on, judged_on, target)
    if words is not None:
        scores[WORDS] = words
    return [Predictor(kind, _within(own, judged_on, target)) for kind, own in scores.items()]


def _words(
    made_on: Sequence[Context], judged_on: Sequence[Context], target: tuple[str, ...]
) -> Float[Tensor, " context"] | None:
    """Scores of the second contexts by a logistic regression on the first ones' tokens."""
    prompts = [one.tokens[: one.prompt_length] for one in made_on]
    known = {token: n for n, token in enumerate(dict.fromkeys(t for p in prompts for t in p))}
    counts = torch.stack([_counts(prompt, known) for prompt in prompts])
    weight = logistic(counts, is_target(made_on, target))
    if weight is None:
        return None
    others = [_counts(one.tokens[: one.prompt_length], known) for one in judged_on]
    return torch.stack(others) @ weight


def _counts(tokens: Sequence[int], known: Mapping[int, int]) -> Float[Tensor, " token"]:
    found = torch.zeros(len(known))
    for token in tokens:
        if token in known:
            found[known[token]] += 1
    return found


def _within(
    scores: Float[Tensor, " context"], contexts: Sequence[Context], target: tuple[str, ...]
) -> Estimate:
    """The share of pairs within each unit that are in order."""
    harm, scores = is_target(contexts, target), scores.cpu()
    ordered, pairs = [], []
    for unit in dict.fromkeys(one.unit for one in contexts):
        own = torch.tensor([one.unit == unit for one in contexts])
        n = int((harm & own).sum()) * int((~harm & own).sum())
        if n:
            pairs.append(n)
            ordered.append(n * stats.area(scores[own], harm[own]))
    return stats.ratio(ordered, pairs)
