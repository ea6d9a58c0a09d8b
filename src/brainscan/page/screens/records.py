"""Transcripts of audits and of stress runs in one form, so that one screen shows and forks both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan.errors import ArtifactError, BrainscanError, UsageError
from brainscan.page.screens.folders import AUDIT
from brainscan.views import StretchView, TranscriptView

if TYPE_CHECKING:
    from brainscan.page.screens.conversation import Message

SHOWN = 40
"""Transcripts that are listed at most."""

_JOURNAL = "confirmation.jsonl"
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Record:
    """What a model was told and answered."""

    id: str
    """Its name within its folder."""
    messages: tuple[Message, ...]
    """What it was told; empty where that cannot be said any more."""
    answer: str
    """Its answer."""
    view: TranscriptView
    """The same for a page."""


@dataclass(frozen=True)
class Fork:
    """A transcript with one message changed, up to where the model goes on."""

    messages: tuple[Message, ...]
    """What the model is told."""
    begun: str
    """The beginning of its answer that it is given; empty for none."""
    original: str
    """What the original has there."""


def fork(record: Record, at: int, text: str) -> Fork:
    """Changes a message; what the model said from there on is written anew.

    Args:
        record: the transcript.
        at: which message; the answer is the last.
        text: what stands there instead.

    Raises:
        UsageError: there is no such message.
    """
    told: list[Message] = [*record.messages, {"role": "assistant", "content": record.answer}]
    if not 0 <= at < len(told):
        raise UsageError(
            f"a message from 0 to {len(told) - 1}", str(at), "choose one of the transcript"
        )
    if told[at]["role"] == "assistant":
        return Fork(tuple(told[:at]), text, str(told[at]["content"]))
    after = next(n for n in range(at + 1, len(told)) if told[n]["role"] == "assistant")
    changed = [*told[:at], {**told[at], "content": text}, *told[at + 1 : after]]
    return Fork(tuple(changed), "", str(told[after]["content"]))


def read_records(folder: Path) -> list[Record]:
    """The transcripts of an audit or of a stress run.

    Args:
        folder: its folder.

    Raises:
        ArtifactError: its files cannot be read.
    """
    return _of_audit(folder) if (folder / AUDIT).is_file() else _of_run(folder)


def _of_run(folder: Path) -> list[Record]:
    from brainscan.stress.matrix import sample_id
    from brainscan.stress.reading import open_run
    from brainscan.stress.transcripts import chosen, read_transcript, transcript_view

    run = open_run(folder)
    records = []
    for outcome in chosen(run.outcomes, SHOWN):
        found = read_transcript(run, outcome)
        told = tuple(_message(role, text) for role, text in found.prompt)
        name = f"{sample_id(outcome.persona, outcome.condition)}/{outcome.epoch}"
        records.append(Record(name, told, found.answer, transcript_view(found)))
    return records


def _message(role: str, text: str) -> Message:
    return {"role": role if role in _ROLES else "user", "content": text}


def read_audit(folder: Path) -> Mapping[str, Any]:
    """An audit's figures.

    Args:
        folder: its folder.

    Raises:
        ArtifactError: they cannot be read.
    """
    try:
        found = json.loads((folder / AUDIT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"figures in {folder / AUDIT}", str(error), "run it again") from error
    if not isinstance(found, dict) or not isinstance(found.get("verdicts"), list):
        raise ArtifactError(f"an audit's figures in {folder / AUDIT}", "others", "run it again")
    return found


def _of_audit(folder: Path) -> list[Record]:
    scenario = str(read_audit(folder).get("scenario", ""))
    records = []
    for line in _lines(folder / _JOURNAL):
        arm = line["arm"][0] if isinstance(line["arm"], list) else line["arm"]
        question, text = line["question"], line["text"]
        told = _asked(scenario, question)
        view = TranscriptView(
            outcome=str(arm),
            title=question,
            notes=() if line["ended"] else ("cut off",),
            prompt=tuple((str(m["role"]), str(m["content"])) for m in told),
            answer=_marked(text),
            stages=(),
        )
        records.append(Record(f"{arm}/{question}", told, text, view))
    return records


def _lines(journal: Path) -> list[Mapping[str, Any]]:
    """The journal's whole lines, each arm's first answers in turn."""
    if not journal.is_file():
        return []
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    # Not `auditing.kept.read_lines`, which takes a line that was cut off away from the file.
    for text in journal.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if _is_answer(line):
            by_arm.setdefault(str(line["arm"]), []).append(line)
    turns = max(map(len, by_arm.values()), default=0)
    dealt = [own[n] for n in range(turns) for own in by_arm.values() if n < len(own)]
    return dealt[:SHOWN]


def _is_answer(line: Any) -> bool:
    """Whether a line of a journal has what is shown of it."""
    if not isinstance(line, dict):
        return False
    arm = line.get("arm")
    named = isinstance(arm, str) or (isinstance(arm, list) and bool(arm))
    texts = all(isinstance(line.get(name), str) for name in ("question", "text"))
    return named and texts and isinstance(line.get("ended"), bool)


def _asked(scenario: str, question: str) -> tuple[Message, ...]:
    """What an audit's question told the model, if its test is one of ours."""
    from brainscan.stress.base import Asked
    from brainscan.stress.catalogue import NAMES, load_test

    unit, _, rest = question.partition("/")
    condition, _, _ = rest.rpartition("/")
    levels = dict(part.split("=", 1) for part in condition.split(",") if "=" in part)
    if scenario not in NAMES:
        return ()
    try:
        return tuple(load_test(scenario).prompt(Asked(unit, levels)).messages)
    except (BrainscanError, KeyError, StopIteration):
        return ()


def _marked(text: str) -> tuple[StretchView, ...]:
    from brainscan.stress.transcripts import marked

    return tuple(marked(text))


def record_of(records: Sequence[Record], name: str) -> Record:
    """A record by its name.

    Args:
        records: the records.
        name: its name.

    Raises:
        UsageError: there is none of that name.
    """
    for record in records:
        if record.id == name:
            return record
    raise UsageError("a transcript of the list", repr(name), "choose one of the list")
