"""Conversations that are read as a whole: each token's log-odds, and what a rule makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from brainscan.models import LanguageModel
from brainscan.monitoring.jumps import Alarm, JumpRule, Jumps
from brainscan.monitoring.readings import RowReading, read_rows
from brainscan.monitoring.roles import ASSISTANT, TEMPLATE, MarkedTokens
from brainscan.monitoring.scores import Detectors, Follower

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Followed(NamedTuple):
    """A conversation, read."""

    marked: MarkedTokens
    z: NDArray[np.float32]
    """Log-odds, ``[token, concept]``; not numbers for the template's tokens and for sinks."""
    raw: NDArray[np.float32]
    """Raw scores, ``[token, concept]``."""
    logprobs: NDArray[np.float32] | None
    """Each token's log-probability, where asked for."""

    @property
    def answer(self) -> list[int]:
        """The places of the tokens of answers that were scored."""
        scored = ~np.isnan(self.z[:, 0])
        return [n for n, role in enumerate(self.marked.roles) if role == ASSISTANT and scored[n]]


class Traced(NamedTuple):
    """What a rule makes of a conversation."""

    jumps: list[float]
    """The statistic at each token; not a number outside of answers."""
    alarms: list[Alarm]


def follow(
    lm: LanguageModel,
    detectors: Detectors,
    conversations: Sequence[MarkedTokens],
    label: str = "watch",
    *,
    logprobs: bool = False,
) -> list[Followed]:
    """Reads conversations.

    Args:
        lm: the model.
        detectors: what is looked for.
        conversations: their tokens, none empty.
        label: what the progress bar says.
        logprobs: also how probable each token was.
    """
    found: dict[int, Followed] = {}
    rows = [one.tokens for one in conversations]
    for reading in read_rows(lm, rows, detectors.hookpoints, label, logprobs=logprobs):
        marked = conversations[reading.row]
        raw = detectors.raw(reading.values)
        z = _log_odds(detectors, raw, reading, marked)
        own = None if reading.logprobs is None else reading.logprobs.numpy()
        found[reading.row] = Followed(marked, z, raw, own)
    return [found[row] for row in range(len(rows))]


def trace(followed: Followed, rule: JumpRule, names: Sequence[str]) -> Traced:
    """The statistic over a conversation, and its alarms.

    Args:
        followed: the conversation.
        rule: the rule.
        names: the concepts, in the order of scores.
    """
    jumps = Jumps(rule, names)
    marked = followed.marked
    scored = ~np.isnan(followed.z[:, 0])
    track = [
        jumps.step(raw, role if known else TEMPLATE, message)
        for raw, known, role, message in zip(
            followed.raw, scored, marked.roles, marked.messages, strict=True
        )
    ]
    return Traced(track, jumps.alarms)


def _log_odds(
    detectors: Detectors, raw: NDArray[np.float32], reading: RowReading, marked: MarkedTokens
) -> NDArray[np.float32]:
    follower = Follower(detectors)
    out = np.full(raw.shape, np.nan, np.float32)
    for n, (role, message) in enumerate(zip(marked.roles, marked.messages, strict=True)):
        if not reading.sinks[n]:
            out[n] = follower.step(raw[n], role, message)
    return out
