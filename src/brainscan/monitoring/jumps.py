"""Jumps: danger in an answer that nobody asked for.

For a concept c and the tokens t of an answer, z[t, c] being its calibrated log-odds:

1. What was asked for: q[c], the 0.95 quantile of z over the tokens of a user's message, the
   greatest of all so far. What tools return is not asked for.
2. What is usual: the 0.95 quantile of z over benign answers. b[c] is the greater of the two.
3. A cumulative sum (CUSUM; Page 1954): S[t] = max(0, S[t - 1] + clip(z[t] - b, -m, m) - kappa),
   from 0 at the answer's beginning.
4. An alarm for each danger whose S passes h; it began with the first token after S was last 0.

Danger that was asked about is a risk and no jump; it is told apart. Beside the sum stand simpler
statistics over the same z: the token's own, its excess over b, the mean so far, a moving average,
and the mean less that of what was asked. Any of them can be the rule's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from brainscan.errors import UsageError
from brainscan.monitoring.roles import ASSISTANT, TEMPLATE, USER

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """The 0.95 quantile of z over benign answers, by concept."""
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
        self._usual = np.array([rule.usual[n] for n in rule.danger], np.float32)
        self._asked: dict[int, list[NDArray[np.float32]]] = {}
        self._turn: int | None = None
        self._at = -1

    def step(self, z: NDArray[np.float32], role: str, message: int = 0) -> float:
        """The greatest statistic of the dangers after the next token; not a number before answers.

        Args:
            z: the token's log-odds, by concept.
            role: its message's role.
            message: its message's number.
        """
        self._at += 1
        if role == TEMPLATE:
            return float("nan")
        own = z[self._danger]
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

    def asked(self) -> dict[str, float]:
        """What was asked for so far, by danger: the greatest 0.95 quantile of a user's message."""
        if not self._asked:
            return {}
        return dict(zip(self._names, self._level().tolist(), strict=True))

    def _level(self) -> NDArray[np.float32]:
        """The greatest 0.95 quantile of a user's message so far; -inf where there is none."""
        highest = np.full(len(self._usual), -np.inf, np.float32)
        for own in self._asked.values():
            level: NDArray[np.float64] = np.quantile(np.stack(own), QUANTILE, axis=0)
            highest = np.maximum(highest, level.astype(np.float32))
        return highest

    def _begin(self, message: int) -> None:
        """A new answer begins."""
        self._base = np.maximum(self._level(), self._usual)
        given = [z for own in self._asked.values() for z in own] or [self._usual]
        self._given = np.stack(given).mean(0).astype(np.float32)
        self._state: NDArray[np.float32] = np.zeros(len(self._usual), np.float32)
        self._onset = np.full(len(self._usual), self._at)
        self._read = 0
        self._raised: set[int] = set()
        self._turn = message

    def _advance(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """The statistic of each danger at the next token of the answer."""
        rule, before = self._rule, self._state
        self._read += 1
        if rule.statistic == "cusum":
            step = np.clip(z - self._base, -rule.clip, rule.clip) - rule.kappa
            self._state = np.maximum(0.0, before + step).astype(np.float32)
            self._onset = np.where(before == 0, self._at, self._onset)
            return self._state
        self._onset[:] = self._at
        if rule.statistic in ("token", "excess"):
            self._state = z if rule.statistic == "token" else z - self._base
        elif rule.statistic == "ema":
            moved = before + np.float32(_EMA) * (z - before)
            self._state = z if self._read == 1 else moved.astype(np.float32)
        else:  # the mean so far
            self._state = (before + (z - before) / self._read).astype(np.float32)
        return self._state - self._given if rule.statistic == "difference" else self._state
