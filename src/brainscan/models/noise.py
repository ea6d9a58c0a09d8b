"""Drawing tokens with noise that is a function of where it is used, not of when.

1. Each token j of a row gets a uniform number w_j: a hash of the row's seed, of the index of the
   token being generated, and of j. Nothing else enters, so neither the batch around a row, nor the
   device, nor an edit of the model changes it: two arms with one seed are coupled by their noise.
2. The token with the largest ``logit_j / temperature - log(-log(1 - w_j))`` is drawn, which is a
   draw from ``softmax(logits / temperature)`` (the Gumbel-max trick; Maddison, Tarlow, Minka 2014).
3. The most probable token gets some score b. Another one can only pass it if
   ``1 - exp(-exp(logit_j / temperature - b)) > w_j``, hence only if
   ``exp(logit_j / temperature - b) > w_j``. The logarithms are taken for those few tokens alone.

The hash is a table of hashed token ids, into which two multiply-xorshift rounds (constants from
Wellons' hash-prospector) mix 64 bits that splitmix64 (Steele, Lea, Flood 2014) makes from seed and
index. It runs in wrapping 32-bit integers, the same on every device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from brainscan.shapes import Float, Int, Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0x21F0AAAD, 0x735A2D97)
_WORDS = 2.0**32
_CACHED = 2**18  # numbers that stay in a processor's cache

# Step 3 compares words, which lie between -2**31 and 2**31, with some slack for float32.
_REACH = math.log(_WORDS * (1 + 1e-3))
_BEHIND = 512 - _WORDS / 2


def row_seeds(seed: int, rows: int) -> list[int]:
    """A seed for each row of a call: the first row has the call's own, the others hashes of it."""
    return [seed if row == 0 else _splitmix(_splitmix(seed) ^ row) for row in range(rows)]


def draw(
    logits: Float[Tensor, "row vocab"],
    seeds: Sequence[int],
    index: int | Sequence[int],
    temperature: float,
    top_p: float = 1.0,
    top_k: int = 0,
) -> Int[Tensor, " row"]:
    """One token per row.

    Args:
        logits: of the next token.
        seeds: of each row.
        index: how many tokens were generated before this one, in all rows or in each.
        temperature: 0 takes the most probable token.
        top_p: only the most probable tokens that together have this probability are drawn from.
        top_k: only so many of the most probable tokens are drawn from, and those as probable as
            the last of them; 0 for all. It comes before top_p.
    """
    if temperature == 0:
        return logits.max(-1).indices
    rows, vocab = logits.shape
    step = max(1, _CACHED // vocab) if logits.device.type == "cpu" else rows
    indices = [index] * rows if isinstance(index, int) else index
    parts = []
    for start in range(0, rows, step):
        own = slice(start, start + step)
        part = logits[own]
        if 0 < top_k < vocab:
            part = part.masked_fill(part < part.topk(top_k).values[:, -1:], -torch.inf)
        parts.append(_draw(part, seeds[own], indices[own], temperature, top_p))
    return torch.cat(parts)


def _draw(
    logits: Float[Tensor, "row vocab"],
    seeds: Sequence[int],
    indices: Sequence[int],
    temperature: float,
    top_p: float,
) -> Int[Tensor, " row"]:
    best, leader = logits.max(-1, keepdim=True)
    scaled = (logits.float() - best.float()) / temperature
    if top_p < 1:
        scaled = _nucleus(scaled, top_p)
    vocab = scaled.shape[1]
    words = uniform_words(seeds, indices, vocab, scaled.device)
    bar = gumbel(words.gather(1, leader))
    chance = (scaled - (bar - _REACH).float()).exp_().add_(_BEHIND)
    rows, tokens = (words <= chance).nonzero(as_tuple=True)
    scores = scaled[rows, tokens].double() + gumbel(words[rows, tokens])
    top = torch.full_like(bar[:, 0], -torch.inf).scatter_reduce(0, rows, scores, "amax")
    wins = scores == top[rows]
    chosen = torch.full_like(leader[:, 0], vocab)
    chosen = chosen.scatter_reduce(0, rows[wins], tokens[wins], "amin")
    return torch.where(chosen < vocab, chosen, leader[:, 0])  # the leader where logits are NaN


def uniform_words(
    seeds: Sequence[int], indices: Sequence[int], vocab: int, device: torch.device
) -> Int[Tensor, "row vocab"]:
    """32 random bits for each token of each row, as signed integers."""
    keys = [_splitmix(_splitmix(s) + n) for s, n in zip(seeds, indices, strict=True)]
    low, high = (
        torch.tensor([[_signed(key >> shift)] for key in keys], dtype=torch.int32, device=device)
        for shift in (0, 32)
    )
    first, second = _MULTIPLIERS
    words = (_table(vocab, device) ^ low).mul_(first)
    spare = torch.empty_like(words)
    _shift_xor(words, 16, spare).bitwise_xor_(high).mul_(second)
    return _shift_xor(words, 15, spare)


def gumbel(words: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard Gumbel noise from random bits; the smallest word gives the largest noise."""
    uniform = (words.double() + (_WORDS + 1) / 2) / _WORDS
    return -torch.log(-torch.log1p(-uniform))


@functools.lru_cache(maxsize=8)
def _table(vocab: int, device: torch.device) -> Int[Tensor, " vocab"]:
    """A fixed random word for each token id."""
    ids = torch.arange(vocab, dtype=torch.int32)
    spare = torch.empty_like(ids)
    for multiplier in _MULTIPLIERS:
        _shift_xor(ids.add_(_signed(_GOLDEN)), 16, spare).mul_(multiplier)
    return _shift_xor(ids, 15, spare).to(device)


def _shift_xor(words: Tensor, shift: int, spare: Tensor) -> Tensor:
    """``words ^= words >> shift`` in place, shifting zeros in."""
    torch.bitwise_right_shift(words, shift, out=spare)
    return words.bitwise_xor_(spare.bitwise_and_((1 << (32 - shift)) - 1))


def _signed(word: int) -> int:
    """The lowest 32 bits as a signed integer."""
    return ((word & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _splitmix(state: int) -> int:
    """64 well-mixed bits from any integer."""
    mask = 0xFFFFFFFFFFFFFFFF
    state = (state + _GOLDEN) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def _nucleus(scaled: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Leaves the smallest set of tokens that reaches ``top_p``; equal logits stay together."""
    probabilities = scaled.softmax(-1)
    rare = (1 - top_p) / scaled.shape[1]  # all tokens below it are together less than 1 - top_p
    limits = []
    for row in probabilities:
        mass = row[row >= rare].sort(descending=True).values
        inside = (mass.cumsum(0) - mass < top_p).sum()
        limits.append(mass.gather(0, (inside - 1).clamp(min=0)[None]))
    return scaled.masked_fill(probabilities < torch.stack(limits), -torch.inf)
