"""HTML from text that nobody vouches for.

Every string that a view did not write itself goes through :func:`escape`, which also makes
visible what would hide or reorder text: control characters and bidirectional overrides.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NewType

Html = NewType("Html", str)
"""Markup that is safe to put in a page as it is."""

MINUS = "\u2212"
TIMES = "\u00d7"
NONE = "\u2013"

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ID = re.compile(r"[^a-z0-9]+")


def escape(text: str) -> Html:
    """Text as HTML: markup inert, control and direction characters shown by name."""
    text = _SURROGATE.sub("\ufffd", text)
    return Html(html.escape(_HIDDEN.sub(_name_hidden, text), quote=True))


def token_text(text: str, *, breaks: bool) -> Html:
    """A token's text with its line breaks and tabs shown.

    Args:
        text: the token's text.
        breaks: whether a line break also starts a new line.
    """
    mark = '<span class="bs-mark">{}</span>{}'
    escaped = escape(text.replace("\r\n", "\n"))
    escaped = Html(escaped.replace("\n", mark.format("↵", "\n" if breaks else "")))
    return Html(escaped.replace("\t", mark.format("⇥", "\t" if breaks else " ")))


def token_label(text: str) -> str:
    """A token's text on one line, line breaks, tabs and mere spaces shown: a name, not yet HTML."""
    if not text.strip(" "):
        return "␣" * len(text) or "(empty)"
    return text.replace("\r\n", "↵").replace("\n", "↵").replace("\t", "⇥")


def parted(text: str) -> tuple[str, str]:
    """A token's leading spaces and the rest, so that colour is not put on the space before a word.

    A token of spaces alone is all rest.
    """
    word = text.lstrip(" ")
    return (text[: len(text) - len(word)], word) if word else ("", text)


def script_data(value: object) -> Html:
    """Data for a script, as JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Html(f'<script type="application/json">{text}</script>')


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Puts pieces of markup one after the other."""
    return Html(separator.join(parts))


def slug(text: str) -> str:
    """A name for an element's id."""
    return _ID.sub("-", text.lower()).strip("-") or "part"


@cache
def asset(name: str) -> str:
    """A style sheet or script of ours."""
    return (files("brainscan.views") / "assets" / name).read_text(encoding="utf-8")


def number(value: float) -> str:
    """A number at a length fit for reading."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:.1g}" if 0 < size < 0.01 else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def percent(value: float) -> str:
    """A fraction as a percentage at a length fit for reading."""
    if not math.isfinite(value):
        return number(value)
    size = abs(value) * 100
    digits = 0 if size >= 10 or not size else 1 if size >= 1 else 2 if size >= 0.1 else 3
    return f"{value * 100:.{digits}f}%".replace("-", MINUS)


def _name_hidden(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
