"""sha256 of large files, remembered so that a model is hashed once and not at each load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from brainscan.artifacts import cache_dir, file_sha256, write_file


def remembered_sha256(path: Path) -> str:
    """sha256 of a file; computed again when its path, size or time of change is another."""
    file = path.resolve()
    status = file.stat()
    key = [str(file), status.st_size, status.st_mtime_ns]
    note = cache_dir() / "hashes" / f"{hashlib.sha256(str(file).encode()).hexdigest()}.json"
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        if found["key"] == key:
            return str(found["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = file_sha256(file)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_file(note, json.dumps({"key": key, "sha256": digest}).encode())
    except OSError:
        pass
    return digest
