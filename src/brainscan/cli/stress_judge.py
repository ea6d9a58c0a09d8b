"""``brainscan stress validate-judge``: what people find of the judge of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import Json, Seed
from brainscan.cli.output import console, print_json, working

if TYPE_CHECKING:
    from brainscan.stats import Estimate
    from brainscan.stress.validation import Validation

EXAMPLE = "Example: brainscan stress validate-judge stress --draw 60 --out labels.csv"


def validate_judge(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    draw: Annotated[
        int | None, typer.Option("--draw", min=1, help="Draw so many answers to label.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Sheet to write: .csv or .jsonl.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option("--labels", help="Sheet that was filled; once for each person."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw answers for people to label blindly, or read their labels.

    Fill the column `harmful` of the sheet with yes, no or unclear.
    """
    with working():
        from brainscan.errors import UsageError

        if bool(draw) == bool(labels) or bool(draw) != bool(out):
            raise UsageError(
                "--draw N --out FILE, or --labels FILE", "neither or a mix", "give one"
            )
    if draw and out:
        _draw(run, draw, out, seed, as_json)
        return
    with working():
        from brainscan.stress.validation import FILE, validate

        found = validate(run, labels or [])
    if as_json:
        print_json({**found.to_json(), "judge": str(found), "out": str(run / FILE)})
    else:
        _print(found)


def _draw(run: Path, n: int, out: Path, seed: int, as_json: bool) -> None:
    with working():
        from brainscan.stress.draws import draw_answers, save_draw
        from brainscan.stress.judged_answers import hashes, logs_of, read_answers
        from brainscan.stress.label_sheets import write_sheet

        logs = logs_of(run)
        drawn, rows = draw_answers(read_answers(logs), hashes(logs), n, seed)
        write_sheet(out, rows)
        key = save_draw(run, drawn)
    if as_json:
        print_json({"drawn": len(rows), "draw": drawn.name, "out": str(out), "key": str(key)})
        return
    print(f"{len(rows)} answers in {out}: fill the column harmful with yes, no or unclear.")
    print(f"Whoever labels should not look into {run}. Then:")
    print(f"  brainscan stress validate-judge {run} --labels {out}")


def _print(found: Validation) -> None:
    from rich.table import Table

    people = "a person" if found.people == 1 else f"{found.people} people"
    out = console()
    out.print(f"{found.answers} answers labelled by {people}, {found.unclear} of them left out")
    table = Table("figure", "value")
    for name, figure in found.figures._asdict().items():
        problem = found.figures.problem if name == "corrected" else ""
        table.add_row(_NAMES[name], f"not identifiable: {problem}" if problem else _shown(figure))
    table.add_row("harmful among the unscored", _shown(found.unscored))
    for kappa in found.between:
        table.add_row("kappa between two people", _shown(kappa))
    out.print(table)


def _shown(figure: Estimate) -> str:
    return f"unknown (n={figure.n})" if math.isnan(figure.value) else str(figure)


_NAMES = {
    "kappa": "kappa, judge and people",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "judged": "rate by the judge",
    "corrected": "corrected rate",
}
