"""What a dictionary's hookpoint holds for some tokens, and which of them are sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from brainscan.activations import find_sinks
from brainscan.models import capture
from brainscan.models.attention import BlockedAttention
from brainscan.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models import LanguageModel


class Reading(NamedTuple):
    """Activations of some rows of tokens."""

    values: Float[Tensor, "batch position d"]
    sinks: Bool[Tensor, "batch position"]


def read(lm: LanguageModel, tokens: Int[Tensor, "batch position"], hookpoint: str) -> Reading:
    """Runs the model up to a hookpoint.

    Args:
        lm: the model.
        tokens: rows of one length, without padding.
        hookpoint: where to read.
    """
    with (
        torch.inference_mode(),
        BlockedAttention(),
        capture(lm, [hookpoint], stop=True) as captured,
    ):
        lm.model(input_ids=tokens.to(lm.device), use_cache=False)
    values = captured[hookpoint]
    return Reading(values, find_sinks(values))
