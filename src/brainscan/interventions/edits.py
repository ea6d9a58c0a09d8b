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

1. The old activation is read from the vector as it is at that moment: several edits of one
   hookpoint act in the order given, each on the former's result.
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

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.positions import Change, Positions, Where, check_positions, place
from brainscan.interventions.targets import Direction, LatentTarget, Target, bind
from brainscan.models import Hook, LanguageModel
from brainscan.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class _Edit:
    """What all edits share."""

    positions: Positions = "all"
    """The tokens it acts on."""

    sinks: bool = False
    """Whether attention sinks are edited too (see `positions`)."""

    dictionary: Dictionary | None = field(default=None, compare=False, repr=False)
    """The latent's dictionary; None is the one shipped for its hookpoint."""

    maximum: float | None = None
    """A neuron's largest activation; None measures it on neutral text."""

    def __post_init__(self) -> None:
        check_positions(self.positions)

    def _bind(self, lm: LanguageModel, target: str | Direction) -> Target:
        return bind(lm, target, self.dictionary, self.maximum)

    def _place(self, lm: LanguageModel, hookpoint: str, change: Change) -> list[tuple[str, Hook]]:
        return place(lm, hookpoint, change, self.positions, self.sinks)


@dataclass(frozen=True)
class Add(_Edit):
    """Adds to the activation."""

    target: str | Direction
    """A feature's address, or a direction."""

    strength: float | Float[Tensor, ""]
    """In multiples of the feature's maximum, or of the token's norm for a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.target, self.strength)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)
        if _is(self.strength, 0.0):
            return [(target.hookpoint, _unchanged)]

        def change(x: Tensor) -> Tensor:
            delta = (self.strength * target.unit(x)).expand(len(x))
            if isinstance(target, LatentTarget):  # no need to know the old activation
                return target.write(x, torch.zeros_like(delta), delta)
            old = target.read(x)
            return target.write(x, old, old + delta)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Scale(_Edit):
    """Multiplies the activation."""

    target: str | Direction
    """A feature's address, or a direction."""

    factor: float | Float[Tensor, ""]
    """1 changes nothing, 0 ablates, -1 turns it round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.target, self.factor)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)
        if _is(self.factor, 1.0):
            return [(target.hookpoint, _unchanged)]

        def change(x: Tensor) -> Tensor:
            old = target.read(x)
            return target.write(x, old, self.factor * old)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Clamp(_Edit):
    """Sets the activation to a multiple of its unit."""

    target: str | Direction
    """A feature's address, or a direction."""

    value: float | Float[Tensor, ""]
    """In multiples of the feature's maximum, or of the token's norm for a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.target, self.value)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)

        def change(x: Tensor) -> Tensor:
            return target.write(x, target.read(x), (self.value * target.unit(x)).expand(len(x)))

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class Ablate(_Edit):
    """Sets the activation to zero, or to a given activation such as its mean."""

    target: str | Direction
    """A feature's address, or a direction."""

    to: float | Float[Tensor, ""] = 0.0
    """The activation it gets, in its own units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.target, self.to)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        target = self._bind(lm, self.target)

        def change(x: Tensor) -> Tensor:
            old = target.read(x)
            return target.write(x, old, torch.zeros_like(old) + self.to)

        return self._place(lm, target.hookpoint, change)


@dataclass(frozen=True)
class ProjectOut(_Edit):
    """Removes the component along the target's vector, whatever its activation.

    For a direction with a mean the component of x - mean is removed: the affine version. For a
    feature the vector is its decoder row (a neuron's own axis), at unit length.
    """

    target: str | Direction
    """A feature's address, or a direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.target, 0.0)

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
class Swap(_Edit):
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
        _check(self.a, 0.0)
        _check(self.b, 0.0)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""
        a, b = self._bind(lm, self.a), self._bind(lm, self.b)
        if type(a) is not type(b) or a.hookpoint != b.hookpoint:
            raise UsageError(
                "two features or two directions of one hookpoint to swap",
                f"{_name(self.a)} and {_name(self.b)}",
                "swap like with like",
            )
        if self.a == self.b:
            return [(a.hookpoint, _unchanged)]
        both = isinstance(self.a, Direction)

        def change(x: Tensor) -> Tensor:
            in_a, in_b = a.read(x), b.read(x)
            if both:
                return _exchange(x, in_b - in_a, a.axis(x), b.axis(x))
            return b.write(a.write(x, in_a, in_b), in_b, in_a)

        return self._place(lm, a.hookpoint, change)


Edit = Add | Scale | Clamp | Ablate | ProjectOut | Swap
"""Any edit."""

EDITS: dict[str, type[Edit]] = {
    kind.__name__: kind for kind in (Add, Scale, Clamp, Ablate, ProjectOut, Swap)
}
"""Each kind of edit by its name."""


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
    if edit.dictionary is None and is_its(edit.a if isinstance(edit, Swap) else edit.target):
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


def _unchanged(x: Tensor, site: object) -> Tensor:
    return x


def as_number(strength: float | Tensor) -> float:
    """A strength as a plain number, cut off from any graph."""
    return float(strength.detach() if isinstance(strength, Tensor) else strength)


def _is(strength: float | Tensor, neutral: float) -> bool:
    """Whether a strength is the one that changes nothing, and no gradient is asked of it."""
    if isinstance(strength, Tensor) and strength.requires_grad:
        return False
    return as_number(strength) == neutral


def _name(target: str | Direction) -> str:
    return target if isinstance(target, str) else (target.name or f"direction@{target.hookpoint}")


def _check(target: str | Direction, strength: float | Tensor) -> None:
    if isinstance(target, str):
        Address.parse(target)
    elif not isinstance(target, Direction):
        raise UsageError("an address or a Direction to edit", repr(target), "pass one of these")
    if not math.isfinite(as_number(strength)):
        raise UsageError("a finite strength", str(as_number(strength)), "choose another")
