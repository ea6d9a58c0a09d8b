"""What lies below the folder that is served, and nothing beyond it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from brainscan.artifacts import read_manifest
from brainscan.errors import ArtifactError, UsageError
from brainscan.page.places import inside

AUDIT, STRESS = "audit.json", "logs"

_MANIFEST = "manifest.json"
_LOOK = "look at the list"
_LONGEST = 200

FOLDERS, DEPTH = 4000, 6
"""Folders that are looked into at most, and how deep."""

Kind = Literal["audit", "stress run", "artifact"]


@dataclass(frozen=True)
class Found:
    """Something that can be opened, or at least named."""

    path: str
    """Where it is, from the folder that is served."""
    kind: Kind
    """What it is."""
    note: str = ""
    """More on it: the kind of an artifact, its model."""


@dataclass(frozen=True)
class Listing:
    """What was found."""

    found: tuple[Found, ...]
    """All of it, by path."""
    whole: bool
    """Whether every folder was looked into."""


def below(folder: Path, path: str) -> Path:
    """A path below the folder that is served.

    Args:
        folder: the folder.
        path: where to go from it.

    Raises:
        UsageError: it leads out of the folder, by ``..``, by a root or by a link, or is not there.
    """
    parts = PurePosixPath(path)
    odd = not path or "\0" in path or "\\" in path or parts.is_absolute() or ".." in parts.parts
    found = None if odd else inside(folder, path)
    if found is None:
        raise UsageError("a path below the served folder", _short(path), "choose one of the list")
    try:
        there = found.exists()
    except OSError:  # such as a name that is too long
        there = False
    if not there:
        raise UsageError("something below the served folder", f"no {_short(path)}", _LOOK)
    return found


def opened(folder: Path, path: str) -> Path:
    """The folder of an audit or of a stress run, none of whose files leads out of ours.

    Args:
        folder: the folder that is served.
        path: where to go from it.

    Raises:
        UsageError: it leads out of the folder, itself or by a link within it, or is not there.
    """
    found = below(folder, path)
    if not found.is_dir():
        raise UsageError("a folder below the served one", _short(path), _LOOK)
    for place in (found, found / STRESS):
        for file in place.iterdir() if place.is_dir() else ():
            if file.is_symlink() and inside(folder, file) is None:
                raise UsageError(
                    f"files below the served folder in {_short(path)}",
                    f"a link that leads out, {file.name!r:.80}",
                    "put the file itself there",
                )
    return found


def _short(path: str) -> str:
    return repr(path if len(path) <= _LONGEST else f"{path[:_LONGEST]}…")


def listed(folder: Path) -> Listing:
    """The audits, stress runs and other artifacts below a folder.

    Args:
        folder: the folder that is served.
    """
    root = folder.resolve()
    found = []
    looked = 0
    for looked, (place, names) in enumerate(_walk(root), start=1):
        path = place.relative_to(root).as_posix()
        kind = _kind(place, names)
        if kind is not None:
            found.append(Found(path, kind, _note(root, place, kind)))
        if looked == FOLDERS:
            break
    return Listing(tuple(sorted(found, key=lambda one: one.path)), whole=looked < FOLDERS)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and what is in each; links are not followed, hidden folders left out."""
    for name, folders, files in os.walk(root):
        place = Path(name)
        deep = len(place.relative_to(root).parts) >= DEPTH
        names = [*files, *folders]
        known = _kind(place, names) is not None
        folders[:] = [] if deep or known else sorted(f for f in folders if not f.startswith("."))
        yield place, names


def _kind(place: Path, names: list[str]) -> Kind | None:
    if AUDIT in names:
        return "audit"
    logs = place / STRESS
    if STRESS in names and not logs.is_symlink() and any(logs.glob("*.eval")):
        return "stress run"
    return "artifact" if _MANIFEST in names else None


def _note(root: Path, place: Path, kind: Kind) -> str:
    if kind == "stress run" or inside(root, place / _MANIFEST) is None:
        return ""
    try:
        manifest = read_manifest(place)
    except ArtifactError:
        return ""
    return ", ".join(
        part for part in (manifest.kind, manifest.model.id if manifest.model else "") if part
    )
