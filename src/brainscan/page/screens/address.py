"""A chat's whole state in its address, so that it can be shared and bookmarked.

Answers are not kept: the same messages, edits and seed give the same answers again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from urllib.parse import urlencode

from brainscan.errors import UsageError

LONGEST = 16_000
"""Characters of an address at most; browsers and servers refuse longer ones."""


@dataclass(frozen=True)
class ChatState:
    """All that a chat depends on."""

    asked: tuple[str, ...] = ()
    """The user's messages, in order."""
    system: str = ""
    """The system message; empty for none."""
    edits: tuple[str, ...] = ()
    """The edits that are switched on, as ``steer`` takes them or by the names they are saved by."""
    off: tuple[str, ...] = ()
    """The edits that are listed but switched off."""
    most: int = 96
    """Tokens of an answer at most."""
    temperature: float = 0.0
    """Of the sampling."""
    seed: int = 0
    """Of the noise."""
    colour: str = ""
    """What colours the text: a feature, a concept or the surprise; empty for what stands out."""
    feature: str = ""
    """The feature whose strength is tried; empty for none."""
    strength: float = 2.0
    """How strongly, in multiples of its maximum."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UsageError("at least one token of an answer", str(self.most), "raise most")

    def query(self) -> str:
        """The state as an address' query; what is as it is by default is left out."""
        default = ChatState()
        pairs: list[tuple[str, str]] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value == getattr(default, item.name):
                continue
            many = value if isinstance(value, tuple) else (value,)
            pairs += [
                (item.name, plain(part) if isinstance(part, float) else str(part)) for part in many
            ]
        return urlencode(pairs, errors="replace")


def plain(number: float) -> str:
    """A number as one types it, with all its digits.

    Args:
        number: the number.
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def read_state(pairs: Iterable[tuple[str, str]]) -> ChatState:
    """The state that an address says; what is none of ours is left aside.

    Args:
        pairs: names and values of the address' query.

    Raises:
        UsageError: a value is not of its kind.
    """
    default = ChatState()
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    values: dict[str, object] = {}
    for item in fields(ChatState):
        if item.name in found:
            kind = type(getattr(default, item.name))
            values[item.name] = _value(item.name, kind, found[item.name])
    return ChatState(**values)  # type: ignore[arg-type]


def _value(name: str, kind: type, texts: list[str]) -> object:
    if kind is tuple:
        return tuple(texts)
    try:
        value = kind(texts[-1])
    except ValueError:
        raise UsageError(
            f"a number as {name} in the address", repr(texts[-1]), "correct the address"
        ) from None
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        raise UsageError(f"a finite number as {name}", texts[-1], "correct the address")
    return value
