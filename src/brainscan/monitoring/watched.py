"""Conversations with what was seen in them: for JSON, for the terminal and for pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from brainscan.errors import UsageError
from brainscan.models import Intervention, LanguageModel
from brainscan.models.generate import Sampling, generate
from brainscan.monitoring.following import Traced, follow, trace
from brainscan.monitoring.jumps import Alarm, asked_for, risks_of
from brainscan.monitoring.roles import (
    ASSISTANT,
    TEMPLATE,
    MarkedTokens,
    marked_chat,
    message_numbers,
)
from brainscan.monitoring.scores import Detectors
from brainscan.monitoring.watch import Watch
from brainscan.stats import finite
from brainscan.views import ActivationView, Html, LatentView, TokenView, token_strip

if TYPE_CHECKING:
    from numpy.typing import NDArray

OnScore: TypeAlias = Callable[[str, "NDArray[np.float32]"], None]
"""Called with a token's text and its log-odds, by concept."""

_COLOURED = 8
"""Concepts that a strip may be coloured by."""


@dataclass(frozen=True)
class Watched:
    """A conversation, token by token."""

    texts: tuple[str, ...]
    """Each token's text."""
    roles: tuple[str, ...]
    """The role of each token's message; empty for the template's."""
    concepts: tuple[str, ...]
    """The names of the concepts."""
    dangers: frozenset[str]
    """Those of them that an alarm is for."""
    z: NDArray[np.float32]
    """Log-odds, ``[token, concept]``; not numbers where a token was not scored."""
    jumps: tuple[float, ...]
    """The rule's statistic after each token; not a number outside of answers."""
    alarms: tuple[Alarm, ...]
    """Danger that came from nowhere."""
    asked: Mapping[str, float]
    """What was asked for, by danger."""
    risks: tuple[str, ...] = ()
    """Dangers that were asked about: above what 1% of other texts pass."""
    answer: str = ""
    """The text of the last answer."""

    def to_json(self) -> dict[str, Any]:
        """The conversation as a JSON object."""
        rows = zip(self.texts, self.roles, self.z.tolist(), self.jumps, strict=True)
        return {
            "tokens": [
                {
                    "text": text,
                    "role": role,
                    "concepts": {
                        name: round(value, 3)
                        for name, value in zip(self.concepts, scores, strict=True)
                        if math.isfinite(value)
                    },
                    "jump": finite(round(jump, 3)) if math.isfinite(jump) else None,
                }
                for text, role, scores, jump in rows
            ],
            "alarms": [alarm._asdict() for alarm in self.alarms],
            "asked": {name: round(value, 3) for name, value in self.asked.items()},
            "risks": list(self.risks),
        }

    def chances(self) -> NDArray[np.float64]:
        """The log-odds as chances at even odds, 0 where a token was not scored."""
        held = np.clip(np.nan_to_num(self.z.astype(float), nan=-30.0), -30, 30)
        chances: NDArray[np.float64] = 1 / (1 + np.exp(-held))
        return chances

    def strip(self) -> Html:
        """The conversation coloured by the concepts that stand out in it."""
        chances = self.chances()
        order = np.argsort(-np.quantile(chances, 0.95, axis=0), kind="stable")
        chosen = [int(n) for n in order[:_COLOURED]]
        latents = [
            LatentView(
                self.concepts[n],
                self.concepts[n] + (" (danger)" if self.concepts[n] in self.dangers else ""),
                shares=tuple(chances[:, n].tolist()),
            )
            for n in chosen
        ]
        tokens = [
            TokenView(
                text,
                at,
                tuple(
                    ActivationView(
                        self.concepts[n], float(self.z[at, n]), float(chances[at, n]), ""
                    )
                    for n in sorted(chosen, key=lambda n: -chances[at, n])
                    if np.isfinite(self.z[at, n])
                ),
            )
            for at, text in enumerate(self.texts)
        ]
        return token_strip(tokens, latents)


