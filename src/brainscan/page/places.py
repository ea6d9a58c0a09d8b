"""Whether a path stays below the folder that is served, wherever its links lead."""

from __future__ import annotations

from pathlib import Path


def inside(folder: Path, path: str | Path) -> Path | None:
    """Where a path leads; None if that is outside of the folder, or cannot be told.

    Args:
        folder: the folder.
        path: where to go from it.
    """
    try:
        root = folder.resolve()
        found = (root / path).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a zero byte
        return None
    return found if found.is_relative_to(root) else None


def is_file(path: Path) -> bool:
    """Whether there is a file; none where the name cannot be one.

    Args:
        path: the file.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
