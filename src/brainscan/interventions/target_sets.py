"""What an edit of several targets acts on: latents, neurons or directions of one hookpoint.

A set reads all activations at once from the vector as it comes, and writes all changes at once:

- latents: encoded once; written as x + (new - old) @ W_dec[latents], the error term kept;
- neurons: their coordinates, each as `NeuronTarget` reads and writes it;
- directions: unit vectors U that need not be orthogonal; x' = x + pinv(U) (new - old), the smallest
  change after which each component is the new one. Of dependent directions, which cannot all have
  components at will, it comes nearest to them (least squares).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.base import check, name_of
from brainscan.interventions.targets import (
    Direction,
    LatentTarget,
    NeuronTarget,
    bind,
    check_index,
)
from brainscan.models import LanguageModel, families
from brainscan.shapes import Float, Tensor


class TargetSet(Protocol):
    """Reads and writes several activations of each token."""

    @property
    def hookpoint(self) -> str:
        """Where the vectors come from."""

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token target"]:
        """The activations of each token."""

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, "token target"],
        new: Float[Tensor, "token target"],
    ) -> Float[Tensor, "token d"]:
        """The vectors with the activations ``old`` changed to ``new`` and nothing else."""


@dataclass
class LatentSet:
    """Latents of a dictionary; the dictionary follows the vectors to their device."""

    hookpoint: str
    dictionary: Dictionary
    indices: tuple[int, ...]

    def _beside(self, x: Tensor) -> Dictionary:
        if self.dictionary.device != x.device:
            self.dictionary = self.dictionary.to(x.device)
        return self.dictionary

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token target"]:
        """The exact activations, after the sparsifier; other latents go to a last column."""
        dictionary, n = self._beside(x), len(self.indices)
        column = torch.full((dictionary.n_latents,), n, device=x.device)
        column[list(self.indices)] = torch.arange(n, device=x.device)
        code = dictionary.encode(x)
        found = code.values.new_zeros(len(x), n + 1)
        return found.scatter_add(1, column[code.indices], code.values)[:, :n].float()

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, "token target"],
        new: Float[Tensor, "token target"],
    ) -> Float[Tensor, "token d"]:
        """Adds the changes along the decoder rows."""
        return x + (new - old) @ self._beside(x).W_dec[list(self.indices)].float()


@dataclass(frozen=True)
class NeuronSet:
    """Neurons, each with a sign or without."""

    hookpoint: str
    indices: tuple[int, ...]
    signs: tuple[str, ...]

    def _sides(self, x: Tensor) -> Float[Tensor, " target"]:
        return torch.tensor([-1.0 if sign == "-" else 1.0 for sign in self.signs], device=x.device)

    def _signed(self, x: Tensor) -> Tensor:
        return torch.tensor([bool(sign) for sign in self.signs], device=x.device)

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token target"]:
        """The coordinates, or their parts on the sign's side of zero."""
        values = x[:, list(self.indices)] * self._sides(x)
        return torch.where(self._signed(x), values.clamp_min(0), values)

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, "token target"],
        new: Float[Tensor, "token target"],
    ) -> Float[Tensor, "token d"]:
        """Sets the coordinates; what is on the other side of zero stays."""
        columns = torch.tensor(self.indices, device=x.device)
        stays = self._signed(x) & (old == 0) & (new == 0)
        values = torch.where(stays, x[:, columns], new * self._sides(x))
        return x.index_copy(1, columns, values)


@dataclass
class DirectionSet:
    """The components along several directions."""

    hookpoint: str
    directions: tuple[Direction, ...]
    _inverse: Float[Tensor, "d target"] | None = field(default=None, init=False, repr=False)

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token target"]:
        """The components of x - mean, each from its own mean."""
        axes, origin = self._axes(x), torch.zeros(x.shape[1], device=x.device)
        means = [origin if one.mean is None else one.mean for one in self.directions]
        points = torch.stack([mean.to(x.device, torch.float32) for mean in means])
        return x @ axes.T - (points * axes).sum(1)

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, "token target"],
        new: Float[Tensor, "token target"],
    ) -> Float[Tensor, "token d"]:
        """Adds the smallest vector that changes the components so."""
        return x + (new - old) @ self._pseudoinverse(x).T

    def _axes(self, x: Tensor) -> Float[Tensor, "target d"]:
        vectors = [one.vector.to(x.device, torch.float32) for one in self.directions]
        return torch.nn.functional.normalize(torch.stack(vectors), dim=1)

    def _pseudoinverse(self, x: Tensor) -> Float[Tensor, "d target"]:
        """Of the unit vectors; kept, unless they are being trained."""
        if any(one.vector.requires_grad for one in self.directions):
            trained: Tensor = torch.linalg.pinv(self._axes(x))
            return trained
        if self._inverse is None or self._inverse.device != x.device:
            with torch.inference_mode(False):  # kept for passes with gradients too
                self._inverse = torch.linalg.pinv(self._axes(x))
        return self._inverse


