"""Artifacts: what a stage learned, as a folder that says what it is and can be checked.

How one is made so that it is whole or absent, whatever happens:

1. Work goes into ``<path>.partial``, locked against a second writer. ``draft.json`` there says what
   is being made, so that a resumable draft is only gone on with by the same command.
2. When the block ends well, every file is hashed and flushed to disk, and ``manifest.json`` is
   written last.
3. The folder is renamed to its name. An artifact already there steps aside first, as
   ``<path>.replaced``, and comes back if the rename fails.
4. When the block fails, the draft is removed, or kept if it is resumable.

No timestamps are written: the same work gives the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from brainscan import __version__
from brainscan.errors import ArtifactError, DiskFullError

SCHEMA = 1
"""The newest layout of a manifest that this version writes and reads."""

_MANIFEST = "manifest.json"
_DRAFT = "draft.json"
_TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        text = json.dumps(_plain(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Draft:
    """An artifact in the making."""

    path: Path
    """The folder to write into."""

    resumed: bool
    """Whether an interrupted run's work is in it."""

    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured; goes into the manifest."""


@contextmanager
def create(
    path: str | os.PathLike[str],
    *,
    kind: str,
    model: ModelRef | None = None,
    parents: Mapping[str, str] | None = None,
    hookpoints: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    resumable: bool = False,
) -> Iterator[Draft]:
    """Makes an artifact: write files into the draft's folder; they appear at ``path`` when whole.

    Args:
        path: the artifact's folder. An artifact there is replaced, anything else is refused.
        kind: what it is.
        model: the model it is of.
        parents: role and digest of the artifacts it is made from.
        hookpoints: the hookpoints it is of.
        settings: what it is made with; anything JSON can say, and dataclasses.
        seed: the seed it is made with.
        resumable: keep the draft when interrupted, and go on with it next time. Files whose names
            end in ".tmp" don't survive; write whole files with `write_file`.
    """
    target = Path(path).absolute()
    plan = Manifest(
        kind=kind,
        schema=SCHEMA,
        parents=dict(parents or {}),
        model=model,
        hookpoints=tuple(hookpoints),
        settings=_plain(settings or {}),
        seed=seed,
        code=f"brainscan {__version__}",
    )
    partial = _beside(target, "partial")
    with _disk_errors(target):
        _recover(target)
        _check_replaceable(target)
        lock = _claim(partial)
    try:
        with _disk_errors(target):
            resumed = _begin(partial, plan, resumable)
            draft = Draft(path=partial, resumed=resumed)
            yield draft
            _finish(partial, target, plan, draft.figures)
    except BaseException:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a kill or a power loss leaves the old one or the new one, never half.

    Args:
        path: the file.
        data: its content.
    """
    target = Path(path)
    temporary = target.with_name(target.name + _TEMPORARY)
    with _disk_errors(target):
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
        _flush(target.parent)


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
        if _beside(folder, "partial").is_dir():
            remedy = "it was interrupted in the making: run the command that makes it again"
        raise ArtifactError(f"{wanted} at {folder}", "no folder there", remedy)
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        manifest = _from_json(found)
    except FileNotFoundError:
        raise ArtifactError(
            f"{wanted} at {folder}", f"a folder without {_MANIFEST}", "name an artifact's folder"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"a readable {_MANIFEST} in {folder}",
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


def cache_dir() -> Path:
    """The folder for what can be fetched or made again: $BRAINSCAN_CACHE, or the user's cache."""
    chosen = os.environ.get("BRAINSCAN_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "brainscan"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "brainscan"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "brainscan"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's content, in hex.

    Args:
        path: the file.
    """
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _beside(target: Path, role: str) -> Path:
    return target.with_name(f"{target.name}.{role}")


def _recover(target: Path) -> None:
    """Brings back what stepped aside, if a kill hit between the two renames."""
    replaced = _beside(target, "replaced")
    if not replaced.is_dir():
        return
    if target.exists():
        shutil.rmtree(replaced)
    else:
        replaced.rename(target)


def _check_replaceable(target: Path) -> None:
    if not target.exists() or (target / _MANIFEST).is_file():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise ArtifactError(
        f"an artifact or nothing at {target}",
        "a folder that is not an artifact" if target.is_dir() else "a file",
        "choose another place; only artifacts are replaced",
    )


def _claim(partial: Path) -> int | None:
    """Makes the draft's folder and locks it; the lock goes with the process, even by kill -9."""
    if sys.platform == "win32":
        partial.mkdir(parents=True, exist_ok=True)
        return None
    import fcntl

    while True:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(partial)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise ArtifactError(
                f"no other writer in {partial}", "another process at work", "wait until it is done"
            ) from None
        except FileNotFoundError:
            pass
        os.close(lock)


def _begin(partial: Path, plan: Manifest, resumable: bool) -> bool:
    """Empties the draft's folder, or goes on with what is there; says whether it does."""
    note = partial / _DRAFT
    wanted = _plain(plan)
    if resumable and note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != wanted:
            raise ArtifactError(
                f"the settings of the unfinished run in {partial}",
                _difference(found, wanted),
                "run it with the same settings, or delete that folder",
            )
        for leftover in partial.rglob(f"*{_TEMPORARY}"):
            leftover.unlink()
        return True
    for entry in partial.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_file(note, _pretty(wanted))
    return False


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names what differs between two plans, the settings one by one."""
    left = {**found, **{f"settings.{k}": v for k, v in found["settings"].items()}}
    right = {**wanted, **{f"settings.{k}": v for k, v in wanted["settings"].items()}}
    names = sorted((left.keys() | right.keys()) - {"settings"})
    changed = [name for name in names if left.get(name) != right.get(name)]
    return ", ".join(
        f"{name} {right.get(name)!r} where it has {left.get(name)!r}" for name in changed
    )


def _finish(partial: Path, target: Path, plan: Manifest, figures: Mapping[str, Any]) -> None:
    """Hashes and flushes the files, writes the manifest, and gives the folder its name."""
    for leftover in partial.rglob(f"*{_TEMPORARY}"):
        leftover.unlink()
    files = {}
    for file in sorted(entry for entry in partial.rglob("*") if entry.is_file()):
        name = file.relative_to(partial).as_posix()
        if name not in (_MANIFEST, _DRAFT):
            files[name] = file_sha256(file)
            _flush(file)
    manifest = {**_plain(plan), "figures": _plain(figures), "files": files}
    write_file(partial / _MANIFEST, _pretty(manifest))
    for folder in (entry for entry in partial.rglob("*") if entry.is_dir()):
        _flush(folder)
    (partial / _DRAFT).unlink()
    _flush(partial)
    _rename(partial, target)


def _rename(partial: Path, target: Path) -> None:
    replaced = _beside(target, "replaced")
    _check_replaceable(target)
    if not target.exists():
        partial.rename(target)
        _flush(target.parent)
        return
    target.rename(replaced)
    try:
        partial.rename(target)
    except BaseException:
        if not target.exists():
            replaced.rename(target)
        raise
    _flush(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _flush(path: Path) -> None:
    """Has the system write a file or a folder's entries to the disk."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Says plainly that the disk is full, whichever library noticed it."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        if not full and "No space left on device" not in str(error):
            raise
        raise DiskFullError(
            f"space to write {target}",
            "a full disk",
            "free some space, or choose another place, and run the same command again",
        ) from error


def _plain(value: Any) -> Any:
    """The value as JSON can say it; what is not a finite number becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str | int | None):
        return value
    return _plain(value.item())  # a number of numpy's or torch's


def _pretty(value: Any) -> bytes:
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
