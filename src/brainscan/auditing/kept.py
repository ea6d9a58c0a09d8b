"""Figures of a long step, written down as they are measured, so that a killed audit goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainscan.stats import Estimate


class Kept:
    """A file with a line of JSON for each thing measured."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a last line that was cut off is measured again.

        Args:
            path: the file; it may not be there yet.
        """
        self.path = path
        self.lines = {line["key"]: line["value"] for line in read_lines(path)}

    def aside(self, name: str) -> Kept:
        """Another file beside this one, for figures of the same keys.

        Args:
            name: what it begins with.
        """
        return Kept(self.path.with_name(f"{name}-{self.path.name}"))

    def __call__(self, key: str, measure: Callable[[], Any]) -> Any:
        """What is kept under a key, measured now if nothing is.

        Args:
            key: what it is.
            measure: gives something JSON can say.
        """
        if key not in self.lines:
            value = measure()
            add_lines(self.path, [{"key": key, "value": value}])
            self.lines[key] = json.loads(json.dumps(value))
        return self.lines[key]

    def estimate(self, key: str, measure: Callable[[], Estimate]) -> Estimate:
        """The same for an estimate.

        Args:
            key: what it is.
            measure: gives it.
        """
        return Estimate.from_json(self(key, lambda: measure().to_json()))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, as JSON; a last one that was cut off is taken away.

    Args:
        path: the file; none where it is not there.
    """
    if not path.is_file():
        return []
    whole, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        path.write_bytes(whole + end)
    return [json.loads(line) for line in whole.decode().split("\n")] if whole else []


def add_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Adds lines to a file at once.

    Args:
        path: the file.
        lines: what goes into each.
    """
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
