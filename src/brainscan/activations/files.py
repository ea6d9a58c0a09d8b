"""Documents from the user's own files: txt and md, jsonl, parquet, or a folder of these.

1. A text file up to 8,000 characters is one document.
2. A longer one is read line by line and cut at its top-level headings (`# Title` in markdown,
   ` = Title = ` in wikitext), each section a document; as long as no heading has come, at blank
   lines into groups of about 2,000 characters. No document passes 64,000 characters; the pieces of
   a longer section share its split.
3. In a folder, a text file without headings is one text: its pieces share a split. Alone, its
   groups are documents of their own, or nothing of it could be held out.
4. A line of jsonl, or a row of parquet, is a document: `text` (or `content`), or a chat's
   `messages`. Nothing is read before it is needed, so that files may be of any size.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from brainscan.activations.documents import Document, Message, content_hash
from brainscan.artifacts import file_sha256
from brainscan.errors import CorpusError, MissingExtraError

WHOLE = 8_000
"""Characters up to which a text file is one document."""

GROUP = 2_000
"""Characters after which a blank line ends a document in a text without headings."""

LONGEST = 64_000
"""Characters of the longest document; longer ones are cut."""

BLOCK = 1 << 20
"""Bytes read at a time."""

HEADING = re.compile(r"(# \S.*| ?= (?!= )\S.* =\s*)$")
_ASK = 10.0
"""Seconds to wait for the hub's answer."""

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")


def read_path(path: Path, rng: random.Random | None = None) -> Iterator[Document]:
    """The documents of a file, or of the files in a folder (in a shuffled order if given `rng`)."""
    if not path.exists():
        raise CorpusError("a text file or folder", f"no such file: {path}", "check the path")
    if not path.is_dir():
        return read_file(path, path.name)
    files = _files(path)
    if rng is not None:
        rng.shuffle(files)
    return (
        document
        for file in files
        for document in read_file(file, file.relative_to(path).as_posix(), whole=True)
    )


