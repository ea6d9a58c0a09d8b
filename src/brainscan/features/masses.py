"""How much of each latent's activation falls on each word, in bounded memory.

1. A batch's firings are summed by (latent, key), a key being a word or a token.
2. Sums wait until they are as many as those already joined, and are joined then: each sum is
   sorted a few times in all, however long the text.
3. Beyond `LIMIT` pairs only the heaviest keys of each latent are held (lossy counting).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainscan.features.firings import Ints, ranks

LIMIT = 6_000_000
"""Pairs beyond which light ones are dropped."""

HELD = 256
"""Keys of a latent that stay when light ones are dropped."""

_SHIFT = 2**32


class Sums(NamedTuple):
    """Sums by latent and key, by latent, heaviest first."""

    latent: Ints
    key: Ints
    mass: NDArray[np.float64]
    """The activation, summed."""
    times: Ints
    """How often the latent fired there."""

    def heaviest(self, limit: int) -> Sums:
        """The heaviest keys of each latent."""
        kept = ranks(self.latent) < limit
        return Sums._make(column[kept] for column in self)


class Masses:
    """Sums of activation by latent and key."""

    def __init__(self) -> None:
        self._joined = _Table.empty()
        self._waiting: list[_Table] = []

    def add(self, latent: Ints, key: Ints, value: NDArray[np.float32]) -> None:
        """Takes in firings; keys are from 0 to 2**32."""
        pairs = latent * _SHIFT + key
        self._waiting.append(
            _summed(pairs, value.astype(np.float64), np.ones(len(pairs), np.int64))
        )
        if sum(len(table.pair) for table in self._waiting) > len(self._joined.pair):
            self._join()

    def sums(self) -> Sums:
        """All sums so far."""
        self._join()
        table = self._joined
        latent, key = np.divmod(table.pair, _SHIFT)
        order = np.lexsort((key, -table.mass, latent))
        return Sums(latent[order], key[order], table.mass[order], table.times[order])

    def _join(self) -> None:
        parts = [self._joined, *self._waiting]
        self._joined = _summed(
            np.concatenate([part.pair for part in parts]),
            np.concatenate([part.mass for part in parts]),
            np.concatenate([part.times for part in parts]),
        )
        self._waiting = []
        if len(self._joined.pair) > LIMIT:
            latent, table = self._joined.pair // _SHIFT, self._joined
            order = np.lexsort((table.pair, -table.mass, latent))
            order = np.sort(order[ranks(latent[order]) < HELD])
            self._joined = _Table._make(column[order] for column in table)


class _Table(NamedTuple):
    pair: Ints
    mass: NDArray[np.float64]
    times: Ints

    @classmethod
    def empty(cls) -> _Table:
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))


def _summed(pair: Ints, mass: NDArray[np.float64], times: Ints) -> _Table:
    pairs, place = np.unique(pair, return_inverse=True)
    masses = np.bincount(place, weights=mass, minlength=len(pairs)).astype(np.float64)
    sums: Ints = np.bincount(place, weights=times, minlength=len(pairs)).astype(np.int64)
    return _Table(pairs, masses, sums)
