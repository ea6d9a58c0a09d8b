"""A document, its split, and what can be done to a stream of documents without holding it.

1. A document is plain text or a chat, never empty. Its content's sha256 names its split:
   90 in 100 train, 5 select, 5 test. Pieces of one larger text (a speech, a source file, a long
   conversation) share that text's hash as their `group`, so that they share its split.
2. `distinct` drops documents whose content came before.
3. `shuffled` keeps a window of documents and hands out one of them at random for each that
   comes in: a stream of any length is shuffled locally in bounded memory.
4. `interleaved` takes the next document from the source that has given the fewest characters
   for its weight (stride scheduling), so that the mix holds at any length; a source that has run
   out is left out from then on.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

Split = Literal["train", "select", "test"]

SHUFFLE_WINDOW = 1024
"""Documents held by `shuffled`."""

DISTINCT_WINDOW = 200_000
"""Content hashes remembered by `distinct`; the oldest are forgotten."""

MESSAGE_OVERHEAD = 16
"""Characters that a chat template adds to a message, roughly."""


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """A piece of text, or a chat: one of `text` and `messages` is set."""

    id: str
    """Where it came from: stable, unique within its corpus."""
    source: str
    """The name of the source it belongs to."""
    text: str | None = None
    """Plain text."""
    messages: tuple[Message, ...] | None = None
    """The turns of a chat."""
    group: str = ""
    """Hash of the larger text this is a piece of; empty for a whole text."""

    @cached_property
    def digest(self) -> str:
        """The sha256 of the content, in hex."""
        return content_hash(self.text if self.messages is None else self.messages)

    @property
    def split(self) -> Split:
        """The split that the content, or the larger text it is cut from, falls in."""
        return split_of(self.group or self.digest)

    @property
    def size(self) -> int:
        """Characters, with those that a chat template adds."""
        if self.messages is None:
            return len(self.text or "")
        return sum(len(message.content) + MESSAGE_OVERHEAD for message in self.messages)

    def chat(self) -> list[Mapping[str, str]]:
        """The messages as a chat template takes them."""
        return [message._asdict() for message in self.messages or ()]


def content_hash(content: str | Sequence[Message] | None) -> str:
    """The sha256 of a text, or of a chat's roles and contents, in hex."""
    if not isinstance(content, str):
        content = "\x1e".join(f"{role}\x1f{text}" for role, text in content or ())
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def split_of(digest: str) -> Split:
    """The split of a content with this sha256: 90% train, 5% select, 5% test."""
    share = int(digest[:12], 16) / 16**12
    return "train" if share < 0.9 else "select" if share < 0.95 else "test"


def cut(text: str, boundary: re.Pattern[str], target: int) -> Iterator[str]:
    """Cuts a text at boundaries into pieces of about `target` characters, at most four times it.

    Args:
        text: what is cut; nothing but boundaries is lost.
        boundary: matches the text between two blocks that may be parted.
        target: a piece is closed by the first block that brings it to this length.
    """
    start = end = 0
    for match in [*boundary.finditer(text), None]:
        stop = match.start() if match else len(text)
        while stop - start > 4 * target:
            end = end if end > start else start + 4 * target
            yield text[start:end]
            start = end
        end = stop
        if stop - start >= target or match is None:
            yield text[start:stop]
            start = end = match.end() if match else stop


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents whose content did not come before."""
    seen: dict[int, None] = {}
    for document in documents:
        key = int(document.digest[:16], 16)
        if key in seen:
            continue
        seen[key] = None
        if len(seen) > DISTINCT_WINDOW:
            del seen[next(iter(seen))]
        yield document


def shuffled(
    documents: Iterable[Document], rng: random.Random, window: int = SHUFFLE_WINDOW
) -> Iterator[Document]:
    """The same documents in an order shuffled within a window."""
    held: list[Document] = []
    for document in documents:
        if len(held) < window:
            held.append(document)
            continue
        place = rng.randrange(window)
        held[place], document = document, held[place]
        yield document
    rng.shuffle(held)
    yield from held


def interleaved(streams: Sequence[tuple[float, Iterator[Document]]]) -> Iterator[Document]:
    """The streams' documents mixed by weight in characters; deterministic."""
    open_streams = {place: stream for place, (_, stream) in enumerate(streams)}
    passed = [0.0] * len(streams)
    while open_streams:
        place = min(open_streams, key=lambda index: (passed[index], index))
        document = next(open_streams[place], None)
        if document is None:
            del open_streams[place]
            continue
        passed[place] += document.size / streams[place][0]
        yield document
