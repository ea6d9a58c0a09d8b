"""Random features for a control: which ones may stand in for an edit's own.

- A latent must fire at tokens that the edit acts on, sinks left out, and about as often as the
  edit's own: within a factor of two of its firing rate in training text, or among the 20 nearest
  where fewer are. A latent that fires once in a text would need an enormous strength to move it as
  far as a common one.
- A neuron is any other of the layer.
- A direction is a vector of random orientation, through the same mean.
- For a set of targets one such is drawn for each, none twice and none of the set's own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.edits import AblateSet, Edit, ProjectOut, targets_of
from brainscan.interventions.target_sets import DirectionSet, LatentSet, bind_set
from brainscan.interventions.targets import Direction, LatentTarget, NeuronTarget, bind
from brainscan.models import LanguageModel
from brainscan.shapes import Bool, Float, Tensor

_FACTOR = 2.0
_AT_LEAST = 20
_RAREST = 1e-9
_DIRECTIONS = 8
_SETS = 8


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
    named = targets_of(edit)[0]
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
        yield _random_direction(target.hookpoint, width, mean, generator)


def draw_sets(
    lm: LanguageModel, edit: AblateSet, x: Float[Tensor, "token d"], generator: random.Random
) -> Iterator[tuple[str | Direction, ...]]:
    """Random sets of targets of the same kind as the edit's, in the order to try them.

    Args:
        lm: the model.
        edit: the edit.
        x: vectors of the edited hookpoint that the edit acts on.
        generator: chooses.

    Raises:
        UsageError: there are not as many other latents that fire there, or other neurons.
    """
    own = bind_set(lm, edit.targets, edit.dictionary)
    n, width = len(edit.targets), lm.width(own.hookpoint)
    if isinstance(own, DirectionSet):
        for _ in range(_SETS):
            yield tuple(
                _random_direction(own.hookpoint, width, one.mean, generator)
                for one in own.directions
            )
    elif isinstance(own, LatentSet):
        suited = _suited(own.dictionary, _own(edit), x)
        where = "that fire on neutral text where the edit acts"
        _check_enough(n, int(suited.sum()), f"latents of {own.dictionary.name} {where}")
        for _ in range(_SETS):
            yield _latent_set(own, suited, generator)
    else:
        others = [index for index in range(width) if index not in own.indices]
        _check_enough(n, len(others), f"neurons of {own.hookpoint}")
        for _ in range(_SETS):
            drawn = zip(generator.sample(others, n), own.signs, strict=True)
            yield tuple(str(Address(own.hookpoint, index, sign)) for index, sign in drawn)


def _own(edit: Edit) -> list[int]:
    return [Address.parse(name).index for name in targets_of(edit) if isinstance(name, str)]


def _check_enough(wanted: int, found: int, what: str) -> None:
    if found < wanted:
        raise UsageError(
            f"{wanted} {what} to draw from, besides the edit's own",
            f"{found}",
            "take a smaller set, or edit more positions",
        )


def _random_direction(
    hookpoint: str, width: int, mean: Float[Tensor, " d"] | None, generator: random.Random
) -> Direction:
    noise = torch.Generator().manual_seed(generator.getrandbits(63))
    return Direction(hookpoint, torch.randn(width, generator=noise), name="random", mean=mean)


def _latent_set(
    own: LatentSet, suited: Bool[Tensor, " latent"], generator: random.Random
) -> tuple[str, ...]:
    """For each latent one that fires about as often, of those not taken yet."""
    free, chosen = suited.clone(), []
    for index in own.indices:
        latent = generator.choice(_near(own.dictionary, index, free))
        free[latent] = False
        chosen.append(str(Address(own.hookpoint, latent)))
    return tuple(chosen)


def _latents(
    target: LatentTarget, own: list[int], x: Float[Tensor, "token d"], generator: random.Random
) -> list[int]:
    """Other latents that fire there about as often, shuffled; any, where the edit never acts."""
    suited = _suited(target.dictionary, own, x)
    if not suited.any():
        raise UsageError(
            f"another latent of {target.dictionary.name} that fires on neutral text where the edit "
            "acts",
            "none",
            "use a dictionary trained for this model, or edit more positions",
        )
    near = _near(target.dictionary, target.index, suited)
    return generator.sample(near, len(near))


def _suited(
    dictionary: Dictionary, own: list[int], x: Float[Tensor, "token d"]
) -> Bool[Tensor, " latent"]:
    """Which other latents fire there; any that ever fires, where the edit never acts."""
    suited = (dictionary.activation_max > 0).cpu()
    if len(x):
        suited &= _fires(dictionary, x)
    suited[own] = False
    return suited


def _near(dictionary: Dictionary, index: int, suited: Bool[Tensor, " latent"]) -> list[int]:
    """Those suited latents that fire about as often as one."""
    candidates = suited.nonzero()[:, 0]
    rates = dictionary.firing_rate.cpu().double().clamp_min(_RAREST).log()
    apart = (rates[candidates] - rates[index]).abs()
    nearest = apart.sort().values[: min(_AT_LEAST, len(apart))]
    near: list[int] = candidates[apart <= max(math.log(_FACTOR), float(nearest[-1]))].tolist()
    return near


def _fires(dictionary: Dictionary, x: Float[Tensor, "token d"]) -> Tensor:
    code = dictionary.encode(x)
    fires = torch.zeros(dictionary.n_latents, dtype=torch.bool)
    fires[code.indices[code.values > 0].cpu()] = True
    return fires
