"""The sparse code of a whole text, on disk while an atlas is made.

Firings are appended batch by batch, each batch sorted by (place, latent). When the examples have
been chosen, `at` looks up single activations again: it reads one batch at a time and finds them by
bisection, so memory stays at one batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainscan.features.firings import Firings, Floats, Ints

_RECORD = np.dtype([("pair", "<i8"), ("value", "<f4")])


class CodeLog:
    """Firings written in order of the text, to be looked up later."""

    def __init__(self, path: Path, n_latents: int) -> None:
        """Starts an empty log.

        Args:
            path: the file; whoever made the log removes it.
            n_latents: how many latents there are.
        """
        self.path = path
        self.n_latents = n_latents
        self._starts = [0]
        self._places: list[int] = []
        path.write_bytes(b"")

    def append(self, firings: Firings, first: int) -> None:
        """Takes in a batch.

        Args:
            firings: all firings of the batch.
            first: the place of the batch's first token; rising from batch to batch.
        """
        pairs = firings.place * self.n_latents + firings.latent
        order = np.argsort(pairs)
        records = np.empty(len(order), _RECORD)
        records["pair"], records["value"] = pairs[order], firings.value[order]
        with self.path.open("ab") as handle:
            handle.write(records.tobytes())
        self._places.append(first)
        self._starts.append(self._starts[-1] + len(records))

    def at(self, latents: Ints, places: Ints) -> Floats:
        """The activation of each latent at each place; 0 where it does not fire."""
        found = np.zeros(len(places), np.float32)
        batches = np.searchsorted(self._places, places, side="right") - 1
        for batch in np.unique(batches):
            here = np.flatnonzero(batches == batch)
            pairs, values = self._read(int(batch))
            if len(pairs):
                wanted = places[here] * self.n_latents + latents[here]
                index = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
                found[here] = np.where(pairs[index] == wanted, values[index], 0.0)
        return found

    def _read(self, batch: int) -> tuple[Ints, Floats]:
        start, stop = self._starts[batch], self._starts[batch + 1]
        records = np.fromfile(
            self.path, _RECORD, count=stop - start, offset=start * _RECORD.itemsize
        )
        return np.ascontiguousarray(records["pair"]), np.ascontiguousarray(records["value"])
