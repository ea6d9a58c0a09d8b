"""The texts an edit's cost is measured on: neutral passages and capability items, both ours.

`data/neutral.jsonl` holds passages of many registers, some of them chats; `data/capability.jsonl`
holds questions with four answers each. Both are read in a fixed order that mixes registers and
areas, so that the first n are a fair sample of all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from brainscan.errors import CorpusError
from brainscan.models import LanguageModel

DATA = Path(__file__).parent / "data"

_Text = TypeVar("_Text", "Passage", "Item")


@dataclass(frozen=True)
class Passage:
    """A neutral text, or a chat."""

    id: str
    """Its name, unique among the passages."""

    register: str
    """What kind of text it is."""

    text: str | None = None
    """The text; None for a chat."""

    messages: tuple[Mapping[str, str], ...] | None = None
    """The chat's messages, with role and content; None for a text."""


@dataclass(frozen=True)
class Item:
    """A question with four answers to choose from."""

    id: str
    """Its name, unique among the items."""

    area: str
    """What it asks about."""

    question: str
    """The question."""

    choices: tuple[str, str, str, str]
    """The answers."""

    answer: int
    """Which of them is right, counted from 0."""


class Tokens(NamedTuple):
    """A passage's tokens, and how many of them count as the prompt."""

    ids: list[int]
    prompt_length: int


def neutral_passages(limit: int | None = None, path: Path | None = None) -> list[Passage]:
    """The neutral passages, or the first so many of them.

    Args:
        limit: how many; None for all.
        path: a file of the same form to read instead.

    Raises:
        CorpusError: the file is missing, or a line of it is not a passage.
    """
    return _load(path or DATA / "neutral.jsonl", _passage, limit)


def capability_items(limit: int | None = None, path: Path | None = None) -> list[Item]:
    """The capability items, or the first so many of them.

    Args:
        limit: how many; None for all.
        path: a file of the same form to read instead.

    Raises:
        CorpusError: the file is missing, or a line of it is not an item.
    """
    return _load(path or DATA / "capability.jsonl", _item, limit)


def passage_tokens(lm: LanguageModel, passage: Passage) -> Tokens:
    """A passage as the model reads it.

    Of a chat whose last message is the assistant's, all before that message is the prompt; of any
    other passage, the first half is. The rest counts as response, so that an edit of responses has
    tokens to act on.

    Args:
        lm: the model.
        passage: the passage.
    """
    if passage.messages is None:
        ids = [*lm.opening, *lm.tokenize(passage.text or "")]
        return Tokens(ids, (len(ids) + 1) // 2)
    ids = lm.chat_tokens(passage.messages, generation_prompt=False)
    if passage.messages[-1]["role"] != "assistant":
        return Tokens(ids, (len(ids) + 1) // 2)
    asked = lm.chat_tokens(passage.messages[:-1], generation_prompt=True)
    return Tokens(ids, min(len(asked), len(ids) - 1))


def _load(path: Path, parse: Callable[[Any], _Text], limit: int | None) -> list[_Text]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"a UTF-8 file of JSON lines at {path}", str(error), "install brainscan again"
        ) from error
    texts = list(_parsed(path, content, parse))
    if not texts:
        raise CorpusError(f"at least one line in {path}", "none", "install brainscan again")
    texts.sort(key=lambda text: hashlib.sha256(text.id.encode()).digest())
    return list(islice(texts, limit))


def _parsed(path: Path, content: str, parse: Callable[[Any], _Text]) -> Iterator[_Text]:
    seen: set[str] = set()
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            text = parse(json.loads(line))
            if not text.id or text.id in seen:
                raise ValueError(f"the id {text.id!r} is empty or not unique")
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"a line of the form that {Path(__file__).name} describes",
                f"line {number} of {path}: {type(error).__name__}: {error}",
                "correct the line",
            ) from error
        seen.add(text.id)
        yield text


def _passage(line: Mapping[str, Any]) -> Passage:
    text, messages = line.get("text"), line.get("messages")
    if (text is None) == (messages is None):
        raise ValueError("it needs either text or messages")
    if messages is None:
        return Passage(_words(line["id"]), _words(line["register"]), text=_words(text))
    turns = tuple(
        {"role": _words(turn["role"]), "content": _words(turn["content"])} for turn in messages
    )
    if not turns:
        raise ValueError("it has no messages")
    return Passage(_words(line["id"]), _words(line["register"]), messages=turns)


def _item(line: Mapping[str, Any]) -> Item:
    choices: Sequence[str] = [_words(choice) for choice in line["choices"]]
    if len(set(choices)) != 4:
        raise ValueError("it needs four different choices")
    answer = line["answer"]
    if answer not in range(4) or isinstance(answer, bool):
        raise ValueError(f"the answer {answer!r} is none of 0, 1, 2, 3")
    first, second, third, fourth = choices
    return Item(
        _words(line["id"]),
        _words(line["area"]),
        _words(line["question"]),
        (first, second, third, fourth),
        int(answer),
    )


def _words(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} should be a text that is not empty")
    return value
