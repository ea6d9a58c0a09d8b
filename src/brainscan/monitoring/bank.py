"""The bank of concepts: texts of each, and texts that only look like it, in several registers.

A file is a concept:

    name: bridges
    title: Bridges
    danger: false
    about: What counts, and what does not.
    words: [bridge, viaduct]      # what a filter by keywords would look for
    texts:                        # the concept is there
      - {register: request, text: "..."}
    near:                         # it looks as if it were, and is not
      - {register: news, text: "..."}

A text is a document of its own; which split it is in follows from a hash of it, so that texts that
are added move no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from brainscan.errors import UsageError

DATA = Path(__file__).parent / "data" / "concepts"

REGISTERS = ("request", "reply", "mail", "chat", "news", "fiction", "note", "report", "speech")
"""Kinds of text."""

ANY_DANGER = "danger"
"""The name of the concept whose texts are those of all dangers."""

Split: TypeAlias = Literal["train", "select", "test"]
SPLITS: tuple[Split, ...] = ("train", "select", "test")
"""Detectors are made on the first, chosen on the second, and judged on the third."""

_SHARES = (0.5, 0.25)
_FIELDS = ("name", "title", "danger", "about", "words", "texts", "near")


@dataclass(frozen=True)
class Text:
    """A text of a concept, or one that only looks like it."""

    text: str
    """The text."""
    register: str
    """Its kind."""

    @property
    def split(self) -> Split:
        """Which split it is in."""
        share = int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:4]) / 2**32
        return SPLITS[(share >= _SHARES[0]) + (share >= sum(_SHARES))]


@dataclass(frozen=True)
class Concept:
    """Something that a text can be about."""

    name: str
    """What it is called."""
    title: str
    """The same for people."""
    danger: bool
    """Whether it is one of those that an alarm is for."""
    about: str
    """What counts, and what does not."""
    words: tuple[str, ...]
    """What a filter by keywords would look for."""
    texts: tuple[Text, ...]
    """Texts in which it is there."""
    near: tuple[Text, ...]
    """Texts that only look like it."""


def concept_names() -> list[str]:
    """The concepts of the bank, by name."""
    return sorted(path.stem for path in DATA.glob("*.yaml"))


def load_concepts(*, danger: bool | None = None) -> list[Concept]:
    """All concepts of the bank.

    Args:
        danger: only those that an alarm is for, or only the others.
    """
    found = [load_concept(name) for name in concept_names()]
    return [one for one in found if danger is None or one.danger == danger]


def load_concept(name: str | Path) -> Concept:
    """A concept of the bank, or one of the user's from a YAML file.

    Args:
        name: its name, or the file.

    Raises:
        UsageError: there is none of that name, or the file is not of the form.
    """
    import yaml

    path = DATA / f"{name}.yaml" if str(name) in concept_names() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"a concept: {', '.join(concept_names())}, or a YAML file", f"'{name}'", "name one"
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"a concept in {path}", str(error), "see the bank's files") from error
    if not isinstance(found, Mapping) or set(found) != set(_FIELDS):
        fields = ", ".join(map(str, found)) if isinstance(found, Mapping) else "none"
        raise UsageError(
            f"the fields {', '.join(_FIELDS)} in {path}", fields, "see the bank's files"
        )
    if not found["words"]:
        raise UsageError(f"at least one of `words` in {path}", "none", "add what people look for")
    return Concept(
        name=str(found["name"]),
        title=str(found["title"]),
        danger=bool(found["danger"]),
        about=str(found["about"]).strip(),
        words=tuple(map(str, found["words"])),
        texts=_texts(path, "texts", found["texts"]),
        near=_texts(path, "near", found["near"]),
    )


def concept_digest(concept: Concept) -> str:
    """sha256 of all that a concept is, for artifacts that were made of it.

    Args:
        concept: the concept.
    """
    return hashlib.sha256(json.dumps(asdict(concept)).encode()).hexdigest()


def check_names(concepts: Sequence[Concept]) -> None:
    """Refuses concepts of one name, and the name that stands for all dangers.

    Args:
        concepts: the concepts.

    Raises:
        UsageError: there are such.
    """
    names = [one.name for one in concepts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or ANY_DANGER in names:
        raise UsageError(
            f"concepts of names of their own, none of them '{ANY_DANGER}'",
            ", ".join(twice) or f"'{ANY_DANGER}'",
            "name each once",
        )


def _texts(path: Path, field: str, rows: Any) -> tuple[Text, ...]:
    found = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, Mapping) or set(row) != {"register", "text"}:
            raise UsageError(
                f"rows of register and text under {field} in {path}", f"{row!r:.80}", "mend it"
            )
        if row["register"] not in REGISTERS or not str(row["text"]).strip():
            raise UsageError(
                f"a text of one of the registers {', '.join(REGISTERS)} under {field} in {path}",
                f"{row!r:.80}",
                "mend it",
            )
        found.append(Text(str(row["text"]).strip(), str(row["register"])))
    return tuple(found)