def watch_transcripts(
    lm: LanguageModel, detectors: Detectors, conversations: Sequence[Sequence[Mapping[str, Any]]]
) -> list[Watched]:
    """Reads whole conversations.

    Args:
        lm: the model.
        detectors: what is looked for, with a rule for jumps.
        conversations: each one's messages.

    Raises:
        UsageError: one is no conversation, or longer than the model can read.
    """
    if detectors.rule is None:
        raise UsageError("detectors with a rule for jumps", "none", "run `brainscan calibrate`")
    marked = []
    for number, messages in enumerate(conversations, 1):
        marked.append(marked_chat(lm, messages))
        n, window = len(marked[-1].tokens), lm.context_window
        if window is not None and n > window:
            raise UsageError(
                f"conversations of at most {window:,} tokens",
                f"{n:,} in number {number}",
                "leave it out, or cut it",
            )
    found = []
    for messages, one in zip(conversations, follow(lm, detectors, marked), strict=True):
        own = [m["content"] for m in messages if m["role"] == ASSISTANT]
        traced = trace(one, detectors.rule, detectors.names)
        found.append(_watched(lm, detectors, one.marked, one.z, traced, own[-1] if own else ""))
    return found


def watch_answer(
    lm: LanguageModel,
    detectors: Detectors,
    messages: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    *,
    edits: Sequence[Intervention] = (),
    on_alarm: Sequence[Intervention] = (),
    stop: bool = False,
    on_score: OnScore | None = None,
) -> Watched:
    """The model's answer to a conversation, watched as it is written.

    Args:
        lm: the model.
        detectors: what is looked for.
        messages: the conversation so far.
        sampling: how tokens are drawn.
        edits: what is changed all along.
        on_alarm: what is changed from an alarm on.
        stop: end the answer at an alarm; the token drawn then is dropped.
        on_score: called with each token's text and log-odds once the model has read it; with the
            last one's when the answer has ended, which the model never reads.
    """
    marked = marked_chat(lm, messages, generation_prompt=True)
    watch = Watch(detectors, marked.roles, on_alarm)
    special = set(lm.tokenizer.all_special_ids)
    written: list[int] = []

    def tell(z: NDArray[np.float32]) -> None:
        if on_score is not None and written[-1] not in special:
            on_score(lm.token_strings(written[-1:])[0], z)

    def heard(row: int, token: int) -> bool:
        if written:  # the one before was read by now
            tell(watch.scores[len(marked.tokens) + len(written) - 1])
        if stop and watch.alarms:
            return False
        written.append(token)
        return True

    made = generate(lm, [marked.tokens], sampling, edits=[*edits, watch], on_token=heard)[0]
    stopped = len(written) < len(made.tokens)
    if not stopped:
        tell(np.full(len(detectors.each), np.nan, np.float32))
    text = lm.decode(written) if stopped else made.text
    roles = [TEMPLATE if token in special else ASSISTANT for token in written]
    whole = MarkedTokens([*marked.tokens, *written], [*marked.roles, *roles], [], [])
    return _watched(lm, detectors, whole, *_seen(watch, len(whole.tokens)), text)


def _seen(watch: Watch, n: int) -> tuple[NDArray[np.float32], Traced]:
    """What a watch knows of the first tokens; of one that was not read there are no numbers."""
    read = min(n, len(watch.scores))
    z = np.full((n, len(watch.scores[0])), np.nan, np.float32)
    z[:read] = np.stack(watch.scores[:read])
    jumps = [*watch.jumps[:read], *[math.nan] * (n - read)]
    return z, Traced(jumps, [alarm for alarm in watch.alarms if alarm.token < n])


def _watched(
    lm: LanguageModel,
    detectors: Detectors,
    marked: MarkedTokens,
    z: NDArray[np.float32],
    traced: Traced,
    answer: str,
) -> Watched:
    asked: dict[str, float] = {}
    if detectors.rule is not None:
        messages = message_numbers(marked.roles)
        asked = asked_for(detectors.rule, detectors.names, z, marked.roles, messages)
    return Watched(
        texts=tuple(lm.token_strings(marked.tokens)),
        roles=tuple(marked.roles),
        concepts=detectors.names,
        dangers=frozenset(one.concept for one in detectors.each if one.danger),
        z=z,
        jumps=tuple(traced.jumps),
        alarms=tuple(traced.alarms),
        asked=asked,
        risks=risks_of(detectors, asked),
        answer=answer,
    )
