"""Edits: what to change in a running model, as data.

An edit names a target (a feature's address or a `Direction`), a change of its activation, and the
tokens it acts on. With ``old`` the target's activation at a token and ``unit`` what a strength of 1
stands for (a latent's `activation_max`, a neuron's maximum, the token's own norm for a direction):

    Add(target, strength)     new = old + strength * unit
    Scale(target, factor)     new = factor * old
    Clamp(target, value)      new = value * unit
    Ablate(target, to)        new = to, in the activation's own units: 0, or its mean
    ProjectOut(target)        x' = x - ((x - mean) . u) u, u the target's unit vector
    Swap(a, b)                a gets b's activation and b gets a's
    AblateSet(targets, to)    new = old + strength * (to - old), for many targets at once

1. The old activation is read from the vector as it is at that moment: several edits of one
   hookpoint act in the order given, each on the former's result. The targets of an `AblateSet` are
   read together and written together.
2. Only the activation changes: for a latent x' = x + (new - old) * W_dec[latent], the dictionary's
   error term kept; a neuron's coordinate is written; along a direction x' = x + (new - old) u.
3. The change is computed in fp32 and rounded once to the model's dtype. Gradients flow through x,
   and through strengths and vectors that are tensors requiring them.
4. An edit that changes nothing by its definition (strength 0, factor 1) returns the very same
   tensor, so that the logits are bit-identical.

An edit knows nothing of a model until `attach`; the same edit can be saved, loaded and applied to
several models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.base import (
    BaseEdit,
    as_number,
    check,
    is_neutral,
    name_of,
    unchanged,
)
from brainscan.interventions.positions import Where
from brainscan.interventions.target_sets import bind_set, check_set
from brainscan.interventions.targets import Direction, LatentTarget
from brainscan.models import Hook, LanguageModel
from brainscan.shapes import Float, Tensor


@dataclass(frozen=True)
class Add(BaseEdit):
    """Adds to the activation."""

    target: str | Direction
    """A feature's address, or a direction."""

    strength: float | Float[Tensor, ""]
    """In multiples of the feature's maximum, or of the token's norm for a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.target, self.strength)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)
        if is_neutral(self.strength, 0.0):
            return [(target.hookpoint, unchanged)]

        def change(x: Tensor) -> Tensor:
            delta = (self.strength * target.unit(x)).expand(len(x))
            if isinstance(target, LatentTarget):  # no need to know the old activation
                return target.write(x, torch.zeros_like(delta), delta)
            old = target.read(x)
            return target.write(x, old, old + delta)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Scale(BaseEdit):
    """Multiplies the activation."""

    target: str | Direction
    """A feature's address, or a direction."""

    factor: float | Float[Tensor, ""]
    """1 changes nothing, 0 ablates, -1 turns it round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.target, self.factor)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)
        if is_neutral(self.factor, 1.0):
            return [(target.hookpoint, unchanged)]

        def change(x: Tensor) -> Tensor:
            old = target.read(x)
            return target.write(x, old, self.factor * old)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Clamp(BaseEdit):
    """Sets the activation to a multiple of its unit."""

    target: str | Direction
    """A feature's address, or a direction."""

    value: float | Float[Tensor, ""]
    """In multiples of the feature's maximum, or of the token's norm for a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.target, self.value)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)

        def change(x: Tensor) -> Tensor:
            return target.write(x, target.read(x), (self.value * target.unit(x)).expand(len(x)))

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Ablate(BaseEdit):
    """Sets the activation to zero, or to a given activation such as its mean."""

    target: str | Direction
    """A feature's address, or a direction."""

    to: float | Float[Tensor, ""] = 0.0
    """The activation it gets, in its own units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.target, self.to)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)

        def change(x: Tensor) -> Tensor:
            old = target.read(x)
            return target.write(x, old, torch.zeros_like(old) + self.to)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class ProjectOut(BaseEdit):
    """Removes the component along the target's vector, whatever its activation.

    For a direction with a mean the component of x - mean is removed: the affine version. For a
    feature the vector is its decoder row (a neuron's own axis), at unit length.
    """

    target: str | Direction
    """A feature's address, or a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.target, 0.0)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)
        mean = self.target.mean if isinstance(self.target, Direction) else None

        def change(x: Tensor) -> Tensor:
            axis = target.axis(x)
            centred = x if mean is None else x - mean.to(x.device, torch.float32)
            return x - (centred @ axis)[:, None] * axis

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Swap(BaseEdit):
    """Exchanges two activations of the same hookpoint.

    Two directions need not be orthogonal: afterwards each has exactly the other's component, and
    what is orthogonal to both is as it was.
    """

    a: str | Direction
    """A feature's address, or a direction."""

    b: str | Direction
    """Another of the same kind, at the same hookpoint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.a, 0.0)
        check(self.b, 0.0)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        a, b = self._bind(lm, self.a), self._bind(lm, self.b)
        if type(a) is not type(b) or a.hookpoint != b.hookpoint:
            raise UsageError(
                "two features or two directions of one hookpoint to swap",
                f"{name_of(self.a)} and {name_of(self.b)}",
                "swap like with like",
            )
        if self.a == self.b:
            return [(a.hookpoint, unchanged)]
        both = isinstance(self.a, Direction)

        def change(x: Tensor) -> Tensor:
            in_a, in_b = a.read(x), b.read(x)
            if both:
                return _exchange(x, in_b - in_a, a.axis(x), b.axis(x))
            return b.write(a.write(x, in_a, in_b), in_b, in_a)

        return self._place(lm, a.hookpoint, change)


@dataclass(frozen=True, eq=False)
class AblateSet(BaseEdit):
    """Moves the activations of several targets of one hookpoint towards given ones, at once.

    All are read from the vector as it comes: a dictionary encodes it once, however many latents
    there are. Directions need not be orthogonal: at strength 1 each component is the given one
    afterwards, and what is orthogonal to all of them is as it was.
    """

    targets: tuple[str | Direction, ...]
    """Addresses of latents or of neurons, or directions: of one kind, at one hookpoint."""

    to: Float[Tensor, " target"]
    """The activation each one is moved to, in its own units: its mean over other text, say."""

    strength: float | Float[Tensor, ""] = 1.0
    """How far: 0 changes nothing, 1 goes all the way, -1 as far the other way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_set(self.targets, self.to)
        check(self.targets[0], self.strength)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target_set = bind_set(lm, self.targets, self.dictionary)
        if is_neutral(self.strength, 0.0):
            return [(target_set.hookpoint, unchanged)]

        def change(x: Tensor) -> Tensor:
            old, to = target_set.read(x), self.to.to(x.device, torch.float32)
            return target_set.write(x, old, self.strength * to + (1 - self.strength) * old)

        return self._place(lm, target_set.hookpoint, change)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AblateSet):
            return NotImplemented
        return self._compared() == other._compared() and torch.equal(self.to, other.to)

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[object, ...]:
        return self.targets, as_number(self.strength), self.positions, self.sinks, self.maximum


