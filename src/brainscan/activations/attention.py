"""Causal attention in bf16 on a processor, through the fast matrix product.

Torch's own kernel multiplies bf16 at about a tenth of the rate of `torch.bmm` on processors
with AVX-512 bf16 and no tile unit: it took half of a forward pass at 1,024 tokens. So, while a
harvest runs, and only for plain causal attention of whole rows:

1. Queries go in blocks of 128; a block is multiplied with the keys up to its own last one, the
   query heads that share a key head in one product.
2. Keys after a query, which only the last square of the block has, get minus infinity.
3. Softmax over the block's keys, then the product with their values.

Scores are rounded to bf16 before the softmax, as transformers' own eager attention does. The model
is untouched: the call is taken over on its way, in this thread, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from brainscan.shapes import Float, Tensor

BLOCK = 128
"""Queries of a block."""


class BlockedAttention(TorchFunctionMode):
    """While entered, plain causal bf16 attention on the processor is computed by blocks."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Takes over the calls it is for and passes on all others."""
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and _is_plain(args, kwargs):
            query, key, value = _operands(args, kwargs)
            return causal_attention(query, key, value, kwargs.get("scale"))
        return func(*args, **kwargs)


def causal_attention(
    query: Float[Tensor, "batch head position d"],
    key: Float[Tensor, "batch key_head position d"],
    value: Float[Tensor, "batch key_head position e"],
    scale: float | None = None,
) -> Float[Tensor, "batch head position e"]:
    """Softmax attention in which each position sees itself and those before it.

    Args:
        query: the queries.
        key: the keys; each of their heads serves as many query heads in a row.
        value: the values.
        scale: multiplies the scores; None for one over the square root of d.
    """
    batch, heads, length, d = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    scale = d**-0.5 if scale is None else scale
    keys = key.reshape(-1, length, d).transpose(1, 2).contiguous()
    values = value.reshape(-1, length, value.shape[-1])
    out = value.new_empty(batch, length, key_heads, groups, value.shape[-1])
    later = query.new_full((BLOCK, BLOCK), float("-inf")).triu(1)
    # One buffer for the scores of every block: fresh memory would cost a third of the time.
    buffer = query.new_empty(batch * heads * min(BLOCK, length) * length)
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        size = stop - start
        scores = buffer[: batch * heads * size * stop].view(-1, groups * size, stop)
        block = (query[:, :, start:stop] * scale).reshape(-1, groups * size, d)
        torch.bmm(block, keys[:, :, :stop], out=scores)
        scores.view(-1, groups, size, stop)[..., start:] += later[:size, :size]
        torch.softmax(scores, dim=-1, out=scores)
        seen = torch.bmm(scores, values[:, :stop])
        seen = seen.view(batch, key_heads, groups, size, -1)
        out[:, start:stop] = seen.permute(0, 3, 1, 2, 4)
    return out.flatten(2, 3).transpose(1, 2)


def _operands(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("query", "key", "value")
    return args[:3] + tuple(kwargs[name] for name in names[len(args[:3]) :])


def _is_plain(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether it is causal attention of whole rows in bf16, without mask or dropout."""
    query, key, _ = _operands(args, kwargs)
    return (
        len(args) <= 3
        and kwargs.get("is_causal", False) is True
        and kwargs.get("attn_mask") is None
        and not kwargs.get("dropout_p", 0.0)
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[-2] == key.shape[-2]
        and not torch.is_grad_enabled()
    )
