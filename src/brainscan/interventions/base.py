"""What all edits share: their common fields, and what is checked of targets and strengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.positions import Change, Positions, Where, check_positions, place
from brainscan.interventions.targets import Direction, Target, bind
from brainscan.models import Hook, LanguageModel
from brainscan.shapes import Tensor


@dataclass(frozen=True, kw_only=True)
class BaseEdit:
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

    @property
    def acts_on_prompt(self) -> bool:
        """Whether it may change anything before the answer."""
        where = self.positions
        return (where.within if isinstance(where, Where) else where) != "response"

    def _bind(self, lm: LanguageModel, target: str | Direction) -> Target:
        return bind(lm, target, self.dictionary, self.maximum)

    def _place(self, lm: LanguageModel, hookpoint: str, change: Change) -> list[tuple[str, Hook]]:
        return place(lm, hookpoint, change, self.positions, self.sinks)


def unchanged(x: Tensor, site: object) -> Tensor:
    """The hook of an edit that changes nothing by its definition."""
    return x


def as_number(strength: float | Tensor) -> float:
    """A strength as a plain number, cut off from any graph."""
    return float(strength.detach() if isinstance(strength, Tensor) else strength)


def is_neutral(strength: float | Tensor, neutral: float) -> bool:
    """Whether a strength is the one that changes nothing, and no gradient is asked of it."""
    if isinstance(strength, Tensor) and strength.requires_grad:
        return False
    return as_number(strength) == neutral


def name_of(target: str | Direction) -> str:
    """What a target is called in a message."""
    return target if isinstance(target, str) else (target.name or f"direction@{target.hookpoint}")


def check(target: str | Direction, strength: float | Tensor) -> None:
    """Refuses what is no target, and a strength that is not finite."""
    if isinstance(target, str):
        Address.parse(target)
    elif not isinstance(target, Direction):
        raise UsageError("an address or a Direction to edit", repr(target), "pass one of these")
    if not math.isfinite(as_number(strength)):
        raise UsageError("a finite strength", str(as_number(strength)), "choose another")
