"""Edits from the lines that come with a request; files are read below one folder only."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainscan.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel

LINES = 64
"""Lines of a request at most."""

_KEPT = 256
_LONGEST = 400
_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*")
_PLAIN = re.compile(r"[\w.:=*+\-/@(),> ]+")
_FEATURE = r"(?:[a-z_]+\.\d+|blocks\.\d+\.[a-z_.]+)/\d+[+-]?"
_POSITIONS = r"@(?:prompt|response|\d+:\d*|where\(.*\))"
_FILE = re.compile(rf"^add:|^project_out:(?!{_FEATURE}(?:{_POSITIONS})?$)|@where\((?!{_FEATURE}>)")


class EditLines:
    """Reads lines into edits; a line that comes again gives the same objects.

    Prompts are held by the objects that act on them (`models.prefixes`), and so by lines.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet.

        Args:
            folder: where edits are saved, and the only place that files are read from.
        """
        self.folder = folder
        self._known: OrderedDict[tuple[str, int], tuple[Edit, ...]] = OrderedDict()

    def saved(self) -> tuple[str, ...]:
        """The names of the edits that are saved in the folder."""
        found = sorted(self.folder.glob("*/edits.json"))
        return tuple(path.parent.name for path in found)

    def known(self, lines: Sequence[str]) -> tuple[Edit, ...] | None:
        """The edits of lines that have been read before; None if one has not.

        Args:
            lines: the lines.

        Raises:
            UsageError: there are too many.
        """
        if len(lines) > LINES:
            raise UsageError(f"at most {LINES} edits", str(len(lines)), "save them under one name")
        keys = [self._key(line) for line in lines]
        if any(key not in self._known for key in keys):
            return None
        for key in keys:
            self._known.move_to_end(key)
        return tuple(edit for key in keys for edit in self._known[key])

    def read(
        self, lm: LanguageModel, lines: Sequence[str], dictionary: Dictionary | None
    ) -> tuple[Edit, ...]:
        """Reads lines, and checks the edits on the model.

        Args:
            lm: the model.
            lines: each an edit as `steer` takes it, or the name of saved edits.
            dictionary: whose latents are meant; the ones shipped for the model when left out.

        Raises:
            UsageError: a line is neither, or names a file outside of the folder.
            BrainscanError: what it names is not there, or does not fit the model.
        """
        edits: list[Edit] = []
        for line in lines:
            key = self._key(line)
            found = self._known.pop(key, None) or self._read(lm, line, dictionary)
            edits.extend(found)
            if not _FILE.search(line):  # the file may become another
                self._known[key] = found
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return tuple(edits)

    def _key(self, line: str) -> tuple[str, int]:
        """A line, and the time of what it names."""
        place = self._place(line)
        try:
            return line, 0 if place is None else (place / "manifest.json").stat().st_mtime_ns
        except OSError:
            return line, 0

    def _place(self, line: str) -> Path | None:
        """The folder of saved edits that a line names, if it does."""
        if len(line) > _LONGEST or not _NAME.fullmatch(line):
            return None
        place = (self.folder / line).resolve()
        inside = place.is_relative_to(self.folder.resolve())
        return place if inside and (place / "edits.json").is_file() else None

    def _read(
        self, lm: LanguageModel, line: str, dictionary: Dictionary | None
    ) -> tuple[Edit, ...]:
        from brainscan.interventions import load_edits, parse_edit, with_dictionary

        place = self._place(line)
        if place is not None:
            edits = load_edits(place, [dictionary] if dictionary else [])
        elif _NAME.fullmatch(line):
            raise UsageError(
                "an edit such as resid_post.15/1234=2x, or the name of saved edits",
                repr(line[:_LONGEST]),
                f"saved are: {', '.join(self.saved()) or 'none'}",
            )
        else:
            edits = (parse_edit(self._located(line)),)
        edits = with_dictionary(edits, dictionary)
        for edit in edits:
            edit.attach(lm)
        return edits

    def _located(self, line: str) -> str:
        """The line with its file, if it names one, in the folder."""
        plain = len(line) <= _LONGEST and _PLAIN.fullmatch(line) and line.count("@") <= 1
        if not plain or ".." in line:
            raise _no_path(line)
        for match in reversed([*_FILE.finditer(line)]):
            before, name = line[: match.end()], line[match.end() :]
            if not re.match(r"\w", name):
                raise _no_path(line)
            line = f"{before}{self.folder.resolve()}/{name}"
        return line


def _no_path(line: str) -> ArtifactError:
    return ArtifactError(
        "an edit, its file named from the service's folder on",
        repr(line[:_LONGEST]),
        "name a file in that folder, without '..' and in letters, digits, '_', '-' and '.'",
    )
