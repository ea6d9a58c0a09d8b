"""Attention on the way through the user's model: faster in bf16, and over prefixes held once.

Torch's own kernel multiplies bf16 at about a tenth of the rate of `torch.bmm` on processors with
AVX-512 bf16 and no tile unit: it took half of a forward pass at 1,024 tokens. `causal_attention`
goes by blocks instead:

1. Queries go in blocks of 128; a block is multiplied with the keys up to its own last one, the
   query heads that share a key head in one product.
2. Keys after a query, which only the last square of the block has, get minus infinity.
3. Softmax over the block's keys, then the product with their values.

Scores are rounded to the type of the operands before the softmax, as transformers' own eager
attention does.

Rows that go on from one prompt need its keys and values only once. `attend_after_prefix`:

1. The queries of all rows of a prompt are multiplied with its keys in one product, and each row's
   queries with the row's own keys since.
2. The two softmaxes are put together by their maxima and sums, in fp32.

Few queries after many keys that were kept, as in `replay`, pay for the copies of the keys that
transformers makes for query heads that share them. `packed_attention` has torch's kernel see those
heads' queries as more queries of one head; on the processor the result is the same to the bit.

Sources: Juravsky et al. 2024, "Hydragen" (arXiv:2402.05099); Dao et al. 2022, "FlashAttention", for
the merging of partial softmaxes.

The model is untouched: its calls are taken over on their way while a context is entered, in that
thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 128
"""Queries of a block."""

_NAME, _PACKED = "brainscan", "brainscan_packed"


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
    query: Float[Tensor, "batch head query d"],
    key: Float[Tensor, "batch key_head position d"],
    value: Float[Tensor, "batch key_head position e"],
    scale: float | None = None,
) -> Float[Tensor, "batch head query e"]:
    """Softmax attention in which each query sees its own position and those before it.

    Args:
        query: the queries, of the last positions.
        key: the keys; each of their heads serves as many query heads in a row.
        value: the values.
        scale: multiplies the scores; None for one over the square root of d.
    """
    batch, heads, length, d = query.shape
    key_heads, past = key.shape[1], key.shape[2] - length
    groups = heads // key_heads
    scale = d**-0.5 if scale is None else scale
    keys = key.reshape(-1, past + length, d).transpose(1, 2).contiguous()
    values = value.reshape(-1, past + length, value.shape[-1])
    out = value.new_empty(batch, length, key_heads, groups, value.shape[-1])
    later = query.new_full((BLOCK, BLOCK), float("-inf")).triu(1)
    # One buffer for the scores of every block: fresh memory would cost a third of the time.
    buffer = query.new_empty(batch * heads * min(BLOCK, length) * (past + length))
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        size, seen = stop - start, past + stop
        scores = buffer[: batch * heads * size * seen].view(-1, groups * size, seen)
        block = (query[:, :, start:stop] * scale).reshape(-1, groups * size, d)
        torch.bmm(block, keys[:, :, :seen], out=scores)
        scores.view(-1, groups, size, seen)[..., past + start :] += later[:size, :size]
        torch.softmax(scores, dim=-1, out=scores)
        weighted = torch.bmm(scores, values[:, :seen])
        weighted = weighted.view(batch, key_heads, groups, size, -1)
        out[:, start:stop] = weighted.permute(0, 3, 1, 2, 4)
    return out.flatten(2, 3).transpose(1, 2)


class Prefix(NamedTuple):
    """One layer's keys and values of some prompts, and the rows that go on from each."""

    keys: Float[Tensor, "prompt key_head d position"]
    values: Float[Tensor, "prompt key_head position e"]
    padding: Float[Tensor, "prompt position"] | None
    """Added to the scores: minus infinity where a prompt has ended; None where all are as long."""
    members: Int[Tensor, "prompt member"]
    """The rows of each prompt; where they are fewer than another's, the first is repeated."""
    places: Int[Tensor, " row"]
    """Where each row stands in ``members``, flattened."""
    hidden: Float[Tensor, "row position"] | None = None
    """Added to the scores of a row's own keys: minus infinity where there is none; None for all."""


class _Softmax(NamedTuple):
    """A softmax over some of the positions, before it is divided by its sum."""

    weighted: Float[Tensor, "row key_head group e"]
    top: Float[Tensor, "row key_head group"]
    total: Float[Tensor, "row key_head group"]


