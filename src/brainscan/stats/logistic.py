"""Logistic regression, the linear probe of a label."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from brainscan.shapes import Bool, Float, Tensor

_ROUNDS = 100


def logistic_fit(
    x: Float[Tensor, "row d"],
    y: Bool[Tensor, "row c"],
    w: Float[Tensor, "row c"],
    penalty: float,
    rounds: int = _ROUNDS,
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """Weighted logistic regressions, one for each column; weights and biases.

    Args:
        x: what is known of each row.
        y: whether it has the label.
        w: what it counts for.
        penalty: of the squared weights, beside the sum of weighted log-losses.
        rounds: of L-BFGS at most.
    """
    weight = torch.zeros(y.shape[1], x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(y.shape[1], device=x.device, requires_grad=True)
    target = y.float()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=rounds, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        solver.zero_grad()
        scores = x @ weight.T + bias
        worth = F.binary_cross_entropy_with_logits(scores, target, w, reduction="sum")
        total = worth + penalty * weight.square().sum()
        total.backward()
        return float(total.detach())

    with torch.enable_grad():
        solver.step(loss)
    return weight.detach(), bias.detach()
