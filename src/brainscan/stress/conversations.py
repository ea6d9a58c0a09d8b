"""Conversations on disk: lines of JSON, or logs of Inspect's runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brainscan.errors import ArtifactError, CorpusError


def read_conversations(path: str | Path) -> list[list[dict[str, str]]]:
    """The conversations of a file of lines, of a log, or of all logs below a folder.

    Args:
        path: a file with one ``{"messages": [...]}`` a line, an ``.eval`` log, or a folder.

    Raises:
        CorpusError: there is none, or a line is no conversation.
        ArtifactError: a log cannot be read.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        logs = sorted(place.rglob("*.eval"))
        if not logs:
            raise CorpusError(f".eval logs below {place}", "none", "name a stress run's folder")
        return [found for log in logs for found in _of_log(log)]
    found = _of_log(place) if place.suffix == ".eval" else _of_lines(place)
    if not found:
        raise CorpusError(f"at least one conversation in {place}", "none", "name another file")
    return found


def _of_lines(path: Path) -> list[list[dict[str, str]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"a UTF-8 file of conversations at {path}", str(error), "check the path"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
            found.append([_message(row) for row in messages if row["content"] is not None])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(
                f'{{"messages": [{{"role", "content"}}, ...]}} in line {number} of {path}',
                f"{line:.60}",
                "write one conversation a line",
            ) from error
    return found


def _of_log(path: Path) -> list[list[dict[str, str]]]:
    from inspect_ai.log import read_eval_log

    try:
        samples = read_eval_log(str(path), resolve_attachments=True).samples or []
    except Exception as error:  # whatever Inspect makes of a file that is no log
        raise ArtifactError(
            f"a log of Inspect at {path}", f"{type(error).__name__}: {error}", "name another file"
        ) from error
    found = []
    for sample in samples:
        messages = [{"role": m.role, "content": m.text} for m in sample.messages if m.text]
        if messages:
            found.append(messages)
    return found


def _message(row: Any) -> dict[str, str]:
    if not isinstance(row["role"], str):
        raise TypeError("a role")
    return {"role": row["role"], "content": _text(row["content"])}


def _text(content: Any) -> str:
    """A message's text; of parts, those that are texts."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
