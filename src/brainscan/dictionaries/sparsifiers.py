"""Which latents stay active: small functions from preactivations to a support.

- TopK (Makhzani & Frey 2013; Gao et al. 2024): the k largest of each token.
- BatchTopK (Bussmann et al. 2024): the k * tokens largest of the whole batch; at inference a
  threshold takes the batch's place, so that a token's code does not depend on its neighbours.

The largest entries of a long row are found exactly in two rounds, several times faster than by
``torch.topk`` on the whole row: the k largest entries all lie in the k groups with the largest
maxima.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from brainscan.dictionaries.sparse import Support
from brainscan.shapes import Float, Int, Tensor

_GROUP = 16


def largest(pre: Float[Tensor, "token latent"], k: int) -> Int[Tensor, "token k"]:
    """Indices of the k largest entries of each row, in ascending order of index."""
    tokens, latents = pre.shape
    groups = latents // _GROUP
    if pre.device.type != "cpu" or latents % _GROUP or groups < 2 * k:
        return pre.topk(k, sorted=False).indices.sort(1).values
    grouped = pre.view(tokens, _GROUP, groups)
    chosen = grouped.amax(1).topk(k, sorted=False).indices
    candidates = grouped.gather(2, chosen[:, None, :].expand(-1, _GROUP, -1))
    place = candidates.view(tokens, _GROUP * k).topk(k, sorted=False).indices
    indices = (place // k) * groups + chosen.gather(1, place % k)
    return indices.sort(1).values


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
