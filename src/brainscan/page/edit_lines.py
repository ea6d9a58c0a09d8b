"""Edits from the lines that come with a request; files are read below one folder only."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from brainscan.errors import ArtifactError, UsageError
from brainscan.interventions.parse import FEATURE, NUMBER
from brainscan.models.decoding import evaluating
from brainscan.models.hooks import intervene
from brainscan.page.places import inside, is_file

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel

LINES = 64
"""Lines of a request at most."""

NAME = re.compile(r"\w[\w.+-]{0,63}")
"""What saved edits may be called."""

_KEPT = 256
_LONGEST = 400
_PATH = r"\w[\w.+-]*(?:/\w[\w.+-]*)*"
_PLAIN = re.compile(r"[\w.:=*+\-/@(),>]+")
_NAMES = ("add:", "project_out:", "where(")
_FEATURES = re.compile(rf"project_out:{FEATURE}|where\({FEATURE}>{NUMBER}x\)")
_FILES = (
    re.compile(rf"(add:)({_PATH})(={NUMBER})"),
    re.compile(rf"(project_out:)({_PATH})()"),
    re.compile(rf"(where\()({_PATH})(>{NUMBER}\))"),
)
_TOKENS = 4


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
        self._lock = threading.Lock()

    def saved(self) -> tuple[str, ...]:
        """The names of the edits that are saved in the folder."""
        found = sorted(self.folder.glob("*/edits.json"))
        return tuple(p.parent.name for p in found if NAME.fullmatch(p.parent.name))

    def keeps(self, edits: Sequence[Edit]) -> bool:
        """Whether all of these come again, as the same objects, when their lines do.

        Args:
            edits: the edits.
        """
        with self._lock:
            kept = {id(edit) for own in self._known.values() for edit in own}
        return all(id(edit) in kept for edit in edits)

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
        with self._lock:  # others are read in the engine's thread
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
            found = self.known([line])
            if found is None:
                key = self._key(line)
                found = self._read(lm, line, dictionary)
                if not _names_file(line):  # the file may become another
                    self._keep(key, found)
            edits.extend(found)
        return tuple(edits)

    def _keep(self, key: tuple[str, int], edits: tuple[Edit, ...]) -> None:
        with self._lock:
            self._known[key] = edits
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def _key(self, line: str) -> tuple[str, int]:
        """A line, and the time of what it names."""
        place = self._place(line)
        try:
            return line, 0 if place is None else (place / "manifest.json").stat().st_mtime_ns
        except OSError:
            return line, 0

    def _place(self, line: str) -> Path | None:
        """The folder of saved edits that a line names, if it does; its files lie below ours."""
        if len(line) > _LONGEST or not re.fullmatch(_PATH, line):
            return None
        place = inside(self.folder, line)
        if place is None or not is_file(place / "edits.json"):
            return None
        return place if all(inside(self.folder, file) for file in place.iterdir()) else None

    def _read(
        self, lm: LanguageModel, line: str, dictionary: Dictionary | None
    ) -> tuple[Edit, ...]:
        from brainscan.interventions import load_edits, parse_edit, with_dictionary

        place = self._place(line)
        if place is not None:
            edits = load_edits(place, [dictionary] if dictionary else [])
        elif re.fullmatch(_PATH, line):
            raise UsageError(
                "an edit such as resid_post.15/1234=2x, or the name of saved edits",
                repr(line[:_LONGEST]),
                f"saved are: {', '.join(self.saved()) or 'none'}",
            )
        else:
            edits = (parse_edit(self._located(line)),)
        edits = with_dictionary(edits, dictionary)
        for edit in edits:
            _try(lm, edit)
        return edits

    def _located(self, line: str) -> str:
        """The line with the files it names, if it does, in the folder."""
        body, at, positions = line.partition("@")
        plain = len(line) <= _LONGEST and _PLAIN.fullmatch(line) and "@" not in positions
        if not plain or ".." in line:
            raise _no_path(line)
        if _names_file(body) and at and not _is_place(positions):
            raise _no_path(line)
        return at.join(self._whole(part, line) for part in ([body, positions] if at else [body]))

    def _whole(self, part: str, line: str) -> str:
        """A part of a line with the file it names, if it does, in the folder."""
        if not _names_file(part):
            return part
        for files in _FILES:
            if match := files.fullmatch(part):
                before, name, after = match.groups()
                found = inside(self.folder, name)
                if found is not None:
                    return f"{before}{found}{after}"
        raise _no_path(line)


def _names_file(line: str) -> bool:
    """Whether a line, or a part of one, names a file."""
    return any(
        part.startswith(_NAMES) and not _FEATURES.fullmatch(part) for part in line.split("@")
    )


def _is_place(positions: str) -> bool:
    """Whether this says where an edit acts."""
    plain = re.fullmatch(r"prompt|response|\d+:\d*", positions)
    return bool(plain or _FEATURES.fullmatch(positions) or _FILES[-1].fullmatch(positions))


def _try(lm: LanguageModel, edit: Edit) -> None:
    """Lets an edit act on a few tokens, a prompt's and an answer's.

    What is wrong with some shows only as they act, and would then end all rows beside theirs.
    """
    tokens = torch.tensor([(lm.tokenize("The day was one of many.") * _TOKENS)[:_TOKENS]])
    for one in (edit, replace(edit, positions="all")):  # wherever else it is to act
        with (
            torch.no_grad(),
            evaluating(lm.model),
            intervene(lm, [one], prompt_lengths=[_TOKENS // 2]),
        ):
            lm.model(input_ids=tokens.to(lm.device))


def _no_path(line: str) -> ArtifactError:
    return ArtifactError(
        "an edit, its file named from the service's folder on",
        repr(line[:_LONGEST]),
        "name a file in that folder, without '..' and in letters, digits, '_', '-' and '.'",
    )
