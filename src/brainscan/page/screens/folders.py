"""What lies below the folder that is served, and nothing beyond it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from brainscan.artifacts import read_manifest
from brainscan.errors import ArtifactError, UsageError

AUDIT, STRESS = "audit.json", "logs"

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
    root = folder.resolve()
    odd = not path or "\0" in path or "\\" in path or parts.is_absolute() or ".." in parts.parts
    if odd or not (root / parts).resolve().is_relative_to(root):
        raise UsageError("a path below the served folder", repr(path), "choose one of the list")
    found = (root / parts).resolve()
    if not found.exists():
        raise UsageError("something below the served folder", f"no {path!r}", "look at the list")
    return found


def listed(folder: Path) -> Listing:
    """The audits, stress runs and other artifacts below a folder.

    Args:
        folder: the folder that is served.
    """
    root = folder.resolve()
    found = []
    looked = 0
    for looked, (place, inside) in enumerate(_walk(root), start=1):
        path = place.relative_to(root).as_posix()
        kind = _kind(place, inside)
        if kind is not None:
            found.append(Found(path, kind, _note(place, kind)))
        if looked == FOLDERS:
            break
    return Listing(tuple(sorted(found, key=lambda one: one.path)), whole=looked < FOLDERS)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and what is in each; links are not followed, hidden folders left out."""
    for name, folders, files in os.walk(root):
        place = Path(name)
        deep = len(place.relative_to(root).parts) >= DEPTH
        inside = [*files, *folders]
        opened = _kind(place, inside) is not None
        folders[:] = [] if deep or opened else sorted(f for f in folders if not f.startswith("."))
        yield place, inside


def _kind(place: Path, inside: list[str]) -> Kind | None:
    if AUDIT in inside:
        return "audit"
    if STRESS in inside and any(place.joinpath(STRESS).glob("*.eval")):
        return "stress run"
    return "artifact" if "manifest.json" in inside else None


def _note(place: Path, kind: Kind) -> str:
    if kind == "stress run":
        return ""
    try:
        manifest = read_manifest(place)
    except ArtifactError:
        return ""
    return ", ".join(
        part for part in (manifest.kind, manifest.model.id if manifest.model else "") if part
    )
