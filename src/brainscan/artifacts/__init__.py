"""Artifacts: what a stage learned, as a folder that says what it is and can be checked."""

from __future__ import annotations

from brainscan.artifacts.drafts import Draft, create
from brainscan.artifacts.files import cache_dir, file_sha256, write_file
from brainscan.artifacts.manifest import (
    SCHEMA,
    Manifest,
    ModelRef,
    open_artifact,
    read_manifest,
)

__all__ = [
    "SCHEMA",
    "Draft",
    "Manifest",
    "ModelRef",
    "cache_dir",
    "create",
    "file_sha256",
    "open_artifact",
    "read_manifest",
    "write_file",
]
