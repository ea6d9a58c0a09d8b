"""Random features for a control: which ones may stand in for an edit's own.

- A latent must fire at tokens that the edit acts on, sinks left out, and about as often as the
  edit's own: within a factor of two of its firing rate in training text, or among the 20 nearest
  where fewer are. A latent that fires once in a text would need an enormous strength to move it as
  far as a common one.
- A neuron is any other of the layer.
- A direction is a vector of random orientation, through the same mean.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.edits import Edit, ProjectOut, Swap
from brainscan.interventions.targets import Direction, LatentTarget, NeuronTarget, bind
from brainscan.models import LanguageModel
from brainscan.shapes import Float, Tensor

_FACTOR = 2.0
_AT_LEAST = 20
_RAREST = 1e-9
_DIRECTIONS = 8


def draws(
    lm: LanguageModel, edit: Edit, x: Float[Tensor, "token d"], generator: random.Random
) -> Iterator[str | Direction]:
    """Random targets of the same kind as the edit's, in the order to try them.

    Args:
        lm: the model.
        edit: the edit.
        x: vectors of the edited hookpoint that the edit acts on.
        generator: chooses.

    Raises:
        UsageError: no other latent fires there.
    """
    named = edit.a if isinstance(edit, Swap) else edit.target
    target = bind(lm, named, edit.dictionary, edit.maximum)
    if isinstance(target, LatentTarget):
        for index in _latents(target, _own(edit), x, generator):
            if isinstance(edit, ProjectOut):
                row = target.dictionary.W_dec[index]
                yield Direction(target.hookpoint, row, name=f"{target.hookpoint}/{index}")
            else:
                yield str(Address(target.hookpoint, index))
        return
    width = lm.width(target.hookpoint)
    if isinstance(target, NeuronTarget) and not isinstance(edit, ProjectOut):
        others = [index for index in range(width) if index not in _own(edit)]
        for index in generator.sample(others, len(others)):
            yield str(Address(target.hookpoint, index, target.sign))
        return
    mean = named.mean if isinstance(named, Direction) else None
    for _ in range(_DIRECTIONS):
        noise = torch.Generator().manual_seed(generator.getrandbits(63))
        vector = torch.randn(width, generator=noise)
        yield Direction(target.hookpoint, vector, name="random", mean=mean)


def _own(edit: Edit) -> list[int]:
    named = (edit.a, edit.b) if isinstance(edit, Swap) else (edit.target,)
    return [Address.parse(name).index for name in named if isinstance(name, str)]


def _latents(
    target: LatentTarget, own: list[int], x: Float[Tensor, "token d"], generator: random.Random
) -> list[int]:
    """Other latents that fire there about as often, shuffled; any, where the edit never acts."""
    dictionary = target.dictionary
    suited = (dictionary.activation_max > 0).cpu()
    if len(x):
        suited &= _fires(dictionary, x)
    suited[own] = False
    candidates = suited.nonzero()[:, 0]
    if not len(candidates):
        raise UsageError(
            f"another latent of {dictionary.name} that fires on neutral text where the edit acts",
            "none",
            "use a dictionary trained for this model, or edit more positions",
        )
    rates = dictionary.firing_rate.cpu().double().clamp_min(_RAREST).log()
    apart = (rates[candidates] - rates[target.index]).abs()
    nearest = apart.sort().values[: min(_AT_LEAST, len(apart))]
    near: list[int] = candidates[apart <= max(math.log(_FACTOR), float(nearest[-1]))].tolist()
    return generator.sample(near, len(near))


def _fires(dictionary: Dictionary, x: Float[Tensor, "token d"]) -> Tensor:
    code = dictionary.encode(x)
    fires = torch.zeros(dictionary.n_latents, dtype=torch.bool)
    fires[code.indices[code.values > 0].cpu()] = True
    return fires
