"""Answers in the forms that OpenAI's clients read: messages and texts, whole or in pieces."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from brainscan.models.generate import Generation
from brainscan.models.rows import Alternative
from brainscan.page.service import Answer, Piece

if TYPE_CHECKING:
    from inspect_ai.tool import ToolCall, ToolInfo

    from brainscan.models import LanguageModel

_NEVER = -9999.0
"""What stands for the logarithm of nothing, which JSON has no word for."""


@dataclass(frozen=True)
class Form(ABC):
    """A kind of answer."""

    lm: LanguageModel
    """The model."""
    logprobs: bool
    """Whether log-probabilities are wanted."""
    watch: bool
    """Whether concepts are wanted."""
    tools: tuple[ToolInfo, ...] = ()
    """What the model may call; then an answer is told as a whole, even in a stream."""

    kind = ""
    """What a whole answer is called."""
    part_kind = ""
    """What a piece is called."""
    prefix = ""
    """What identities begin with."""

    @abstractmethod
    def whole(self, pieces: Sequence[Piece], answer: Answer) -> dict[str, Any]:
        """A choice of a whole answer, without its number.

        Args:
            pieces: the answer's tokens.
            answer: the answer.
        """

    @abstractmethod
    def opening(self) -> dict[str, Any] | None:
        """The first part of a stream, if there is one before the first token."""

    @abstractmethod
    def part(self, text: str, piece: Piece | None, at: int) -> dict[str, Any]:
        """A part of a stream.

        Args:
            text: what it adds.
            piece: the token, where what is known of it is wanted.
            at: how many characters were there before.
        """

    @abstractmethod
    def last(self, answer: Answer) -> dict[str, Any]:
        """The last part of a stream.

        Args:
            answer: the answer.
        """

    def watched(self, pieces: Sequence[Piece], answer: Answer | None) -> dict[str, Any]:
        """What was watched, as a field of a choice.

        Args:
            pieces: tokens.
            answer: for its alarms and risks, where they are known.
        """
        if not self.watch:
            return {}
        tokens = [
            {
                "text": piece.text,
                "concepts": {name: _number(z) for name, z in piece.concepts.items()},
                "jump": _number(piece.jump),
            }
            for piece in pieces
        ]
        alarms = [
            {**alarm._asdict(), "score": _number(alarm.score)}
            for alarm in (answer.alarms if answer else ())
        ]
        risks = list(answer.risks) if answer else []
        return {"brainscan": {"tokens": tokens, "alarms": alarms, "risks": risks}}

    def string(self, token: int) -> str:
        """A token's text."""
        return self.lm.token_strings([token])[0]


@dataclass(frozen=True)
class ChatForm(Form):
    """A message of a conversation."""

    kind = "chat.completion"
    part_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def whole(self, pieces: Sequence[Piece], answer: Answer) -> dict[str, Any]:
        """A message."""
        text, calls = self._parsed(answer.generation)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = [_called(call) for call in calls]
        return {
            "message": message,
            "logprobs": self._logprobs(pieces),
            "finish_reason": "tool_calls" if calls else finish_reason(answer.generation),
            **self.watched(pieces, answer),
        }

    def opening(self) -> dict[str, Any] | None:
        """Says who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"delta": delta, "logprobs": None, "finish_reason": None}

    def part(self, text: str, piece: Piece | None, at: int) -> dict[str, Any]:
        """More of the message."""
        pieces = [] if piece is None else [piece]
        return {
            "delta": {"content": text} if text or not self.tools else {},
            "logprobs": self._logprobs(pieces) if pieces else None,
            "finish_reason": None,
            **self.watched(pieces, None),
        }

    def last(self, answer: Answer) -> dict[str, Any]:
        """Why it ends, and what was held back until it was known whether tools are called."""
        delta: dict[str, Any] = {}
        calls: Sequence[ToolCall] = ()
        if self.tools:
            text, calls = self._parsed(answer.generation)
            if text:
                delta["content"] = text
            if calls:
                told = [{"index": n, **_called(call)} for n, call in enumerate(calls)]
                delta["tool_calls"] = told
        return {
            "delta": delta,
            "logprobs": None,
            "finish_reason": "tool_calls" if calls else finish_reason(answer.generation),
            **self.watched([], answer),
        }

    def _parsed(self, made: Generation) -> tuple[str, Sequence[ToolCall]]:
        """The text and the calls; an answer whose calls cannot be understood is all text."""
        if not self.tools:
            return made.text, ()
        from brainscan.stress.tool_calls import parse_answer

        found = parse_answer(made.text, self.tools, f"call-{uuid4().hex[:12]}")
        if any(call.parse_error for call in found.calls):
            return made.text, ()
        return found.text, found.calls

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {
                **self._token(Alternative(piece.token, piece.logprob)),
                "top_logprobs": [self._token(one) for one in piece.alternatives],
            }
            for piece in pieces
        ]
        return {"content": content, "refusal": None}

    def _token(self, one: Alternative) -> dict[str, Any]:
        text = self.string(one.token)
        whole = "\ufffd" not in self.lm.decode([one.token])
        return {
            "token": text,
            "logprob": logprob(one.logprob),
            "bytes": list(text.encode()) if whole else None,
        }


@dataclass(frozen=True)
class TextForm(Form):
    """The continuation of a text."""

    kind = "text_completion"
    part_kind = "text_completion"
    prefix = "cmpl"

    def whole(self, pieces: Sequence[Piece], answer: Answer) -> dict[str, Any]:
        """A text."""
        return {
            "text": answer.generation.text,
            "logprobs": self._logprobs(pieces),
            "finish_reason": finish_reason(answer.generation),
            **self.watched(pieces, answer),
        }

    def opening(self) -> dict[str, Any] | None:
        """None."""
        return None

    def part(self, text: str, piece: Piece | None, at: int) -> dict[str, Any]:
        """More of the text."""
        pieces = [] if piece is None else [piece]
        return {
            "text": text,
            "logprobs": self._logprobs(pieces, at) if pieces else None,
            "finish_reason": None,
            **self.watched(pieces, None),
        }

    def last(self, answer: Answer) -> dict[str, Any]:
        """Why it ends."""
        reason = finish_reason(answer.generation)
        return {
            "text": "",
            "logprobs": None,
            "finish_reason": reason,
            **self.watched([], answer),
        }

    def _logprobs(self, pieces: Sequence[Piece], place: int = 0) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        offsets = []
        for piece in pieces:
            offsets.append(place)
            place += len(piece.text)
        return {
            "tokens": [self.string(piece.token) for piece in pieces],
            "token_logprobs": [logprob(piece.logprob) for piece in pieces],
            "top_logprobs": [
                {self.string(one.token): logprob(one.logprob) for one in piece.alternatives}
                for piece in pieces
            ],
            "text_offset": offsets,
        }


def finish_reason(made: Generation) -> str:
    """Why an answer ended, in OpenAI's words.

    Args:
        made: the answer.
    """
    return "length" if made.stop_reason == "length" else "stop"


def usage(prompts: Sequence[Generation], made: Sequence[Generation]) -> dict[str, Any]:
    """How many tokens were read and written.

    Args:
        prompts: one answer to each prompt.
        made: all answers.
    """
    read = sum(len(one.prompt_tokens) for one in prompts)
    written = sum(len(one.tokens) for one in made)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached for one in prompts)},
    }


def logprob(value: float) -> float:
    """A log-probability as a number that JSON has.

    Args:
        value: the log-probability.
    """
    return value if math.isfinite(value) else _NEVER


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _called(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.function, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
