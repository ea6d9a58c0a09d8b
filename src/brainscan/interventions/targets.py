"""What an edit acts on: a latent, a neuron or a direction, bound to a model.

A target reads an activation from a token's vector and writes a changed one back, touching nothing
else of the vector:

- a latent: its exact activation, after the sparsifier; written as x + (new - old) * W_dec[latent],
  so that what the dictionary does not explain (its error term) stays as it was;
- a neuron: its coordinate; with a sign, the part of the coordinate on that side of zero;
- a direction: the component of x - mean along the unit vector.

Strengths are multiples of a unit: the largest activation seen in training text for a latent
(`activation_max`), the largest over neutral text for a neuron, the token's own norm for a
direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import DictionaryMismatchError, UnknownFeatureError, UsageError
from brainscan.interventions.neurons import neuron_maxima
from brainscan.models import LanguageModel
from brainscan.shapes import Float, Tensor

_NEURONS = "neurons."
_loaded: WeakKeyDictionary[LanguageModel, dict[str, Dictionary]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector at a hookpoint: a difference of means, a probe, a decoder's row."""

    hookpoint: str
    """Where it lives."""

    vector: Float[Tensor, " d"]
    """The vector; its length does not matter to an edit."""

    name: str = ""
    """What it is called: the file it came from, or a word for what it stands for."""

    mean: Float[Tensor, " d"] | None = None
    """The point that components are measured from; None is the origin."""

    def __post_init__(self) -> None:
        norm = float(self.vector.detach().float().norm())
        if not 0 < norm < float("inf"):
            raise UsageError(
                f"a direction {self.name!r} of finite length above 0",
                f"length {norm}",
                "check how it was made",
            )
        if self.mean is not None and self.mean.shape != self.vector.shape:
            raise UsageError(
                f"a mean of the direction's width {len(self.vector)}",
                f"width {len(self.mean)}",
                "take both from the same hookpoint",
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Direction):
            return NotImplemented
        if (self.hookpoint, self.name) != (other.hookpoint, other.name):
            return False
        if self.mean is None or other.mean is None:
            same_mean = self.mean is other.mean
        else:
            same_mean = torch.equal(self.mean, other.mean)
        return same_mean and torch.equal(self.vector, other.vector)

    def __hash__(self) -> int:
        return hash((self.hookpoint, self.name))


@runtime_checkable
class Target(Protocol):
    """Reads and writes one activation of each token."""

    @property
    def hookpoint(self) -> str:
        """Where the vectors come from."""

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " token"]:
        """The activation of each token."""

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, " token"],
        new: Float[Tensor, " token"],
    ) -> Float[Tensor, "token d"]:
        """The vectors with the activation ``old`` changed to ``new`` and nothing else."""

    def unit(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "#token"]:
        """What a strength of 1 is, for each token or for all."""

    def axis(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " d"]:
        """The unit vector along which it writes, on the device of ``x``."""


@dataclass
class LatentTarget:
    """A latent of a dictionary; the dictionary follows the vectors to their device."""

    hookpoint: str
    dictionary: Dictionary
    index: int

    def _beside(self, x: Tensor) -> Dictionary:
        if self.dictionary.device != x.device:
            self.dictionary = self.dictionary.to(x.device)
        return self.dictionary

    def _row(self, x: Tensor) -> Tensor:
        return self._beside(x).W_dec[self.index].float()

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " token"]:
        """The exact activation, after the sparsifier."""
        return self._beside(x).activations_of(x, [self.index])[..., 0].float()

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, " token"],
        new: Float[Tensor, " token"],
    ) -> Float[Tensor, "token d"]:
        """Adds the change along the decoder row."""
        return x + (new - old)[:, None] * self._row(x)

    def unit(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "#token"]:
        """The largest activation seen in training text."""
        largest = self._beside(x).activation_max[self.index].float()
        if not largest > 0:
            raise UsageError(
                "a latent that fired in training text, to count its maximum in",
                f"{self.hookpoint}/{self.index}, which never fired",
                "choose another latent; `brainscan atlas search` lists those that fire",
            )
        return largest[None]

    def axis(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " d"]:
        """The decoder row, at unit length."""
        return torch.nn.functional.normalize(self._row(x), dim=0)


