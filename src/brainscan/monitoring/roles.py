"""A conversation's tokens, and which message each of them is of.

The template is filled in with marks first, which says what it writes before each message; the same
is then looked for in the text. A token belongs to a message where it holds one of its characters;
all others are the template's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from brainscan.errors import UsageError
from brainscan.models import LanguageModel

TEMPLATE = ""
"""The role of tokens that belong to no message."""

USER = "user"
"""The role of what is asked."""

ASSISTANT = "assistant"
"""The role of what the model itself says."""


class MarkedTokens(NamedTuple):
    """Tokens, and what each is part of."""

    tokens: list[int]
    roles: list[str]
    """The role of each token's message; `TEMPLATE` where it has none."""
    messages: list[int]
    """The number of each token's message; -1 where it has none."""
    starts: list[int]
    """Where in its message's text each token begins; -1 where it has none."""


class _Span(NamedTuple):
    start: int
    stop: int
    message: int


def marked_chat(
    lm: LanguageModel, messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool = False
) -> MarkedTokens:
    """A conversation through the model's template, as `LanguageModel.chat_tokens` makes it.

    Args:
        lm: the model.
        messages: the conversation, with "role" and "content".
        generation_prompt: end with the beginning of the assistant's turn.

    Raises:
        UsageError: the tokenizer does not say where its tokens come from, a message is none, or
            the template does not write it as it is.
    """
    check_messages(messages)
    text = lm.chat_text(messages, generation_prompt=generation_prompt)
    if not lm.tokenizer.is_fast:
        raise UsageError(
            "a tokenizer that says where its tokens come from",
            f"{type(lm.tokenizer).__name__} of {lm.name}",
            "load the model with its fast tokenizer",
        )
    found = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = _places(_spans(lm, text, messages), found["offset_mapping"])
    return MarkedTokens(
        list(found["input_ids"]),
        [TEMPLATE if at is None else str(messages[at.message]["role"]) for at, _ in places],
        [-1 if at is None else at.message for at, _ in places],
        [start for _, start in places],
    )


def message_numbers(roles: Sequence[str]) -> list[int]:
    """The number of each token's message, where only roles are known: a run of one is a message.

    Args:
        roles: the role of each token; the template's stand between messages.
    """
    changes = (int(one != before) for before, one in pairwise(roles))
    return list(accumulate(changes, initial=0)) if roles else []


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what is no conversation.

    Args:
        messages: the conversation.

    Raises:
        UsageError: there is no message, or one without a role or a text.
    """
    for message in messages or [{}]:
        if not (isinstance(message, Mapping) and isinstance(message.get("content"), str)):
            raise UsageError(
                'messages with "role" and "content", the content a text',
                f"{message!r:.80}",
                "mend the conversation",
            )
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise UsageError("a role in each message", f"{message!r:.80}", "add it")


def _spans(lm: LanguageModel, text: str, messages: Sequence[Mapping[str, Any]]) -> list[_Span]:
    """Where each message's content stands in the text; an empty one stands nowhere.

    Raises:
        UsageError: the template leaves a message out, or writes it otherwise.
    """
    marks = [f"\u2063{number}\u2063" for number in range(len(messages))]
    held = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    frame = lm.chat_text(held, generation_prompt=False)
    spans, begin = [], 0
    for number, (message, mark) in enumerate(zip(messages, marks, strict=True)):
        before, found, after = frame.partition(mark)
        if found:
            frame, begin = after, begin + len(before)
        content = str(message["content"])
        content = content if text.startswith(content, begin) else content.strip()
        if not content:
            continue
        start = text.find(content, begin)
        if start < 0:
            raise UsageError(
                f"a chat template of {lm.name} that writes each message as it is",
                f"none for {content[:40]!r} of {message['role']}",
                "leave the message out, or give it another role",
            )
        begin = start + len(content)
        spans.append(_Span(start, begin, number))
    return spans


def _places(
    spans: Sequence[_Span], offsets: Sequence[Sequence[int]]
) -> list[tuple[_Span | None, int]]:
    """Each token's span, and where in it the token begins."""
    places: list[tuple[_Span | None, int]] = []
    current = 0
    for start, stop in offsets:
        while current < len(spans) and spans[current].stop <= start:
            current += 1
        at = spans[current] if current < len(spans) and stop > spans[current].start else None
        places.append((at, -1 if at is None else max(0, start - at.start)))
    return places
