"""The dictionary that an audit uses, and its extension on the discovery transcripts."""

from __future__ import annotations

from pathlib import Path

from brainscan.artifacts import read_manifest
from brainscan.artifacts.manifest import MANIFEST
from brainscan.auditing.arms import EXTENDED, GENERAL
from brainscan.auditing.room import Room
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.extension import ExtensionConfig, extend
from brainscan.dictionaries.transcripts import TranscriptActivations


def dictionaries_of(
    room: Room, general: Dictionary | None, read: TranscriptActivations
) -> dict[str, Dictionary]:
    """A dictionary and its extension, by the kind of arms made of them; none without one.

    Args:
        room: the audit.
        general: the dictionary where it edits.
        read: the discovery transcripts' activations there.
    """
    if general is None:
        return {}
    folder = room.folder / "extended"
    if not _is_of(folder, read.sha256):
        room.tell(f"extending {general.name} on the discovery transcripts")
        config = ExtensionConfig(n_latents=room.config.added, seed=room.config.seed)
        found = extend(
            general,
            read.activations,
            config,
            transcripts=read.transcripts,
            model=room.lm.ref,
            settings={"text": read.sha256},
        )
        found.save(folder)
    extended = Dictionary.load(folder, device=room.lm.device)
    extended.name = str(room.out / "extended")
    return {GENERAL: general, EXTENDED: extended}


def _is_of(folder: Path, sha256: str) -> bool:
    """Whether a folder holds an extension that was trained on this text."""
    if not (folder / MANIFEST).is_file():
        return False
    return read_manifest(folder).settings.get("text") == sha256
