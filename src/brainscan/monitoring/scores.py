"""Detectors' scores, token by token.

A detector gives each token of a message a log-odds that the text is of its concept:

1. Raw score: the product of the activation with a vector, plus a bias (a logistic probe, a
   difference of means), the mean of such products at several hookpoints, or the product of some
   latents' activations with weights (a sparse probe).
2. Aggregate within the message: the token's own score; an exponential moving average; the
   logarithm of the mean exponential of the last few, which one strong token can lift; or the mean
   of all so far, drawn to what is usual (0) as if some such tokens had gone before.
3. Standardised by the mean and spread that this has on neutral text of the same role.
4. Calibrated by a line, so that it reads as log-odds at even odds (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch

from brainscan.dictionaries import Dictionary
from brainscan.monitoring.roles import TEMPLATE
from brainscan.shapes import Float, Tensor
from brainscan.stats import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from brainscan.artifacts import ModelRef
    from brainscan.monitoring.jumps import JumpRule

Aggregate: TypeAlias = Literal["token", "ema", "window", "mean"]
AGGREGATES: tuple[Aggregate, ...] = ("token", "ema", "window", "mean")
"""How the scores of a message's tokens come together."""

ROLES = ("user", "assistant", "tool")
"""The roles that scores are standardised for; others count as the first."""

HALF_LIFE, WINDOW, BEFORE = 4.0, 8, 8
"""Tokens after which a score weighs half as much; that a window holds; that a mean begins with."""

JOINT = "+"
"""Between the names of hookpoints that are read together."""

_RATE = 1 - 0.5 ** (1 / HALF_LIFE)


@dataclass(frozen=True)
class Detector:
    """What finds one concept."""

    concept: str
    """The concept's name."""
    title: str
    """The same for people."""
    danger: bool
    """Whether an alarm is for it."""
    hookpoint: str
    """Where it reads; the names of several are joined by ``+``."""
    method: str
    """How it was made: ``logistic``, ``difference`` or ``latents``."""
    aggregate: Aggregate
    """How the scores of a message's tokens come together."""
    weights: tuple[float, ...]
    """Of the activations' components, or of `latents`."""
    bias: float
    """Added to the product; by it neutral text has a mean raw score of 0."""
    latents: tuple[int, ...]
    """The latents that are read; none where the activation itself is."""
    neutral: Mapping[str, tuple[float, float]]
    """Mean and spread of the aggregate on neutral text, by role."""
    line: tuple[float, float]
    """Slope and intercept of the calibration."""
    threshold: float
    """What 1% of other texts pass; at least 0.99 of them by the split ``select``."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The hookpoints."""
        return tuple(self.hookpoint.split(JOINT))


