"""A conversation without its screen: what the model is given, and what it wrote.

1. Messages go through the model's template; which tokens are of which message is kept.
2. An answer is written as a stream. Cancelled, its row ends at the next token, and what was written
   until then stays.
3. Where there are detectors, concepts and jumps are told of as the tokens come.
4. Afterwards prompt and answer are read in one pass, under the same edits, for the strips.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from brainscan.errors import UsageError
from brainscan.models.generate import Sampling
from brainscan.page.screens.address import ChatState
from brainscan.page.service import Answer, Ask, Piece, Reading, Service

if TYPE_CHECKING:
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel

Message = Mapping[str, str]
"""A message's role and content."""

OnPieces = Callable[[Sequence[Piece]], None]
"""Called with an answer's tokens as they come, some times a second."""

_PAUSE = 0.08


@dataclass(frozen=True)
class Prompt:
    """A conversation as the model is to see it."""

    tokens: tuple[int, ...]
    """Its tokens, with the beginning of the answer."""
    roles: tuple[str, ...] = ()
    """The role of each token; empty where the tokenizer cannot say."""
    last: tuple[int, int] = (0, 0)
    """The tokens of the last message: the first, and the one after the last."""


@dataclass(frozen=True)
class Written:
    """An answer, whole or stopped."""

    prompt: Prompt
    """What was asked."""
    edits: tuple[Edit, ...]
    """What was changed meanwhile."""
    pieces: tuple[Piece, ...]
    """Its tokens."""
    stopped: bool = False
    """Whether it was stopped before its end."""
    state: ChatState = field(default_factory=ChatState)
    """How it was drawn: length, temperature, seed."""
    reading: Reading | None = None
    """Prompt and answer, read; None before that."""

    @property
    def text(self) -> str:
        """Its text."""
        return text_of(self.pieces)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Its tokens, an end-of-sequence token among them."""
        return tuple(piece.token for piece in self.pieces)


def prompt_of(lm: LanguageModel, messages: Sequence[Message]) -> Prompt:
    """A conversation through the model's template.

    Args:
        lm: the model.
        messages: the conversation; the answer is to follow.
    """
    from brainscan.monitoring.roles import marked_chat

    try:
        marked = marked_chat(lm, messages, generation_prompt=True)
    except UsageError:  # a tokenizer that does not say where its tokens come from
        return Prompt(tuple(lm.chat_tokens(messages)))
    own = [i for i, number in enumerate(marked.messages) if number == len(messages) - 1]
    last = (own[0], own[-1] + 1) if own else (0, 0)
    return Prompt(tuple(marked.tokens), tuple(marked.roles), last)


def sampling_of(state: ChatState) -> Sampling:
    """How answers of a chat are drawn.

    Args:
        state: the chat's state.
    """
    return Sampling(max_new_tokens=state.most, temperature=state.temperature)


async def write(
    service: Service,
    prompt: Prompt,
    state: ChatState,
    edits: tuple[Edit, ...],
    tell: OnPieces,
    *,
    watch: bool = False,
) -> Written:
    """Writes an answer; if the task is cancelled, what was written until then comes back.

    Args:
        service: the model.
        prompt: what is asked.
        state: how to draw.
        edits: what is changed meanwhile.
        tell: called with what there is so far.
        watch: whether each token's concepts are wanted, if there are detectors.
    """
    watch = watch and service.detectors is not None and bool(prompt.roles)
    ask = Ask(prompt.tokens, sampling_of(state), state.seed, edits, watch, prompt.roles)
    pieces: list[Piece] = []
    said = 0.0
    try:
        async with aclosing(service.stream(ask)) as items:
            async for item in items:
                if isinstance(item, Answer):
                    tell(pieces)
                    return Written(prompt, edits, tuple(pieces), state=state)
                pieces.append(item)
                if time.monotonic() - said > _PAUSE:
                    said = time.monotonic()
                    tell(pieces)
    except asyncio.CancelledError:
        tell(pieces)
    return Written(prompt, edits, tuple(pieces), stopped=True, state=state)


def text_of(pieces: Sequence[Piece]) -> str:
    """The text of an answer, or of as much of it as there is.

    Args:
        pieces: its tokens.
    """
    return "".join(piece.text for piece in pieces)


async def with_reading(service: Service, written: Written) -> Written:
    """An answer with what one more pass over it tells.

    Args:
        service: the model.
        written: the answer.
    """
    prompt, tokens = written.prompt, (*written.prompt.tokens, *written.tokens)
    roles = (*prompt.roles, *("assistant" for _ in written.tokens)) if prompt.roles else ()
    reading = await service.read(tokens, written.edits, roles=roles, written=len(written.tokens))
    return replace(written, reading=reading)


def answer_span(lm: LanguageModel, written: Written) -> tuple[int, int]:
    """The answer's tokens within its reading, without the one that ended it.

    Args:
        lm: the model.
        written: the answer.
    """
    start = len(written.prompt.tokens)
    read = len(written.reading.tokens) if written.reading is not None else start
    ends = bool(written.pieces) and not written.pieces[-1].text and not written.stopped
    return start, max(min(start + len(written.tokens) - ends, read), start)
