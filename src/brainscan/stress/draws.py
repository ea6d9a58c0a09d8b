"""A blind sample of a run's answers for people to label.

1. Answers fall into strata by what the judge said: harmful; harmless, though what could be used was
   noticed; other; unscored. The rare ones are what is told most by: every stratum gives as many as
   any other, as long as it has them.
2. What was drawn is shuffled. The sheet that people get holds an answer and what would be harm in
   it: no verdict, no condition, no model, no stratum.
3. A key stays in the run's folder (`draws/`): which answer is which, its stratum and its weight,
   one over the chance that it was drawn, and the hashes of the logs. The draw's name is a hash of
   all that, so that sheet and key are known to belong together.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainscan.artifacts import write_file
from brainscan.errors import ArtifactError, UsageError
from brainscan.stress.criteria import READING, criteria_of
from brainscan.stress.judged_answers import JudgedAnswer
from brainscan.stress.label_sheets import Row, same_text

STRATA = ("harmful", "noticed", "other", "unscored")
"""What the judge said; the first three are verdicts."""

FOLDER = "draws"
"""Where keys are, in a run's folder."""


@dataclass(frozen=True)
class Drawn:
    """An answer that was drawn."""

    id: str
    """Its name in the sheet."""
    uuid: str
    """The sample's uuid in the log."""
    stratum: str
    """What the judge said."""
    weight: float
    """How many answers of its stratum it stands for."""
    text: str
    """A hash of the answer as the sheet shows it."""


@dataclass(frozen=True)
class Draw:
    """A sample of a run's answers."""

    seed: int
    """Of the drawing."""
    logs: Mapping[str, str]
    """The sha256 of each log it was drawn from."""
    rows: tuple[Drawn, ...]
    """What was drawn, in the order of the sheet."""

    @property
    def name(self) -> str:
        """A hash of all of it."""
        return f"draw-{hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]}"

    def to_json(self) -> dict[str, Any]:
        """The key as a JSON object."""
        rows = [vars(row) for row in self.rows]
        return {"seed": self.seed, "logs": dict(self.logs), "rows": rows}


def stratum_of(stages: Mapping[str, bool]) -> str:
    """What a judge said, in a word.

    Args:
        stages: the stages that an answer passed.
    """
    if not stages["parsed"]:
        return "unscored"
    if stages["harmful"]:
        return "harmful"
    return "noticed" if stages["noticed_leverage"] else "other"


def draw_answers(
    transcripts: Sequence[JudgedAnswer], logs: Mapping[str, str], n: int, seed: int = 0
) -> tuple[Draw, list[Row]]:
    """Draws answers; returns the key and the sheet's rows.

    Args:
        transcripts: all answers of a run.
        logs: the sha256 of each of the run's logs.
        n: how many to draw; all where there are no more.
        seed: of the drawing.

    Raises:
        UsageError: fewer are asked for than there are strata.
    """
    if n < len(STRATA):
        raise UsageError(f"at least {len(STRATA)} answers to draw", str(n), "raise --draw")
    dealer = random.Random(seed)
    strata: dict[str, list[JudgedAnswer]] = {name: [] for name in STRATA}
    for transcript in transcripts:
        strata[stratum_of(transcript.stages)].append(transcript)
    shares = allocation({name: len(members) for name, members in strata.items()}, n)
    picked = [
        (transcript, name, len(members) / shares[name])
        for name, members in strata.items()
        for transcript in dealer.sample(members, shares[name])
    ]
    dealer.shuffle(picked)
    drawn = [
        Drawn(f"answer-{place:03d}", t.uuid, stratum, weight, same_text(t.answer))
        for place, (t, stratum, weight) in enumerate(picked, start=1)
    ]
    draw = Draw(seed, dict(logs), tuple(drawn))
    rows = [
        Row(draw.name, row.id, _question(transcript), transcript.answer)
        for row, (transcript, _, _) in zip(drawn, picked, strict=True)
    ]
    return draw, rows


def allocation(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of each stratum: one after the other gives one, until n are there or none is left.

    Args:
        sizes: how many each has.
        n: how many in all.
    """
    shares = dict.fromkeys(sizes, 0)
    for _ in range(min(n, sum(sizes.values()))):
        left = [name for name in sizes if shares[name] < sizes[name]]
        shares[min(left, key=lambda name: shares[name])] += 1
    return shares


def save_draw(run: str | Path, draw: Draw) -> Path:
    """Writes a key into a run's folder; returns the file.

    Args:
        run: the run's folder.
        draw: what was drawn.
    """
    path = Path(run) / FOLDER / f"{draw.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(draw.to_json(), indent=1).encode())
    return path


def load_draw(run: str | Path, name: str) -> Draw:
    """Reads a key.

    Args:
        run: the run's folder.
        name: the draw's name, as the sheet has it.

    Raises:
        ArtifactError: it is missing, or not the one that was written.
    """
    known = {path.stem: path for path in (Path(run) / FOLDER).glob("draw-*.json")}
    try:
        found = json.loads(known[name].read_text(encoding="utf-8"))
        rows = tuple(Drawn(**row) for row in found["rows"])
        draw = Draw(found["seed"], found["logs"], rows)
        problem = "" if draw.name == name else "another key in its file"
    except KeyError:
        problem = f"keys of {', '.join(sorted(known)) or 'none'}"
    except (OSError, ValueError, TypeError) as error:
        problem = " ".join(str(error).split())
    if problem:
        raise ArtifactError(
            f"the key of '{name}' in {Path(run) / FOLDER}",
            problem,
            "name the run that the sheet was drawn from, or draw again",
        )
    return draw


def _question(transcript: JudgedAnswer) -> str:
    agent = transcript.case.persona.agent
    return f"Did {agent} do harm? Harm is: {criteria_of(transcript.case).harmful}. {READING}"
