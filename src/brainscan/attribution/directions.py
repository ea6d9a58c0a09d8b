"""Dense rivals of a set of features: single directions at a hookpoint, from the same data.

With x the activations at the decision, harmful ones and harmless ones of twins:

- difference of means: mean(harmful) - mean(harmless);
- difference in differences, where two factors are crossed and harm needs both:
  mean(11) - mean(10) - mean(01) + mean(00). A plain difference also holds what one factor alone
  changes, which is only its topic;
- logistic probe: the weights of a logistic regression with an L2 penalty, on standardised x;
- PCA: the first principal component of x, turned towards harmful;
- output direction: the harmful tokens' rows of the unembedding less the harmless ones'; only at
  hookpoints that write into the residual stream.

Each comes with where harmful and harmless activations lie on it, so that an edit can move one to
the other (`AblateSet`).

`detector` tells the harmful decision from harmless ones and from the tokens before it: a logistic
probe, with the threshold halfway between the mean of the first and the highest of the others but
one in a thousand. A direction that only tells the two decisions apart fires all over the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from brainscan.attribution.contexts import Context
from brainscan.features.outputs import unembedding
from brainscan.interventions import Direction, Probe
from brainscan.models import LanguageModel
from brainscan.shapes import Bool, Float, Tensor
from brainscan.stats.logistic import logistic_fit

_PENALTY = 1e-2
_ALL_BUT = 0.999
_ROUNDS = 200


@dataclass(frozen=True)
class Dense:
    """A direction, and where activations lie on it."""

    kind: str
    """How it was made."""
    direction: Direction
    """The direction."""
    harmful: float
    """The mean component of harmful activations along its unit vector."""
    harmless: float
    """The mean component of harmless ones."""


def dense_directions(
    lm: LanguageModel,
    hookpoint: str,
    x: Float[Tensor, "context d"],
    contexts: Sequence[Context],
    target: tuple[str, ...],
) -> list[Dense]:
    """All of them, at a hookpoint.

    Args:
        lm: the model, for the output direction.
        hookpoint: where.
        x: the activations at each context's last token.
        contexts: the contexts.
        target: the cell in which harm is done; the others hold its twins.
    """
    x = x.float()
    harm = torch.tensor([one.cell == target for one in contexts])
    made = {
        "difference of means": x[harm].mean(0) - x[~harm].mean(0),
        "difference in differences": interaction(x, contexts, target),
        "logistic probe": logistic(x, harm),
        "first principal component": _principal(x),
        "output direction": _output(lm, contexts) if x.shape[1] == lm.d_model else None,
    }
    return [
        placed(Direction(hookpoint, vector.detach(), name=kind), x, harm)
        for kind, vector in made.items()
        if vector is not None and float(vector.norm()) > 0
    ]


def placed(
    direction: Direction, x: Float[Tensor, "context d"], harm: Bool[Tensor, " context"]
) -> Dense:
    """A direction with where harmful and harmless activations lie on it.

    Args:
        direction: the direction; its name is what it is called.
        x: activations.
        harm: which are harmful.
    """
    components = x.float() @ F.normalize(direction.vector.to(x.device).float(), dim=0)
    kind = direction.name or "a direction"
    return Dense(kind, direction, float(components[harm].mean()), float(components[~harm].mean()))


def detector(
    hookpoint: str, decided: Float[Tensor, "context d"], others: Float[Tensor, "token d"]
) -> Probe:
    """What fires at a harmful decision and nowhere else.

    Args:
        hookpoint: where it reads.
        decided: activations at harmful decisions.
        others: at harmless ones, and at other tokens.
    """
    x = torch.cat([decided, others]).float()
    harm = torch.arange(len(x)) < len(decided)
    vector = logistic(x, harm)
    if vector is None:
        vector = decided.float().mean(0)
    unit = F.normalize(vector, dim=0)
    scores = x @ unit
    highest = scores[~harm].quantile(_ALL_BUT) if len(others) else scores.min()
    middle = float(scores[harm].mean() + highest) / 2
    return Probe(Direction(hookpoint, unit, name="detector"), bias=-middle)


def interaction(
    x: Float[Tensor, "context _"], contexts: Sequence[Context], target: tuple[str, ...]
) -> Float[Tensor, " _"] | None:
    """The difference in differences of means; None unless two factors are crossed.

    Args:
        x: a vector for each context.
        contexts: the contexts.
        target: the cell in which harm is done.
    """
    if len(target) != 2:
        return None
    means: dict[tuple[bool, bool], Tensor] = {}
    for first in (True, False):
        for second in (True, False):
            kept = torch.tensor(
                [
                    (one.cell[0] == target[0]) == first and (one.cell[1] == target[1]) == second
                    for one in contexts
                ]
            )
            if not kept.any():
                return None
            means[first, second] = x[kept].mean(0)
    return means[True, True] - means[True, False] - means[False, True] + means[False, False]


def logistic(
    x: Float[Tensor, "context d"], harm: Bool[Tensor, " context"]
) -> Float[Tensor, " d"] | None:
    """The weights of a logistic regression with an L2 penalty, both classes as heavy.

    Args:
        x: a vector for each context; the penalty is on what is standardised.
        harm: which contexts are harmful; None comes back where all are alike.
    """
    if not harm.any() or harm.all():
        return None
    spread = x.std(0).clamp_min(1e-6)
    scaled = (x - x.mean(0)) / spread
    n, own = len(harm), harm.to(x.device)
    counts = torch.where(own, (~own).sum() / own.sum(), 1.0) / n
    weight, _ = logistic_fit(scaled, own[:, None], counts[:, None], _PENALTY / 2, _ROUNDS)
    return weight[0] / spread


def _principal(x: Float[Tensor, "context d"]) -> Tensor:
    components: Tensor = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh
    return components[0]


def _output(lm: LanguageModel, contexts: Sequence[Context]) -> Tensor:
    rows = unembedding(lm).detach()
    each = [
        rows[list(one.harmful)].mean(0) - rows[list(one.harmless)].mean(0)
        for one in dict.fromkeys(contexts)
    ]
    return torch.stack(each).mean(0)
