"""What people found of a judge: from their labels to a file in the run's folder.

1. A sheet's rows are checked against the key of its draw, and the key against the run's logs.
2. What several people say is what all of them say; where they differ, or one of them could not
   tell, the answer is left out and counted.
3. The figures (`agreement`) go into `validation.json`, with the hashes of logs and labels. A run
   that was changed since is not validated any more, and says so.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan.artifacts import file_sha256, write_file
from brainscan.errors import ArtifactError, UsageError
from brainscan.stats import Estimate, proportion
from brainscan.stress.agreement import Figures, between_people, figures
from brainscan.stress.draws import STRATA, Draw, load_draw, stratum_of
from brainscan.stress.judged_answers import JudgedAnswer, hashes, logs_of, read_answers
from brainscan.stress.label_sheets import check_rows, read_sheet

if TYPE_CHECKING:
    from brainscan.stress.agreement import Counts

FILE = "validation.json"
"""The file in a run's folder."""

_VERDICTS = STRATA[:-1]
_ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Validation:
    """What people found of a judge."""

    people: int
    """How many labelled."""
    answers: int
    """How many answers they labelled."""
    unclear: int
    """On how many of these they could not tell, or differed."""
    figures: Figures
    """The judge against people."""
    unscored: Estimate
    """Of the answers without a verdict, the share that people call harmful."""
    between: tuple[Estimate, ...]
    """Kappa of each two people."""
    logs: Mapping[str, str]
    """The sha256 of each of the run's logs."""
    labels: Mapping[str, str]
    """The sha256 of each sheet."""
    stale: bool = False
    """Whether the run has been changed since."""

    def __str__(self) -> str:
        if self.stale:
            return "not validated by people since the run was changed"
        who = "a person" if self.people == 1 else f"{self.people} people"
        return (
            f"validated by {who} on {self.answers} answers: "
            f"sensitivity {_short(self.figures.sensitivity)}, "
            f"specificity {_short(self.figures.specificity)}"
        )

    def to_json(self) -> dict[str, Any]:
        """The validation as a JSON object."""
        return {
            "people": self.people,
            "answers": self.answers,
            "unclear": self.unclear,
            **{name: figure.to_json() for name, figure in self.figures._asdict().items()},
            "not_identifiable": self.figures.problem or None,
            "unscored_harmful": self.unscored.to_json(),
            "kappa_between_people": [kappa.to_json() for kappa in self.between],
            "logs": dict(self.logs),
            "labels": dict(self.labels),
        }


def validate(run: str | Path, sheets: Sequence[Path]) -> Validation:
    """Reads the labels of one person or several, and saves what they say of the judge.

    Args:
        run: the run's folder.
        sheets: a sheet of each person, all of one draw.

    Raises:
        UsageError: the sheets are of several draws.
        ArtifactError: a sheet, its key or the run is missing, altered or not of the others.
    """
    logs = logs_of(run)
    read = {path: read_sheet(path) for path in sheets}
    names = sorted({row.draw for rows in read.values() for row in rows})
    if len(names) != 1:
        raise UsageError("sheets of one draw", ", ".join(names), "give those of one draw")
    draw = load_draw(run, names[0])
    if draw.logs != hashes(logs):
        raise ArtifactError(
            f"the logs that {draw.name} was drawn from in {run}",
            "others: the run was changed since",
            "draw again",
        )
    drawn = {row.id: row.text for row in draw.rows}
    for path, rows in read.items():
        check_rows(rows, drawn, path)
    said = [{row.id: row.harmful for row in rows} for rows in read.values()]
    found = _validation(draw, read_answers(logs), said, sheets)
    write_file(Path(run) / FILE, json.dumps(found.to_json(), indent=1).encode())
    return found


def read_validation(logs: Sequence[Path]) -> Validation | None:
    """What people found of the judge of a run; None where nobody looked.

    Args:
        logs: the run's logs, in its folder.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = logs[0].parent.parent / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Validation(
            found["people"],
            found["answers"],
            found["unclear"],
            Figures(*(_estimate(found[name]) for name in Figures._fields)),
            _estimate(found["unscored_harmful"]),
            tuple(map(_estimate, found["kappa_between_people"])),
            found["logs"],
            found["labels"],
            stale=found["logs"] != hashes(logs),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"what people found of the judge in {path}",
            f"{type(error).__name__}: {' '.join(str(error).split())}",
            "run stress validate-judge again with the labels",
        ) from error


def _validation(
    draw: Draw,
    transcripts: Sequence[JudgedAnswer],
    said: Sequence[Mapping[str, str]],
    sheets: Sequence[Path],
) -> Validation:
    import numpy as np

    of_uuid = {transcript.uuid: transcript for transcript in transcripts}
    order = sorted({transcript.case.persona.id for transcript in transcripts})
    place = {persona: number for number, persona in enumerate(order)}
    where = {
        row.id: (place[of_uuid[row.uuid].case.persona.id], STRATA.index(row.stratum))
        for row in draw.rows
    }
    sizes = np.zeros((len(order), len(STRATA)))
    for one in transcripts:
        sizes[place[one.case.persona.id], STRATA.index(stratum_of(one.stages))] += 1
    labels = {id: _agreed([one[id] for one in said]) for id in where}
    counts = {label: np.zeros_like(sizes) for label in ("yes", "no", "unclear")}
    for id, label in labels.items():
        counts[label][where[id]] += 1
    yes, no = counts["yes"], counts["no"]
    verdicts = slice(len(_VERDICTS))
    return Validation(
        people=len(said),
        answers=len(where),
        unclear=int(counts["unclear"].sum()),
        figures=figures(sizes[:, verdicts], yes[:, verdicts], no[:, verdicts]),
        unscored=proportion(int(yes[:, -1].sum()), int(yes[:, -1].sum() + no[:, -1].sum())),
        between=tuple(
            _between(sizes, where, first, second)
            for first, second in itertools.combinations(said, 2)
        ),
        logs=dict(draw.logs),
        labels={path.name: file_sha256(path) for path in sheets},
    )


def _between(
    sizes: Counts,
    where: Mapping[str, tuple[int, int]],
    first: Mapping[str, str],
    second: Mapping[str, str],
) -> Estimate:
    """Kappa of two people, on the answers of which both could tell."""
    import numpy as np

    pairs = np.zeros((*sizes.shape, 2, 2))
    for id, cell in where.items():
        if "unclear" not in (first[id], second[id]):
            pairs[(*cell, int(first[id] == "no"), int(second[id] == "no"))] += 1
    return between_people(sizes, pairs)


def _agreed(labels: Sequence[str]) -> str:
    return labels[0] if len(set(labels)) == 1 else "unclear"


def _estimate(row: Mapping[str, Any]) -> Estimate:
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in _ENDS)
    return Estimate(value, low, high, int(row["n"]), str(row["method"]))


def _short(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "unknown"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
