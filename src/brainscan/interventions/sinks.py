"""Which tokens of a running pass are attention sinks: the rule of harvesting, with padding.

The first token of a sequence is one, and so is a token whose norm at the hookpoint is above ten
times the median of its row in that pass. What lies beyond the first token is never a sink when it
is read alone, as in decoding with a cache.
"""

from __future__ import annotations

import torch

from brainscan.activations.harvest import SINK_RATIO
from brainscan.shapes import Bool, Float, Int, Tensor


def sinks_at(
    x: Float[Tensor, "batch position d"], positions: Int[Tensor, "batch position"]
) -> Bool[Tensor, "batch position"]:
    """Whether each token is a sink.

    Args:
        x: the activations at a hookpoint.
        positions: each token's index in its own sequence, -1 for padding; on the same device.
    """
    norms: Tensor = torch.linalg.vector_norm(x.detach(), dim=-1, dtype=torch.float32)
    norms = norms.masked_fill(positions < 0, torch.nan)
    return (positions == 0) | (norms > SINK_RATIO * norms.nanmedian(dim=1, keepdim=True).values)