Edit = Add | Scale | Clamp | Ablate | ProjectOut | Swap | AblateSet
"""Any edit."""

EDITS: dict[str, type[Edit]] = {
    kind.__name__: kind for kind in (Add, Scale, Clamp, Ablate, ProjectOut, Swap, AblateSet)
}
"""Each kind of edit by its name."""


def targets_of(edit: Edit) -> tuple[str | Direction, ...]:
    """The addresses and directions whose activations an edit changes, in its own order."""
    if isinstance(edit, Swap):
        return edit.a, edit.b
    return edit.targets if isinstance(edit, AblateSet) else (edit.target,)


def with_dictionary(edits: Sequence[Edit], dictionary: Dictionary | None) -> tuple[Edit, ...]:
    """The edits, with this dictionary wherever they name one of its latents and no dictionary.

    Args:
        edits: the edits.
        dictionary: the dictionary; None changes nothing.
    """
    if dictionary is None:
        return tuple(edits)
    return tuple(_informed(edit, dictionary) for edit in edits)


def _informed(edit: Edit, dictionary: Dictionary) -> Edit:
    def is_its(target: object) -> bool:
        return isinstance(target, str) and Address.parse(target).hookpoint == dictionary.hookpoint

    where = edit.positions
    if isinstance(where, Where) and where.dictionary is None and is_its(where.condition):
        edit = replace(edit, positions=replace(where, dictionary=dictionary))
    if edit.dictionary is None and is_its(targets_of(edit)[0]):
        edit = replace(edit, dictionary=dictionary)
    return edit


def _exchange(
    x: Float[Tensor, "token d"],
    difference: Float[Tensor, " token"],
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"],
) -> Float[Tensor, "token d"]:
    """Moves along a - b until the components have changed by +- the difference."""
    apart = 1 - a @ b
    if not apart > 1e-6:
        raise UsageError(
            "two directions that differ, to swap", "the same one twice", "choose another"
        )
    return x + (difference / apart)[:, None] * (a - b)
