"""Where an edit acts: which tokens.

- ``"all"``, ``"prompt"``, ``"response"``;
- ``Span(start, stop)``: positions counted from the first token of the sequence;
- ``Where(condition, threshold)``: tokens where a feature or a probe passes a threshold, read at
  the edit's own hookpoint or at an earlier one, token by token; with ``within`` only those of the
  prompt or of the response.

Attention sinks, as `sinks` tells them, are left out unless an edit says ``sinks=True`` or names
them by a ``Span``: the first token of a sequence and any other with a norm far above the usual. An
edit there wrecks the model rather than steering it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.sinks import sinks_at
from brainscan.interventions.targets import Direction, bind
from brainscan.models import Hook, LanguageModel, Site
from brainscan.models.families import order
from brainscan.shapes import Bool, Float, Tensor

_NAMES = ("all", "prompt", "response")


@dataclass(frozen=True)
class Span:
    """The tokens from ``start`` up to, not including, ``stop``."""

    start: int
    """The first position, counted from 0."""

    stop: int | None = None
    """The position after the last; None is the end, whatever comes."""

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise UsageError(
                "a span with 0 <= start < stop",
                f"{self.start}:{'' if self.stop is None else self.stop}",
                "count positions from 0; stop is not included",
            )


@dataclass(frozen=True)
class Probe:
    """A detector: the score of a vector x is (x - mean) . vector + bias."""

    direction: Direction
    """Its vector, as long as it is."""

    bias: float = 0.0
    """Added to the product."""


@dataclass(frozen=True)
class Where:
    """The tokens where a condition is above a threshold."""

    condition: str | Probe
    """A feature's address, or a probe."""

    threshold: float
    """In multiples of the feature's maximum, or the probe's own score."""

    dictionary: Dictionary | None = field(default=None, compare=False, repr=False)
    """The feature's dictionary; None is the one shipped for its hookpoint."""

    maximum: float | None = None
    """A neuron's largest activation; None measures it on neutral text."""

    within: Literal["all", "prompt", "response"] = "all"
    """The tokens on which the condition counts; on others it is taken as not met."""

    def __post_init__(self) -> None:
        if isinstance(self.condition, str):
            Address.parse(self.condition)
        check_positions(self)


Positions = Literal["all", "prompt", "response"] | Span | Where
"""Which tokens an edit acts on."""


def check_positions(positions: object) -> None:
    """Refuses what is no choice of positions."""
    if isinstance(positions, Where) and positions.within not in _NAMES:
        raise UsageError(
            "a condition within 'all', 'prompt' or 'response'",
            repr(positions.within),
            "choose one of these",
        )
    if isinstance(positions, Span | Where) or positions in _NAMES:
        return
    raise UsageError(
        "positions 'all', 'prompt', 'response', a Span or a Where",
        repr(positions),
        "choose one of these",
    )


Change = Callable[[Float[Tensor, "token d"]], Float[Tensor, "token d"]]
"""Changes the vectors of the chosen tokens, in fp32."""

_Score = Callable[[Float[Tensor, "token d"]], Float[Tensor, " token"]]


def place(
    lm: LanguageModel, hookpoint: str, change: Change, positions: Positions, sinks: bool
) -> list[tuple[str, Hook]]:
    """The hooks that apply a change to the chosen tokens and leave all others bit-identical.

    Args:
        lm: the model.
        hookpoint: where the change acts.
        change: the change.
        positions: the tokens.
        sinks: whether attention sinks are changed too.
    """
    if not isinstance(positions, Where):
        return [(hookpoint, lambda x, site: _apply(x, _chosen(x, site, positions, sinks), change))]
    read_at, score = _condition(lm, positions)
    if read_at == hookpoint:

        def conditional(x: Tensor, site: Site) -> Tensor:
            passed = _passes(x, site, score, positions.threshold)
            return _apply(x, passed & _chosen(x, site, positions.within, sinks), change)

        return [(hookpoint, conditional)]
    if order(read_at) >= order(hookpoint):
        raise UsageError(
            f"a condition read at {hookpoint} or earlier", read_at, "read it at an earlier layer"
        )
    seen: list[Tensor] = []

    def read(x: Tensor, site: Site) -> Tensor:
        seen[:] = [_passes(x, site, score, positions.threshold)]
        return x

    def edit(x: Tensor, site: Site) -> Tensor:
        return _apply(x, seen[0].to(x.device) & _chosen(x, site, positions.within, sinks), change)

    return [(read_at, read), (hookpoint, edit)]


def _apply(
    x: Float[Tensor, "batch position d"], chosen: Bool[Tensor, "batch position"], change: Change
) -> Float[Tensor, "batch position d"]:
    if not chosen.any():
        return x
    changed = change(x[chosen].float())
    return x.index_put((chosen,), changed.to(x.dtype))


def _chosen(
    x: Float[Tensor, "batch position d"],
    site: Site,
    positions: Literal["all", "prompt", "response"] | Span,
    sinks: bool,
) -> Bool[Tensor, "batch position"]:
    at = site.positions.to(x.device)
    real, is_prompt = at >= 0, site.is_prompt.to(x.device)
    if isinstance(positions, Span):
        stop = torch.iinfo(at.dtype).max if positions.stop is None else positions.stop
        return real & (at >= positions.start) & (at < stop)
    if positions != "all":
        real = real & (is_prompt if positions == "prompt" else ~is_prompt)
    # A token of the answer is none: read alone, as in decoding, it could not be known for one.
    return real if sinks else real & ~(sinks_at(x, at) & (is_prompt | (at == 0)))


def _condition(lm: LanguageModel, where: Where) -> tuple[str, _Score]:
    """Where the condition is read, and how."""
    if isinstance(where.condition, Probe):
        probe = where.condition
        target = bind(lm, probe.direction)
        length = probe.direction.vector.detach().float().norm().item()
        return target.hookpoint, lambda x: target.read(x) * length + probe.bias
    feature = bind(lm, where.condition, where.dictionary, where.maximum)
    return feature.hookpoint, lambda x: feature.read(x) / feature.unit(x)


@torch.no_grad()
def _passes(
    x: Float[Tensor, "batch position d"], site: Site, score: _Score, threshold: float
) -> Bool[Tensor, "batch position"]:
    passed = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    real = (site.positions >= 0).to(x.device)
    passed[real] = score(x[real].float()) > threshold
    return passed
