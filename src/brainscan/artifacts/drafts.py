"""Making an artifact so that it is whole or absent, whatever happens.

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

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainscan import __version__
from brainscan.artifacts.files import TEMPORARY, disk_errors, file_sha256, flush, write_file
from brainscan.artifacts.manifest import (
    MANIFEST,
    SCHEMA,
    Manifest,
    ModelRef,
    beside,
    plain,
    pretty,
)
from brainscan.errors import ArtifactError

_DRAFT = "draft.json"


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
        settings=plain(settings or {}),
        seed=seed,
        code=f"brainscan {__version__}",
    )
    with _claimed(target, resumable) as partial:
        draft = Draft(path=partial, resumed=_begin(partial, plan, resumable))
        yield draft
        _finish(partial, target, plan, draft.figures)


@contextmanager
def _claimed(target: Path, resumable: bool) -> Iterator[Path]:
    """The draft's folder, for this process alone; removed if the block fails, unless resumable."""
    partial = beside(target, "partial")
    with disk_errors(target):
        _recover(target)
        check_replaceable(target)
        lock = claim(partial)
        try:
            yield partial
        except BaseException:
            if not resumable:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _recover(target: Path) -> None:
    """Brings back what stepped aside, if a kill hit between the two renames."""
    replaced = beside(target, "replaced")
    if not replaced.is_dir():
        return
    if target.exists():
        shutil.rmtree(replaced)
    else:
        replaced.rename(target)


def check_replaceable(target: Path) -> None:
    """Whether an artifact may be written here: in an artifact's place, or where nothing is.

    Raises:
        ArtifactError: something else is there.
    """
    if not target.exists() or (target / MANIFEST).is_file():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise ArtifactError(
        f"an artifact or nothing at {target}",
        "a folder that is not an artifact" if target.is_dir() else "a file",
        "choose another place; only artifacts are replaced",
    )


def claim(partial: Path) -> int | None:
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
    wanted = plain(plan)
    if resumable and note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != wanted:
            raise ArtifactError(
                f"the settings of the unfinished run in {partial}",
                _difference(found, wanted),
                "run it with the same settings, or delete that folder",
            )
        for leftover in partial.rglob(f"*{TEMPORARY}"):
            leftover.unlink()
        return True
    for entry in partial.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_file(note, pretty(wanted))
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
    for leftover in partial.rglob(f"*{TEMPORARY}"):
        leftover.unlink()
    files = {}
    for file in sorted(entry for entry in partial.rglob("*") if entry.is_file()):
        name = file.relative_to(partial).as_posix()
        if name not in (MANIFEST, _DRAFT):
            files[name] = file_sha256(file)
            flush(file)
    manifest = {**plain(plan), "figures": plain(figures), "files": files}
    write_file(partial / MANIFEST, pretty(manifest))
    for folder in (entry for entry in partial.rglob("*") if entry.is_dir()):
        flush(folder)
    (partial / _DRAFT).unlink()
    flush(partial)
    _rename(partial, target)


def _rename(partial: Path, target: Path) -> None:
    replaced = beside(target, "replaced")
    check_replaceable(target)
    if not target.exists():
        partial.rename(target)
        flush(target.parent)
        return
    target.rename(replaced)
    try:
        partial.rename(target)
    except BaseException:
        if not target.exists():
            replaced.rename(target)
        raise
    flush(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
