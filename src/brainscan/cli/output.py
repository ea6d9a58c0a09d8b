"""What every verb prints: one JSON object on stdout, or text for people; all else on stderr."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan.artifacts import write_file
from brainscan.stats import Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STYLES = ("", "on #3b2a10", "black on #a86f14", "bold black on #ffb000")


@contextmanager
def working() -> Iterator[None]:
    """Sends what libraries print meanwhile to stderr, so that stdout holds the result alone."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(payload: Mapping[str, Any]) -> None:
    """Prints one JSON object; figures that are no number become null."""
    text = json.dumps(_plain(payload), ensure_ascii=False, allow_nan=False)
    data = (text + "\n").encode("utf-8", "replace")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode())
    else:
        sys.stdout.flush()
        buffer.write(data)
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def console() -> Console:
    """The console on stdout, made when asked for since rich takes a while to import."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def visible(text: str) -> str:
    """Text that no terminal takes for a command: control characters are shown as one mark."""
    return _CONTROL.sub("\ufffd", text)


def heat(tokens: Sequence[str], shares: Sequence[float]) -> Text:
    """Tokens in one run, each on a background as strong as its share, from 0 to 1."""
    from rich.text import Text

    line = Text()
    for token, share in zip(tokens, shares, strict=True):
        shown = visible(token.replace("\n", "\u21b5").replace("\t", " "))
        line.append(shown, style=_STYLES[min(int(share * len(_STYLES)), len(_STYLES) - 1)])
    return line


def clocked_note() -> Callable[[str], None]:
    """Notes with the seconds since now before them."""
    started = time.monotonic()
    return lambda line: note(f"[{time.monotonic() - started:4.0f} s] {line}")


def note(message: str) -> None:
    """Tells the user something on stderr."""
    print(message, file=sys.stderr, flush=True)


def write_page(path: Path, html: str) -> None:
    """Writes an HTML file whole or not at all.

    Raises:
        DiskFullError: there is no space left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, html.encode("utf-8", "replace"))