def hash_path(path: Path) -> str:
    """A hash of a file's content, or of the names and contents of a folder's files."""
    if not path.is_dir():
        return file_sha256(path)
    lines = (f"{p.relative_to(path).as_posix()}\0{file_sha256(p)}\n" for p in _files(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_file(path: Path, name: str, *, whole: bool = False) -> Iterator[Document]:
    """The documents of one file, in its order; ids are `name` and a running number.

    Args:
        path: the file.
        name: what its documents are called by.
        whole: whether a text without headings belongs together.
    """
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    return _read_text(path, name, whole) if reader is None else reader(path, name)


def as_document(row: Mapping[str, Any], identity: str, source: str, where: str) -> Document | None:
    """A document from a record with `text`, `content` or `messages`; None if it is blank."""
    messages = row.get("messages")
    if messages is not None:
        return _as_chat(messages, identity, source, where)
    text = row.get("text", row.get("content"))
    if not isinstance(text, str):
        raise CorpusError(
            "a record with the key 'text', 'content' or 'messages'",
            f"keys {sorted(row)} at {where}",
            "rename the key that holds the text",
        )
    return Document(identity, source, text=text) if text.strip() else None


def _as_chat(messages: Any, identity: str, source: str, where: str) -> Document | None:
    """A chat from a list of {role, content}."""
    try:
        turns = tuple(Message(str(m["role"]), str(m["content"])) for m in messages)
    except (TypeError, KeyError) as error:
        raise CorpusError(
            "messages as a list of {role, content}",
            f"{type(error).__name__} {error} at {where}",
            "give each message a role and a content",
        ) from error
    return Document(identity, source, messages=turns) if turns else None


def _files(folder: Path) -> list[Path]:
    """The files in a folder that hold text, by name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
    if not files:
        raise CorpusError(
            f"files ending in {', '.join(SUFFIXES)}", f"none in {folder}", "name another folder"
        )
    return files


class _Piece(NamedTuple):
    """A part of a text file."""

    text: str
    goes_on: bool
    """Whether it belongs to the section of the piece before."""


def _read_text(path: Path, name: str, whole: bool) -> Iterator[Document]:
    if path.stat().st_size <= WHOLE:
        pieces: Iterator[_Piece] = iter([_Piece("".join(_lines(path)), False)])
    else:
        pieces = _sections(path, whole)
    kept = (piece for piece in pieces if piece.text.strip())
    group = ""
    for number, piece in enumerate(kept):
        if not piece.goes_on or not group:
            group = content_hash(piece.text)
        yield Document(f"{name}#{number}", name, text=piece.text, group=group)


def _sections(path: Path, whole: bool) -> Iterator[_Piece]:
    """The sections of a long text file, or groups of its paragraphs."""
    held: list[str] = []
    size = 0
    headed = goes_on = False
    for line in _lines(path, longest=LONGEST):
        is_heading = HEADING.match(line) is not None
        is_full = size + len(line) > LONGEST
        if is_heading or is_full:
            yield _Piece("".join(held), goes_on)
            held, size = [], 0
            goes_on = not is_heading and (headed or whole)
        headed = headed or is_heading
        held.append(line)
        size += len(line)
        if not headed and size >= GROUP and not line.strip():
            yield _Piece("".join(held), goes_on)
            held, size = [], 0
            goes_on = whole
    yield _Piece("".join(held), goes_on)


def _read_jsonl(path: Path, name: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        where = f"{path}:{number + 1}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(
                "one JSON object a line", f"{error.msg} at {where}", "mend it"
            ) from error
        if not isinstance(row, dict):
            raise CorpusError("one JSON object a line", f"{line[:40]!r} at {where}", "mend it")
        document = as_document(row, f"{name}#{number}", name, where)
        if document is not None:
            yield document


def _read_parquet(path: Path, name: str) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise CorpusError("a parquet file", f"{path}: {error}", "write it again") from error
    with file:
        names = file.schema_arrow.names
        columns = [column for column in ("messages", "text", "content") if column in names][:1]
        if not columns:
            raise CorpusError(
                "a column 'text', 'content' or 'messages'",
                f"columns {names} in {path}",
                "rename the column that holds the text",
            )
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                identity = f"{name}#{number}"
                number += 1
                if row[columns[0]] is None:
                    continue
                document = as_document(row, identity, name, f"row {number} of {path}")
                if document is not None:
                    yield document


def read_hub(name: str) -> Iterator[Document]:
    """The documents of a dataset's train part, streamed, where `datasets` is installed."""
    try:
        from datasets import load_dataset  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("datasets") from error
    revision = hub_revision(name)
    rows = load_dataset(name, split="train", streaming=True, revision=revision or None)
    for number, row in enumerate(rows):
        document = as_document(row, f"{name}#{number}", name, f"row {number} of {name}")
        if document is not None:
            yield document


@cache
def hub_revision(name: str) -> str:
    """The commit of a dataset that this process reads; empty where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name, timeout=_ASK).sha or ""
    except Exception:  # whatever the network says, a copy on disk may still be read
        return ""


def _lines(path: Path, longest: int | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, read a block at a time; a line past `longest` is cut."""
    held = ""
    with path.open("rb") as file:
        for text in decoded(iter(partial(file.read, BLOCK), b""), str(path)):
            held += text
            *lines, held = held.split("\n")
            yield from (line + "\n" for line in lines)
            while longest is not None and len(held) > longest:
                yield held[:longest]
                held = held[longest:]
    if held:
        yield held


def decoded(blocks: Iterable[bytes], source: str) -> Iterator[str]:
    """The text of blocks of UTF-8, without its byte order mark.

    Args:
        blocks: the bytes, parted anywhere.
        source: where they come from, for an error's message.

    Raises:
        CorpusError: they are not UTF-8.
    """
    offset = 0
    pending = b""
    for block in chain(blocks, [b""]):
        pending += block
        if offset == 0 and pending.startswith(codecs.BOM_UTF8):
            pending, offset = pending[3:], 3
        try:
            text, used = codecs.utf_8_decode(pending, "strict", not block)
        except UnicodeDecodeError as error:
            raise CorpusError(
                "text in UTF-8",
                f"byte {pending[error.start]:#04x} at offset {offset + error.start} of {source}",
                "convert it, for example: iconv -f latin1 -t utf-8",
            ) from error
        yield text
        offset += used
        pending = pending[used:]