@dataclass(frozen=True)
class Detectors:
    """Detectors of a model, one for each concept, and the rule for jumps between them."""

    model: ModelRef
    """The model that they read."""
    each: tuple[Detector, ...]
    """The detectors."""
    dictionaries: Mapping[str, str] = field(default_factory=dict)
    """By hookpoint, the name of the dictionary whose latents are read there."""
    rule: JumpRule | None = None
    """When danger comes that nobody asked for; None where it was not fitted."""
    figures: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """What was measured of each on texts that it was not made on, by concept and figure."""
    jump_figures: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """What was measured of the rule and of simpler ones, by name and figure."""

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts, in the order of scores."""
        return tuple(one.concept for one in self.each)

    @property
    def hookpoints(self) -> tuple[str, ...]:
        """Where they read."""
        return tuple(dict.fromkeys(name for one in self.each for name in one.reads))

    def cards(self) -> list[dict[str, Any]]:
        """What there is to tell of each detector."""
        return [
            {
                "concept": one.concept,
                "title": one.title,
                "danger": one.danger,
                "hookpoint": one.hookpoint,
                "method": one.method,
                "aggregate": one.aggregate,
                "threshold": one.threshold,
                "figures": dict(self.figures.get(one.concept, {})),
            }
            for one in self.each
        ]

    def raw(self, activations: Mapping[str, Float[Tensor, "token _"]]) -> NDArray[np.float32]:
        """Raw scores of some tokens, ``[token, concept]``.

        Args:
            activations: by hookpoint, for each of `hookpoints`.
        """
        parts = [one([activations[name] for name in one.reads]) for one in self._readers]
        scores = np.concatenate(parts, axis=1)
        return np.asarray(scores[:, self._order], np.float32)

    @cached_property
    def _readers(self) -> list[_Linear | _Sparse]:
        found: list[_Linear | _Sparse] = []
        for reads in dict.fromkeys(one.reads for one in self.each):
            here = [(n, one) for n, one in enumerate(self.each) if one.reads == reads]
            dense = [(n, one) for n, one in here if not one.latents]
            sparse = [(n, one) for n, one in here if one.latents]
            if dense:
                found.append(_Linear(reads, *_columns(dense)))
            if sparse:
                dictionary = Dictionary.load(self.dictionaries[reads[0]])
                found.append(_Sparse(reads, *_columns(sparse), dictionary))
        return found

    @cached_property
    def _order(self) -> list[int]:
        places = {n: at for at, n in enumerate(n for one in self._readers for n in one.numbers)}
        return [places[n] for n in range(len(self.each))]


def _columns(chosen: Sequence[tuple[int, Detector]]) -> tuple[list[int], list[Detector]]:
    return [n for n, _ in chosen], [one for _, one in chosen]


class _Linear:
    """Detectors that read activations as they are."""

    def __init__(
        self, reads: tuple[str, ...], numbers: list[int], detectors: list[Detector]
    ) -> None:
        self.reads, self.numbers = reads, numbers
        self.weights = torch.tensor([one.weights for one in detectors]).T.contiguous()
        self.bias = torch.tensor([one.bias for one in detectors])

    def __call__(self, values: Sequence[Float[Tensor, "token _"]]) -> NDArray[np.float32]:
        x = values[0] if len(values) == 1 else torch.cat(list(values), -1)
        scores: NDArray[np.float32] = (x.float().cpu() @ self.weights + self.bias).numpy()
        return scores


class _Sparse:
    """Detectors that read latents."""

    def __init__(
        self,
        reads: tuple[str, ...],
        numbers: list[int],
        detectors: list[Detector],
        dictionary: Dictionary,
    ) -> None:
        self.reads, self.numbers, self.dictionary = reads, numbers, dictionary
        self.weights = torch.zeros(dictionary.n_latents + 1, len(detectors))
        for column, one in enumerate(detectors):
            self.weights[list(one.latents), column] = torch.tensor(one.weights)
        self.bias = torch.tensor([one.bias for one in detectors])

    def __call__(self, values: Sequence[Float[Tensor, "token d"]]) -> NDArray[np.float32]:
        code = self.dictionary.encode(values[0].float())
        read = self.weights[code.indices.cpu()] * code.values.float().cpu().unsqueeze(-1)
        scores: NDArray[np.float32] = (read.sum(-2) + self.bias).numpy()
        return scores


class Aggregator:
    """The aggregates of raw scores, one token after the other; ``[..., concept]``."""

    def __init__(self, kinds: Sequence[Aggregate]) -> None:
        """Nothing is read yet.

        Args:
            kinds: each concept's.
        """
        self._ema = np.array([kind == "ema" for kind in kinds])
        self._window = np.array([kind == "window" for kind in kinds])
        self._all = np.array([kind == "mean" for kind in kinds])
        self.restart()

    def restart(self) -> None:
        """A new message begins."""
        self._mean: NDArray[np.float32] | None = None
        self._last: list[NDArray[np.float32]] = []
        self._sum, self._read = np.float32(0) * self._all, 0

    def step(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """The aggregates at the next token.

        Args:
            raw: its raw scores.
        """
        out = raw
        if self._ema.any():
            before = raw if self._mean is None else self._mean
            self._mean = before + np.float32(_RATE) * (raw - before)
            out = np.where(self._ema, self._mean, out)
        if self._window.any():
            self._last = [*self._last[1 - WINDOW :], raw]
            held = np.stack(self._last)
            top = held.max(0)
            out = np.where(self._window, top + np.log(np.exp(held - top).mean(0)), out)
        if self._all.any():
            self._sum, self._read = self._sum + raw, self._read + 1
            out = np.where(self._all, self._sum / (self._read + BEFORE), out)
        return np.asarray(out, np.float32)


class Follower:
    """Calibrated scores, token by token, as messages go by."""

    def __init__(self, detectors: Detectors) -> None:
        """Nothing is read yet.

        Args:
            detectors: what scores are wanted of.
        """
        each = detectors.each
        self._aggregator = Aggregator([one.aggregate for one in each])
        neutral = {role: [one.neutral[role] for one in each] for role in ROLES}
        slope, intercept = (np.array([one.line[n] for one in each], np.float32) for n in (0, 1))
        self._scale: dict[str, Any] = {}
        for role, pairs in neutral.items():
            mean, spread = (np.array([pair[n] for pair in pairs], np.float32) for n in (0, 1))
            gain = slope / spread
            self._scale[role] = (gain, intercept - gain * mean)
        self._nothing = np.full(len(each), np.nan, np.float32)
        self._message: tuple[str, int] | None = None

    def step(self, raw: NDArray[np.float32], role: str, message: int = 0) -> NDArray[np.float32]:
        """The next token's log-odds, ``[concept]``; not numbers for a token of the template.

        Args:
            raw: its raw scores.
            role: its message's role.
            message: its message's number.
        """
        if role == TEMPLATE:
            self._message = None
            return self._nothing
        if self._message != (role, message):
            self._aggregator.restart()
            self._message = (role, message)
        gain, shift = self._scale.get(role) or self._scale[ROLES[0]]
        scored: NDArray[np.float32] = self._aggregator.step(raw) * gain + shift
        return scored
