"""Which stretches of text stand for a latent, with its activation at each of their tokens.

1. The top list: its strongest firings, one per document.
2. A uniform sample of its firings, sorted by activation, gives the quantiles; from it come the
   examples of each band of quantiles, at most one per document, those with the lowest lottery
   number first.
3. An example's window is the tokens around its peak, cut at the ends of the context and of the
   document. Activations are kept as shares of the latent's maximum, in steps of 1/255.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainscan.features.code_log import CodeLog
from brainscan.features.firings import Best, Firings, Ints, choose, lottery, ranks

BANDS = ("highest", "90th to 99th percentile", "50th to 90th percentile", "below the median")
"""Names of the groups of examples; an example's band is its index here."""

EDGES = (0.99, 0.9, 0.5)
"""Quantiles that part the bands after the first, falling."""

QUANTILES = (0.1, 0.5, 0.9, 0.99)
"""Quantiles of a latent's activations above zero that an atlas holds."""

TOP = 8
PER_BAND = 3
SAMPLE = 128
"""Firings in the sample of each latent."""

BEFORE = 15
AFTER = 8
"""Tokens of a window before and after its peak."""

_STEPS = 255


class Text(NamedTuple):
    """The text of an atlas, token by token."""

    tokens: Ints
    documents: Ints
    context: int
    """Tokens of a context."""


class Windows(NamedTuple):
    """Examples as columns, by latent, band, and strength."""

    latent: Ints
    band: Ints
    peak: Ints
    """The place of the strongest token."""
    before: Ints
    """How many tokens of the window stand before the peak."""
    activation: NDArray[np.float32]
    shares: list[bytes]
    """The activation at each token of the window, a byte each."""


class Collector:
    """Gathers, over a text, what examples are chosen from."""

    def __init__(self, n_latents: int, seed: int) -> None:
        """Starts empty, for a dictionary of so many latents."""
        self.n_latents = n_latents
        self.seed = seed
        self._top = Best(n_latents, TOP, once_per_document=True)
        self._sample = Best(n_latents, SAMPLE, once_per_document=False)

    def add(self, firings: Firings) -> None:
        """Takes in firings."""
        self._top.add(firings, firings.value.astype(np.float64))
        self._sample.add(firings, -lottery(firings, self.n_latents, self.seed))

    def quantiles(self) -> NDArray[np.float32]:
        """Quantiles of each latent's activations, by latent; 0 where it never fired."""
        firings = self._sorted_sample()
        size = np.bincount(firings.latent, minlength=self.n_latents)
        start = np.cumsum(size) - size
        found = np.zeros((self.n_latents, len(QUANTILES)), np.float32)
        fired = np.flatnonzero(size)
        for column, fraction in enumerate(QUANTILES):
            place = start[fired] + (fraction * (size[fired] - 1)).round().astype(np.int64)
            found[fired, column] = firings.value[place]
        return found

    def examples(self) -> tuple[Firings, Ints]:
        """The firings that stand for each latent, and the band of each."""
        top = self._top.firings()
        sample = self._sorted_sample()
        size = np.bincount(sample.latent, minlength=self.n_latents)[sample.latent]
        fraction = (ranks(sample.latent) + 0.5) / np.maximum(size, 1)
        band = 1 + (fraction < EDGES[1]).astype(np.int64) + (fraction < EDGES[2])
        taken = np.isin(self._pairs(sample), self._pairs(top)) | (fraction > EDGES[0])
        sample, band = sample.take(~taken), band[~taken]
        scores = -lottery(sample, self.n_latents, self.seed)
        kept = choose(sample, sample.latent * len(BANDS) + band, scores, PER_BAND, True)
        firings = Firings.joined([top, sample.take(kept)])
        bands = np.concatenate([np.zeros(len(top.latent), np.int64), band[kept]])
        order = np.lexsort((firings.place, -firings.value, bands, firings.latent))
        return firings.take(order), bands[order]

    def _sorted_sample(self) -> Firings:
        firings = self._sample.firings()
        return firings.take(np.lexsort((firings.place, firings.value, firings.latent)))

    def _pairs(self, firings: Firings) -> Ints:
        return firings.place * self.n_latents + firings.latent


def windows(
    firings: Firings, bands: Ints, text: Text, log: CodeLog, maxima: NDArray[np.float32]
) -> Windows:
    """The windows around firings.

    Args:
        firings: the peaks.
        bands: the band of each.
        text: the text they are in.
        log: the code of the whole text.
        maxima: each latent's maximum, the unit of the shares.
    """
    offsets = np.arange(-BEFORE, AFTER + 1)
    places = firings.place[:, None] + offsets
    inside = (places >= 0) & (places < len(text.tokens))
    clipped = np.clip(places, 0, len(text.tokens) - 1)
    inside &= clipped // text.context == firings.place[:, None] // text.context
    inside &= text.documents[clipped] == firings.document[:, None]
    latents = np.broadcast_to(firings.latent[:, None], places.shape)
    values = np.zeros(places.shape, np.float32)
    values[inside] = log.at(latents[inside], clipped[inside])
    unit = np.maximum(maxima[firings.latent], 1e-12)[:, None]
    steps = np.clip(np.rint(values / unit * _STEPS), 0, _STEPS).astype(np.uint8)
    shares = [row[mask].tobytes() for row, mask in zip(steps, inside, strict=True)]
    before = inside[:, :BEFORE].sum(1)
    return Windows(firings.latent, bands, firings.place, before, firings.value, shares)


def share_values(shares: bytes) -> tuple[float, ...]:
    """Shares as numbers from 0 to 1."""
    return tuple(step / _STEPS for step in shares)
