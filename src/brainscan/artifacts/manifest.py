"""What an artifact says of itself, and the check of its files against that."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from brainscan.artifacts.files import file_sha256
from brainscan.errors import ArtifactError

SCHEMA = 1
"""The newest layout of a manifest that this version writes and reads."""

MANIFEST = "manifest.json"
"""The file that makes a folder an artifact."""


@dataclass(frozen=True)
class ModelRef:
    """Which model an artifact speaks of."""

    id: str
    """The name it was loaded by."""

    weights: str
    """sha256 of its weights, in hex."""


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what it was made from, and the hash of each of its files."""

    kind: str
    """What the artifact is: "dictionary", "activations", "atlas", "edits", ..."""

    schema: int
    """The manifest's layout."""

    parents: Mapping[str, str]
    """Role of each artifact it was made from, and that one's digest."""

    model: ModelRef | None
    """The model it is of."""

    hookpoints: tuple[str, ...]
    """The hookpoints it is of."""

    settings: Mapping[str, Any]
    """The settings it was made with."""

    seed: int | None
    """The seed it was made with."""

    code: str
    """The version of brainscan that made it."""

    figures: Mapping[str, Any] = field(default_factory=dict)
    """What was measured while making it."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Each file's name, relative to the folder, and its sha256."""

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON; stands for the whole artifact."""
        text = json.dumps(plain(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(path: str | os.PathLike[str], kind: str | None = None) -> Manifest:
    """Reads what an artifact says of itself, without checking its files.

    Args:
        path: the artifact's folder.
        kind: the kind it must be; None for any.
    """
    folder = Path(path)
    wanted = f"an artifact of kind '{kind}'" if kind else "an artifact"
    if not folder.is_dir():
        remedy = "check the path"
        if beside(folder, "partial").is_dir():
            remedy = "it was interrupted in the making: run the command that makes it again"
        raise ArtifactError(f"{wanted} at {folder}", "no folder there", remedy)
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = _from_json(found)
    except FileNotFoundError:
        raise ArtifactError(
            f"{wanted} at {folder}", f"a folder without {MANIFEST}", "name an artifact's folder"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"a readable {MANIFEST} in {folder}",
            f"{type(error).__name__}: {error}",
            "the file is truncated or altered: make the artifact again",
        ) from None
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(
            f"{wanted} at {folder}", f"one of kind '{manifest.kind}'", f"name one of kind '{kind}'"
        )
    return manifest


def open_artifact(
    path: str | os.PathLike[str], kind: str | None = None, verify: bool = True
) -> Manifest:
    """Reads an artifact's manifest and checks its files against it.

    Args:
        path: the artifact's folder.
        kind: the kind it must be; None for any.
        verify: hash each file; otherwise only its presence is checked.
    """
    folder = Path(path)
    manifest = read_manifest(folder, kind)
    for name, expected in sorted(manifest.files.items()):
        if not (folder / name).is_file():
            raise ArtifactError(
                f"the file {name} in {folder}", "it is missing", "make or copy the artifact again"
            )
        found = file_sha256(folder / name) if verify else expected
        if found != expected:
            raise ArtifactError(
                f"sha256 {expected} for {folder / name}",
                f"sha256 {found}",
                "the file is truncated or altered: make or copy the artifact again",
            )
    return manifest


def beside(target: Path, role: str) -> Path:
    """The folder beside an artifact that serves its making.

    Args:
        target: the artifact's folder.
        role: "partial" for the draft, "replaced" for what steps aside.
    """
    return target.with_name(f"{target.name}.{role}")


def plain(value: Any) -> Any:
    """The value as JSON can say it; what is not a finite number becomes null.

    Args:
        value: numbers, text, lists, mappings, dataclasses, paths, numbers of numpy's or torch's.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str | int | None):
        return value
    return plain(value.item())  # a number of numpy's or torch's


def pretty(value: Any) -> bytes:
    """JSON as it is written to disk, for people and the same each time.

    Args:
        value: what `plain` made.
    """
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _from_json(found: dict[str, Any]) -> Manifest:
    schema = int(found["schema"])
    if schema > SCHEMA:
        raise ArtifactError(
            f"an artifact of schema {SCHEMA} or older",
            f"schema {schema}, made by {found.get('code', 'a newer version')}",
            "upgrade: pip install --upgrade brainscan",
        )
    model = found["model"]
    for name in found["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"the file name {name!r} leads out of the folder")
    return Manifest(
        kind=str(found["kind"]),
        schema=schema,
        parents=dict(found["parents"]),
        model=ModelRef(id=str(model["id"]), weights=str(model["weights"])) if model else None,
        hookpoints=tuple(found["hookpoints"]),
        settings=dict(found["settings"]),
        seed=found["seed"],
        code=str(found["code"]),
        figures=dict(found["figures"]),
        files=dict(found["files"]),
    )
