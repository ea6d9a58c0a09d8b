"""Jumps: danger in an answer that nobody asked for.

For a concept c and the tokens t of an answer:

1. u[t, c] is the token's own raw score, less the 0.95 quantile over the tokens of benign answers,
   over their standard deviation: 0 is as much as is usual. A sum over tokens wants scores that hold
   no tokens before, so that the detectors' aggregates and log-odds have no part in it.
2. What was asked for: the 0.95 quantile of u over the tokens of a user's message, the greatest of
   all so far. What tools return is not asked for. b[c] is that, or 0 where it is less.
3. A cumulative sum (CUSUM; Page 1954): S[t] = max(0, S[t - 1] + clip(u[t] - b, -m, m) - kappa),
   from 0 at the answer's beginning.
4. An alarm for each danger whose S passes h; it began with the first token after S was last 0.

Danger that was asked about is a risk and no jump; it is told apart, in log-odds. Beside the sum
stand simpler statistics over the same u: the token's own, its excess over b, the mean so far, a
moving average, and the mean less that of what was asked. Any of them can be the rule's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from brainscan.errors import UsageError
from brainscan.monitoring.roles import ASSISTANT, TEMPLATE, USER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from brainscan.monitoring.scores import Detectors

QUANTILE = 0.95
"""The share of tokens below what counts as asked for, and as usual."""

Statistic: TypeAlias = Literal["cusum", "token", "excess", "mean", "ema", "difference"]
STATISTICS: tuple[Statistic, ...] = ("cusum", "token", "excess", "mean", "ema", "difference")
"""What an alarm can go by."""

_EMA = 0.2


@dataclass(frozen=True)
class JumpRule:
    """When an alarm is raised."""

    statistic: Statistic
    """What passes the threshold."""
    threshold: float
    """h: an alarm is raised above it."""
    usual: tuple[float, ...]
    """The 0.95 quantile of raw scores over benign answers' tokens, by concept."""
    spread: tuple[float, ...]
    """Their standard deviation."""
    danger: tuple[int, ...]
    """The numbers of the concepts that an alarm is for."""
    kappa: float = 0.5
    """What the sum loses at each token."""
    clip: float = 2.0
    """m: the most that a token adds or takes away."""

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise UsageError(
                f"a statistic of {', '.join(STATISTICS)}", f"'{self.statistic}'", "name one"
            )
        if not self.danger:
            raise UsageError("at least one concept that is a danger", "none", "mark one")


class Alarm(NamedTuple):
    """Danger that came from nowhere."""

    concept: str
    """Which."""
    onset: int
    """The token where it began."""
    token: int
    """The token at which it was noticed."""
    score: float
    """The statistic there."""


class Jumps:
    """Follows a conversation: the statistic at each token, and alarms."""

    def __init__(self, rule: JumpRule, names: Sequence[str]) -> None:
        """Nothing is read yet.

        Args:
            rule: when to raise an alarm.
            names: the concepts, in the order of scores.
        """
        self.alarms: list[Alarm] = []
        self._rule = rule
        self._names = [names[n] for n in rule.danger]
        self._danger = list(rule.danger)
        self._usual, self._spread = (
            np.array([values[n] for n in rule.danger], np.float32)
            for values in (rule.usual, rule.spread)
        )
        self._asked: dict[int, list[NDArray[np.float32]]] = {}
        self._turn: int | None = None
        self._at = -1

    def step(self, raw: NDArray[np.float32], role: str, message: int = 0) -> float:
        """The greatest statistic of the dangers after the next token; not a number before answers.

        Args:
            raw: the token's raw scores, by concept.
            role: its message's role.
            message: its message's number.
        """
        self._at += 1
        if role == TEMPLATE:
            return float("nan")
        own = (raw[self._danger] - self._usual) / self._spread
        if role != ASSISTANT:
            self._turn = None
            if role == USER:
                self._asked.setdefault(message, []).append(own)
            return float("nan")
        if self._turn != message:
            self._begin(message)
        state = self._advance(own)
        for n in np.flatnonzero(state > self._rule.threshold).tolist():
            if n not in self._raised:
                self._raised.add(n)
                onset, score = int(self._onset[n]), float(state[n])
                self.alarms.append(Alarm(self._names[n], onset, self._at, score))
        return float(state.max())

    def _begin(self, message: int) -> None:
        """A new answer begins."""
        usual = np.zeros(len(self._usual), np.float32)
        self._base = np.maximum(_highest(self._asked, len(usual)), usual)
        given = [u for own in self._asked.values() for u in own] or [usual]
        self._given = np.stack(given).mean(0).astype(np.float32)
        self._state: NDArray[np.float32] = np.zeros(len(self._usual), np.float32)
        self._onset = np.full(len(self._usual), self._at)
        self._read = 0
        self._raised: set[int] = set()
        self._turn = message

    def _advance(self, u: NDArray[np.float32]) -> NDArray[np.float32]:
        """The statistic of each danger at the next token of the answer."""
        rule, before = self._rule, self._state
        self._read += 1
        if rule.statistic == "cusum":
            step = np.clip(u - self._base, -rule.clip, rule.clip) - rule.kappa
            self._state = np.maximum(0.0, before + step).astype(np.float32)
            self._onset = np.where(before == 0, self._at, self._onset)
            return self._state
        self._onset[:] = self._at
        if rule.statistic in ("token", "excess"):
            self._state = u if rule.statistic == "token" else u - self._base
        elif rule.statistic == "ema":
            moved = before + np.float32(_EMA) * (u - before)
            self._state = u if self._read == 1 else moved.astype(np.float32)
        else:  # the mean so far
            self._state = (before + (u - before) / self._read).astype(np.float32)
        return self._state - self._given if rule.statistic == "difference" else self._state


def asked_for(
    rule: JumpRule,
    names: Sequence[str],
    z: Iterable[NDArray[np.float32]],
    roles: Iterable[str],
    messages: Iterable[int],
) -> dict[str, float]:
    """What was asked for, by danger: the greatest 0.95 quantile of log-odds in a user's message.

    Args:
        rule: which concepts are dangers.
        names: the concepts, in the order of scores.
        z: each token's log-odds, by concept; those without are left out.
        roles: its message's role.
        messages: its message's number.
    """
    asked: dict[int, list[NDArray[np.float32]]] = {}
    danger = list(rule.danger)
    for own, role, message in zip(z, roles, messages, strict=True):
        if role == USER and not np.isnan(own[0]):
            asked.setdefault(message, []).append(own[danger])
    if not asked:
        return {}
    levels = _highest(asked, len(danger)).tolist()
    return {names[n]: level for n, level in zip(danger, levels, strict=True)}


def risks_of(detectors: Detectors, asked: Mapping[str, float]) -> tuple[str, ...]:
    """Dangers that were asked about: above what 1% of other texts pass.

    Args:
        detectors: the detectors.
        asked: what was asked for, by danger, as `asked_for` tells it.
    """
    return tuple(
        one.concept for one in detectors.each if asked.get(one.concept, -math.inf) > one.threshold
    )


def _highest(messages: Mapping[int, Sequence[NDArray[np.float32]]], n: int) -> NDArray[np.float32]:
    """The greatest 0.95 quantile of a message; -inf where there is none."""
    highest = np.full(n, -np.inf, np.float32)
    for own in messages.values():
        level: NDArray[np.float64] = np.quantile(np.stack(own), QUANTILE, axis=0)
        highest = np.maximum(highest, level.astype(np.float32))
    return highest
