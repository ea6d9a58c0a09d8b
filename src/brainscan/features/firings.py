"""Choosing among the firings of all latents at once, in memory that does not grow with the text.

A firing is one latent being active at one token. `Best` holds, for each latent, the firings of
highest score:

1. A firing that scores no higher than the lowest one held for its latent (which holds all it may)
   is dropped at once; soon that is nearly all of them.
2. The others wait until they are half as many as those held, and join them then; one sort by
   latent and score gives each its rank, and ranks beyond the limit go. So there are few sorts.

With the activation as the score that is the top list, with a hash of latent and place it is a
uniform sample without replacement (Cohen & Kaplan 2007, "Summarizing data using bottom-k
sketches"), the same for any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Scores = NDArray[np.float64]


_FEW = 65_536


class Firings(NamedTuple):
    """Firings as columns of one length."""

    latent: Ints
    value: Floats
    """The activation."""
    place: Ints
    """Which token of the text, counted from its beginning."""
    document: Ints
    """The running number of the token's document."""

    def take(self, index: NDArray[np.bool_] | Ints) -> Firings:
        """Some of the firings."""
        return Firings._make(column[index] for column in self)

    @classmethod
    def joined(cls, parts: Sequence[Firings]) -> Firings:
        """The firings of all parts."""
        return cls(
            np.concatenate([part.latent for part in parts]),
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.place for part in parts]),
            np.concatenate([part.document for part in parts]),
        )

    @classmethod
    def none(cls) -> Firings:
        """No firings."""
        ints = np.zeros(0, np.int64)
        return cls(ints, np.zeros(0, np.float32), ints, ints)


class Best:
    """For each latent, the firings of highest score."""

    def __init__(self, n_latents: int, limit: int, *, once_per_document: bool) -> None:
        """Holds nothing yet.

        Args:
            n_latents: how many latents there are.
            limit: how many firings to hold of each.
            once_per_document: hold only the best firing of each latent in a document.
        """
        self.limit = limit
        self.once_per_document = once_per_document
        self._held = Firings.none()
        self._scores: Scores = np.zeros(0)
        self._waiting: list[tuple[Firings, Scores]] = []
        self._n_waiting = 0
        self._bar = np.full(n_latents, -np.inf)

    def add(self, firings: Firings, scores: Scores) -> None:
        """Takes in firings, each with its score; in order of the text."""
        better = scores > self._bar[firings.latent]
        self._waiting.append((firings.take(better), scores[better]))
        self._n_waiting += int(better.sum())
        if self._n_waiting > max(len(self._scores) // 2, _FEW):
            self._join()

    def firings(self) -> Firings:
        """Those of highest score so far, by latent, best first."""
        self._join()
        return self._held

    def _join(self) -> None:
        parts = [(self._held, self._scores), *self._waiting]
        firings = Firings.joined([part for part, _ in parts])
        scores = np.concatenate([part for _, part in parts])
        kept = choose(firings, firings.latent, scores, self.limit, self.once_per_document)
        self._held, self._scores = firings.take(kept), scores[kept]
        self._waiting, self._n_waiting = [], 0
        last = np.flatnonzero(ranks(self._held.latent) == self.limit - 1)
        self._bar[self._held.latent[last]] = self._scores[last]


def choose(
    firings: Firings, group: Ints, scores: Scores, limit: int, once_per_document: bool
) -> Ints:
    """Where the firings of highest score of each group are, by group, best first.

    Args:
        firings: among which to choose.
        group: the group of each.
        scores: the score of each; of equals, the first in the text wins.
        limit: how many of each group.
        once_per_document: at most one of each group and document.
    """
    order: Ints = np.lexsort((firings.place, -scores, group))
    if once_per_document:
        pair: Ints = np.lexsort((np.arange(len(order)), firings.document[order], group[order]))
        first = order[pair]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (group[first][1:] != group[first][:-1]) | (
            firings.document[first][1:] != firings.document[first][:-1]
        )
        order = order[np.sort(pair[fresh])]
    return order[ranks(group[order]) < limit]


def ranks(group: Ints) -> Ints:
    """The place of each entry in its group, from 0; entries of a group stand together."""
    if not len(group):
        return group
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    sizes = np.diff(np.r_[starts, len(group)])
    return np.arange(len(group)) - np.repeat(starts, sizes)


def lottery(firings: Firings, n_latents: int, seed: int) -> Scores:
    """A number from 0 to 1 for each firing, a hash of its latent, place and the seed (splitmix)."""
    x = (firings.place * n_latents + firings.latent).astype(np.uint64)
    x = x + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53