def attend_after_prefix(
    query: Float[Tensor, "row head query d"],
    key: Float[Tensor, "row key_head position d"],
    value: Float[Tensor, "row key_head position e"],
    prefix: Prefix,
    scale: float | None = None,
) -> Float[Tensor, "row head query e"]:
    """Softmax attention of each row's last tokens to the row's prompt and to what came since.

    Args:
        query: the queries of the same number of last tokens in each row.
        key: each row's own keys since the prompt, those of the queries' tokens the last.
        value: their values.
        prefix: the prompts.
        scale: multiplies the scores; None for one over the square root of d.
    """
    rows, heads, length, d = query.shape
    key_heads = key.shape[1]
    scaled = query.reshape(rows, key_heads, heads // key_heads * length, d) * (
        d**-0.5 if scale is None else scale
    )
    scores = torch.matmul(scaled, key.transpose(2, 3))
    unseen = _unseen(prefix, length, scores)
    if unseen is not None:
        scores.view(rows, key_heads, -1, length, key.shape[2]).add_(unseen[:, None, None])
    near = _softmax(scores, value)
    far = _over_prefix(scaled, prefix)
    top = torch.maximum(near.top, far.top)
    left, right = (near.top - top).exp(), (far.top - top).exp()
    weighted = near.weighted * left[..., None] + far.weighted * right[..., None]
    total = near.total * left + far.total * right
    return (weighted / total[..., None]).to(value.dtype).view(rows, heads, length, -1)


def _unseen(
    prefix: Prefix, length: int, scores: Tensor
) -> Float[Tensor, "_ query position"] | None:
    """What hides keys that are none, and those of later tokens; None where there are no such."""
    own = scores.shape[-1]
    hidden = None if prefix.hidden is None else prefix.hidden[:, None, :own]
    if length == 1:
        return hidden
    later = scores.new_full((length, own), -torch.inf).triu(own - length + 1)[None]
    return later if hidden is None else hidden + later


def _over_prefix(scaled: Float[Tensor, "row key_head group d"], prefix: Prefix) -> _Softmax:
    prompts, members = prefix.members.shape
    key_heads, groups, d = scaled.shape[1:]
    gathered = scaled[prefix.members].transpose(1, 2)  # prompt key_head member group d
    scores = torch.matmul(gathered.reshape(prompts, key_heads, members * groups, d), prefix.keys)
    if prefix.padding is not None:
        scores = scores + prefix.padding[:, None, None]
    found = _softmax(scores, prefix.values)
    by_row = [
        part.view(prompts, key_heads, members, groups, -1).transpose(1, 2).flatten(0, 1)
        for part in found
    ]
    weighted, top, total = (part[prefix.places] for part in by_row)
    return _Softmax(weighted, top[..., 0], total[..., 0])


def _softmax(
    scores: Float[Tensor, "... query position"], values: Float[Tensor, "... position e"]
) -> _Softmax:
    scores = scores.float()
    top = scores.amax(-1)
    shares = scores.sub_(top[..., None]).exp_()
    weighted = torch.matmul(shares.to(values.dtype), values).float()
    return _Softmax(weighted, top, shares.sum(-1))


_prefixes: ContextVar[Mapping[int, Prefix]] = ContextVar("prefixes")


@contextmanager
def own_attention(
    model: PreTrainedModel, prefixes: Mapping[int, Prefix] | None = None
) -> Iterator[None]:
    """While entered, the model attends by the functions of this module.

    Without prefixes it attends causally over whole rows without padding, as when a prompt runs;
    with them each row's tokens attend to its prompt first.

    Args:
        model: a model for which `has_plain_attention` holds.
        prefixes: by the number of the layer.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if _NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
    token = _prefixes.set(prefixes or {})
    try:
        with _implementation(model, _NAME):
            yield
    finally:
        _prefixes.reset(token)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """While entered, query heads that share keys attend to them together, without copies of them.

    Where the model's attention is not plain, nothing changes.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not has_plain_attention(model):
        yield
        return
    if _PACKED not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(_PACKED, _attend_packed)
        ALL_MASK_ATTENTION_FUNCTIONS.register(_PACKED, sdpa_mask)
    with _implementation(model, _PACKED):
        yield


@contextmanager
def _implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def has_plain_attention(model: PreTrainedModel) -> bool:
    """Whether the model's attention is a softmax over scaled products and nothing else.

    That is so where it takes torch's own kernel through transformers' interface: what caps its
    scores or adds sinks of its own cannot. Windows are the cache's business.
    """
    config = model.config.get_text_config()
    return (
        config._attn_implementation == "sdpa"
        and bool(model._supports_attention_backend)
        and getattr(config, "attn_logit_softcapping", None) is None
    )


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; without a mask of its own for this name, it passes none."""
    prefix = _prefixes.get().get(int(module.layer_idx))  # type: ignore[arg-type]
    if prefix is None:
        out = causal_attention(query, key, value, scaling)
    else:
        out = attend_after_prefix(query, key, value, prefix, scaling)
    return out.transpose(1, 2).contiguous(), None


def _attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, length, d = query.shape
    groups = heads // key.shape[1]
    if groups == 1 or attention_mask is None or attention_mask.shape[1] > 1:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return out, None
    out = scaled_dot_product_attention(
        query.reshape(rows, -1, groups * length, d),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, groups, 1),
        scale=scaling,
    )
    return out.view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


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
