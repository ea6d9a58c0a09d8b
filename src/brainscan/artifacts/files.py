"""Files written whole and hashed, and where those go that can be made again."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brainscan.errors import DiskFullError

TEMPORARY = ".tmp"
"""How the names of files end that are being written."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a kill or a power loss leaves the old one or the new one, never half.

    Args:
        path: the file.
        data: its content.
    """
    target = Path(path)
    temporary = target.with_name(target.name + TEMPORARY)
    with disk_errors(target):
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
        flush(target.parent)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's content, in hex.

    Args:
        path: the file.
    """
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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


def flush(path: Path) -> None:
    """Has the system write a file, or a folder's entries, to the disk.

    Args:
        path: the file or folder.
    """
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Says plainly that the disk is full, whichever library notices it in the block.

    Args:
        target: what is being written.
    """
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
