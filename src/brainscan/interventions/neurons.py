"""How far neurons go: the largest and smallest activation of each over neutral text.

A latent's maximum comes with its dictionary; a neuron has none, so it is measured once per model
and hookpoint, on the first passages of the neutral set.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from brainscan.interventions.batches import by_length, check_untouched, padded
from brainscan.interventions.sinks import sinks_at
from brainscan.interventions.texts import neutral_passages, passage_tokens
from brainscan.models import LanguageModel, capture
from brainscan.shapes import Float, Tensor

_PASSAGES = 32
_BATCH = 8


class NeuronMaxima(NamedTuple):
    """Each neuron's reach on both sides of zero."""

    largest: Float[Tensor, " neuron"]
    smallest: Float[Tensor, " neuron"]

    def of(self, index: int, sign: str) -> float:
        """The largest size of a neuron's activation, on the side of the sign."""
        high, low = float(self.largest[index]), float(self.smallest[index])
        sides = {"+": high, "-": -low, "": max(high, -low)}
        return max(sides[sign], 0.0)


_measured: WeakKeyDictionary[LanguageModel, dict[str, NeuronMaxima]] = WeakKeyDictionary()


def neuron_maxima(lm: LanguageModel, hookpoint: str) -> NeuronMaxima:
    """Largest and smallest activations over 32 neutral passages, attention sinks left out.

    Args:
        lm: the model.
        hookpoint: one of its ``neurons.L``.

    Raises:
        UsageError: they are not known yet, and the model is being edited.
    """
    known = _measured.setdefault(lm, {})
    if hookpoint not in known:
        known[hookpoint] = _measure(lm, hookpoint)
    return known[hookpoint]


@torch.no_grad()
def _measure(lm: LanguageModel, hookpoint: str) -> NeuronMaxima:
    check_untouched(lm, f"to measure the neurons of {hookpoint} on: or pass a neuron's maximum")
    rows = [passage_tokens(lm, passage).ids for passage in neutral_passages(_PASSAGES)]
    largest = torch.full((lm.width(hookpoint),), -torch.inf)
    smallest = torch.full_like(largest, torch.inf)
    for group in by_length(lm, [len(row) for row in rows], _BATCH):
        batch = padded([rows[index] for index in group], lm.device)
        with capture(lm, [hookpoint], stop=True) as seen:
            lm.forward(batch.ids, batch.mask)
        x, at = seen[hookpoint], batch.positions
        values = x[(at >= 0) & ~sinks_at(x, at)].float().cpu()
        largest = largest.maximum(values.amax(0))
        smallest = smallest.minimum(values.amin(0))
    return NeuronMaxima(largest, smallest)