@dataclass(frozen=True)
class NeuronTarget:
    """A neuron, or one side of it."""

    hookpoint: str
    index: int
    sign: str
    maximum: float

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " token"]:
        """The coordinate, or its part on the sign's side of zero."""
        value = x[:, self.index]
        if self.sign:
            return (value if self.sign == "+" else -value).clamp_min(0)
        return value

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, " token"],
        new: Float[Tensor, " token"],
    ) -> Float[Tensor, "token d"]:
        """Sets the coordinate; what is on the other side of zero stays."""
        value = -new if self.sign == "-" else new
        if self.sign:  # the other side of zero is not this feature's: leave it
            value = torch.where((old == 0) & (new == 0), x[:, self.index], value)
        column = torch.tensor([self.index], device=x.device)
        return x.index_copy(1, column, value[:, None])

    def unit(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "#token"]:
        """The largest activation over neutral text."""
        return torch.tensor([self.maximum], device=x.device)

    def axis(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " d"]:
        """The coordinate's own axis, with the sign."""
        axis = torch.zeros(x.shape[1], device=x.device)
        axis[self.index] = -1.0 if self.sign == "-" else 1.0
        return axis


@dataclass(frozen=True)
class DirectionTarget:
    """The component along a direction."""

    hookpoint: str
    direction: Direction

    def read(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " token"]:
        """The component of x - mean."""
        mean = self.direction.mean
        centred = x if mean is None else x - mean.to(x.device, torch.float32)
        return centred @ self.axis(x)

    def write(
        self,
        x: Float[Tensor, "token d"],
        old: Float[Tensor, " token"],
        new: Float[Tensor, " token"],
    ) -> Float[Tensor, "token d"]:
        """Adds the change along the unit vector."""
        return x + (new - old)[:, None] * self.axis(x)

    def unit(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "#token"]:
        """Each token's norm."""
        norms: Tensor = torch.linalg.vector_norm(x, dim=-1)
        return norms

    def axis(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " d"]:
        """The direction, at unit length."""
        vector = self.direction.vector.to(x.device, torch.float32)
        return torch.nn.functional.normalize(vector, dim=0)


def bind(
    lm: LanguageModel,
    target: str | Direction,
    dictionary: Dictionary | None = None,
    maximum: float | None = None,
) -> Target:
    """Finds what an edit acts on, on this model.

    Args:
        lm: the model.
        target: a feature's address, or a direction.
        dictionary: the latent's dictionary; None is the one shipped for that hookpoint.
        maximum: a neuron's largest activation; None measures it on neutral text.

    Raises:
        UnknownHookpointError: the model has no such hookpoint.
        UnknownFeatureError: the latent or neuron is out of range.
        DictionaryMismatchError: dictionary or direction are of another width or hookpoint.
    """
    if isinstance(target, Direction):
        return _bind_direction(lm, target)
    address = Address.parse(target)
    hookpoint = lm.resolve(address.hookpoint)
    if hookpoint.startswith(_NEURONS):
        check_index(address, lm.width(hookpoint), "neurons")
        if maximum is None:
            maximum = neuron_maxima(lm, hookpoint).of(address.index, address.sign)
        return NeuronTarget(hookpoint, address.index, address.sign, maximum)
    found = _shipped(lm, hookpoint) if dictionary is None else dictionary
    found.check_model(lm)
    if found.hookpoint != hookpoint:
        raise DictionaryMismatchError(
            f"a dictionary of {hookpoint}, as in {target}",
            f"{found.name}, of {found.hookpoint}",
            "pass the dictionary that the address belongs to",
        )
    check_index(address, found.n_latents, "latents")
    return LatentTarget(hookpoint, found, address.index)


def _shipped(lm: LanguageModel, hookpoint: str) -> Dictionary:
    known = _loaded.setdefault(lm, {})
    if hookpoint not in known:
        known[hookpoint] = Dictionary.for_model(lm, hookpoint)
    return known[hookpoint]


def _bind_direction(lm: LanguageModel, direction: Direction) -> DirectionTarget:
    hookpoint = lm.resolve(direction.hookpoint)
    width, got = lm.width(hookpoint), len(direction.vector)
    if width != got:
        raise DictionaryMismatchError(
            f"a direction of width {width} for {hookpoint} of {lm.name}",
            f"{direction.name or 'a direction'} of width {got}",
            "use a direction made from this model's activations",
        )
    return DirectionTarget(hookpoint, direction)


def check_index(address: Address, n: int, what: str) -> None:
    """Refuses an address whose index is not below ``n``.

    Raises:
        UnknownFeatureError: it is not.
    """
    if address.index >= n:
        raise UnknownFeatureError(
            f"one of the {n} {what} {address.hookpoint}/0 to {address.hookpoint}/{n - 1}",
            str(address),
            "`brainscan atlas search` finds features by words",
        )