def bind_set(
    lm: LanguageModel, targets: tuple[str | Direction, ...], dictionary: Dictionary | None = None
) -> LatentSet | NeuronSet | DirectionSet:
    """Finds what an edit of several targets acts on, on this model.

    Args:
        lm: the model.
        targets: features' addresses or directions, as `check_set` lets them pass.
        dictionary: the latents' dictionary; None is the one shipped for their hookpoint.

    Raises:
        UnknownHookpointError: the model has no such hookpoint.
        UnknownFeatureError: a latent or neuron is out of range.
        DictionaryMismatchError: dictionary or directions are of another width or hookpoint.
    """
    addresses = [Address.parse(target) for target in targets if isinstance(target, str)]
    first = bind(lm, targets[0], dictionary, maximum=0.0)  # no unit is counted in here
    indices = tuple(address.index for address in addresses)
    if isinstance(first, LatentTarget):
        for address in addresses:
            check_index(address, first.dictionary.n_latents, "latents")
        return LatentSet(first.hookpoint, first.dictionary, indices)
    if isinstance(first, NeuronTarget):
        for address in addresses:
            check_index(address, lm.width(first.hookpoint), "neurons")
        return NeuronSet(first.hookpoint, indices, tuple(address.sign for address in addresses))
    directions = tuple(target for target in targets if isinstance(target, Direction))
    for direction in directions:
        bind(lm, direction)
    return DirectionSet(first.hookpoint, directions)


def check_set(targets: tuple[str | Direction, ...], to: Float[Tensor, " target"]) -> None:
    """Refuses what is no set of targets of one kind and hookpoint, with a value for each.

    Args:
        targets: the targets.
        to: the activation that each one gets.

    Raises:
        UsageError: there is none, one is no target or stands there twice, they are of several
            kinds or hookpoints, or the values are of another number or not finite.
    """
    if not isinstance(targets, tuple) or not targets:
        raise UsageError(
            "a tuple of at least one address or Direction",
            repr(targets),
            "name the features or directions of one hookpoint",
        )
    seen: dict[object, str | Direction] = {}
    for target in targets:
        check(target, 0.0)
        if _kind(target) != _kind(targets[0]):
            raise UsageError(
                "features only or directions only, all of one hookpoint",
                f"{name_of(targets[0])} and {name_of(target)}",
                "make a set for each kind and hookpoint",
            )
        identity = target if isinstance(target, Direction) else Address.parse(target).index
        if identity in seen:
            raise UsageError(
                "each feature or direction once, and one side of a neuron at most",
                f"{name_of(seen[identity])} and {name_of(target)}",
                "leave one out; both sides of a neuron are the neuron without a sign",
            )
        seen[identity] = target
    if not isinstance(to, Tensor) or to.shape != (len(targets),):
        raise UsageError(
            f"a tensor of {len(targets)} values, one for each target",
            f"shape {list(to.shape)}" if isinstance(to, Tensor) else repr(to),
            "pass the activation that each target gets",
        )
    finite = to.detach().isfinite()
    if not finite.all():
        number = int((~finite).nonzero()[0])
        raise UsageError(
            "finite values", f"{float(to[number])} for {name_of(targets[number])}", "choose others"
        )


def _kind(target: str | Direction) -> tuple[type, str]:
    """What all targets of a set have in common: being features or directions, and the hookpoint."""
    if isinstance(target, str):
        return str, Address.parse(target).hookpoint
    return Direction, families.canonical(target.hookpoint) or target.hookpoint
