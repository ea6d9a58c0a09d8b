"""Answers in the logs of a run, with what a judge said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainscan.artifacts import file_sha256
from brainscan.errors import ArtifactError
from brainscan.stress.judge import Case, case_of

LOGS = "logs"
"""The folder of logs, in a run's folder."""


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer of the tested model."""

    uuid: str
    """The sample's uuid in the log."""
    case: Case
    """What it answers."""
    answer: str
    """The whole answer."""
    stages: Mapping[str, bool]
    """What the judge said."""


def logs_of(run: str | Path) -> tuple[Path, ...]:
    """The logs of a run that came to its end.

    Args:
        run: the run's folder.

    Raises:
        ArtifactError: there are none.
    """
    from inspect_ai.log import read_eval_log

    found = sorted((Path(run) / LOGS).glob("*.eval"))
    done = [log for log in found if read_eval_log(str(log), header_only=True).status == "success"]
    if not done:
        raise ArtifactError(
            f"logs of a finished run in {Path(run) / LOGS}",
            f"{len(found)} unfinished" if found else "none",
            "name the folder that was the --out of: stress run",
        )
    return tuple(done)


def hashes(logs: Sequence[Path]) -> dict[str, str]:
    """The sha256 of each log, by its name."""
    return {log.name: file_sha256(log) for log in logs}


def read_answers(logs: Sequence[Path]) -> list[JudgedAnswer]:
    """The answers in logs, in the order of their uuids.

    Args:
        logs: the logs of one run.

    Raises:
        ArtifactError: the run is of no agentic scenario.
    """
    from inspect_ai.log import read_eval_log

    found = []
    for path in logs:
        for sample in (
            read_eval_log(str(path), exclude_fields={"events", "attachments"}).samples or ()
        ):
            score = next(iter((sample.scores or {}).values()), None)
            stages = ((score.metadata if score else None) or {}).get("stages")
            if stages is None or "harm" not in sample.metadata:
                raise ArtifactError(
                    "a run of an agentic scenario", f"another task in {path.name}", "name one"
                )
            case = case_of(sample.metadata)
            found.append(JudgedAnswer(str(sample.uuid), case, sample.output.completion, stages))
    return sorted(found, key=lambda transcript: transcript.uuid)
