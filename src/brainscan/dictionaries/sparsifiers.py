"""Which latents stay active: small functions from preactivations to a support.

- TopK (Makhzani & Frey 2013; Gao et al. 2024): the k largest of each token.
- BatchTopK (Bussmann et al. 2024): the k * tokens largest of the whole batch; at inference a
  threshold takes the batch's place, so that a token's code does not depend on its neighbours.

The largest entries of a long row are found exactly in two rounds: the k largest entries all lie in
the k groups with the largest maxima. On a processor numbers are compared by their bits, each packed
with its place in one integer, so that numpy's vectorised partition finds values and places at once:
nine times faster than ``torch.topk`` on the whole row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from brainscan.dictionaries.sparse import Support
from brainscan.shapes import Float, Int, Tensor

_GROUP = 16
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def largest(pre: Float[Tensor, "token latent"], k: int) -> Int[Tensor, "token k"]:
    """Indices of the k largest entries of each row, in ascending order of index."""
    tokens, latents = pre.shape
    groups = latents // _GROUP
    bits = _BITS.get(pre.dtype)
    small = groups < 2 * k or max(groups, _GROUP * k) > 1 << 16
    if pre.device.type != "cpu" or bits is None or latents % _GROUP or small:
        return pre.topk(k, sorted=False).indices.sort(1).values
    keys = maxima = pre.detach().contiguous().view(bits)
    while maxima.shape[1] > groups:
        halves = maxima.view(tokens, 2, -1)
        maxima = torch.maximum(halves[:, 0], halves[:, 1])
    chosen = _top(maxima, k)
    grouped = keys.view(tokens, _GROUP, groups)
    candidates = grouped.gather(2, chosen[:, None, :].expand(-1, _GROUP, -1))
    place = _top(candidates.view(tokens, _GROUP * k), k)
    indices = torch.from_numpy(np.sort((place // k) * groups + chosen.gather(1, place % k)))
    # The bits of negative numbers run backwards; such rows are rare.
    rest = (keys.gather(1, indices) < 0).any(1).nonzero()[:, 0]
    if rest.numel():
        indices[rest] = pre[rest].topk(k, sorted=False).indices.sort(1).values
    return indices


def _top(keys: Int[Tensor, "token entry"], k: int) -> Int[Tensor, "token k"]:
    """Places of the k largest integers of each row, each packed with its place in one integer."""
    wide, shift = (torch.int32, 16) if keys.dtype == torch.int16 else (torch.int64, 32)
    packed = keys.to(wide).bitwise_left_shift_(shift)
    packed |= torch.arange(keys.shape[1], dtype=wide)
    top = np.partition(packed.numpy(), keys.shape[1] - k, axis=1)[:, -k:]
    return torch.from_numpy(top & 0xFFFF).long()


def topk(pre: Float[Tensor, "token latent"], k: int) -> Support:
    """The k largest latents of each token."""
    indices = largest(pre, k)
    rows = torch.arange(0, indices.numel() + 1, k, device=pre.device)
    return Support(rows, indices.reshape(-1))


def batch_topk(pre: Float[Tensor, "token latent"], k: int) -> Support:
    """The k * tokens largest entries of the whole batch, at most 8 k of one token."""
    tokens, latents = pre.shape
    indices = largest(pre, min(8 * k, latents))
    values = pre.gather(1, indices)
    keep = values.flatten().topk(k * tokens, sorted=False).indices.sort().values
    counts = torch.bincount(keep // indices.shape[1], minlength=tokens)
    rows = torch.zeros(tokens + 1, dtype=torch.int64, device=pre.device)
    rows[1:] = counts.cumsum(0)
    return Support(rows, indices.flatten()[keep])


SPARSIFIERS: dict[str, Callable[[Tensor, int], Support]] = {"topk": topk, "batch-topk": batch_topk}
"""The sparsifier of each name, as used in training."""
