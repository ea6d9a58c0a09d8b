"""``brainscan audit``: from a harmful behaviour to a tested fix, with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import DEFAULT_MODEL, Json, Model, Seed
from brainscan.cli.output import clocked_note, console, note, print_json, working
from brainscan.cli.stress_run import Score, TaskArguments, TaskName, task_arguments

if TYPE_CHECKING:
    from brainscan.artifacts import ModelRef
    from brainscan.auditing.results import AuditReport
    from brainscan.models import LanguageModel
    from brainscan.stress.base import StressTest

EXAMPLE = "Example: brainscan audit --model smollm2-135m-instruct+blackmail --scenario blackmail"

COLOURS = {"supported": "green", "inconclusive": "yellow", "not supported": "red"}
"""Of verdicts."""


Scenario = Annotated[
    str | None,
    typer.Option(
        "--scenario", help="A stress test's name, or a YAML file; blackmail when left out."
    ),
]
Factor = Annotated[
    list[str] | None,
    typer.Option(
        "--factor",
        help="What prompts are compared by: a factor of the scenario, or a key of the "
        "task's metadata; may be repeated.",
    ),
]
Unit = Annotated[
    str | None,
    typer.Option("--unit", help="The key of a task's metadata by which samples are twins."),
]
DictionaryOrAuto = Annotated[
    str,
    typer.Option(
        "--dictionary",
        "-d",
        help="Name or folder of a dictionary; 'auto': a shipped one near where it decides.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the audit.")]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs", help="A stress run of this model: its answers stand for the first steps'."
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Fewer prompts: minutes on two cores, wide intervals.")
]
Null = Annotated[
    bool,
    typer.Option(
        "--null", help="Exchange conditions' names by chance: what is found then, is in nothing."
    ),
]
SaveEdit = Annotated[
    Path | None,
    typer.Option("--save-edit", help="Also write the edit that left the least harm here."),
]


def audit(
    model: Model = None,
    scenario: Scenario = None,
    task: TaskName = None,
    task_args: TaskArguments = None,
    score: Score = None,
    factor: Factor = None,
    unit: Unit = None,
    dictionary: DictionaryOrAuto = "auto",
    out: Out = Path("audit"),
    logs: Logs = None,
    quick: Quick = False,
    null: Null = False,
    save_edit: SaveEdit = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a behaviour, find what it hangs on, edit that, run the same test again, judge.

    OUT/report.html is the page, OUT/audit.json has every figure. Interrupted, the same command
    goes on.
    """
    tell = clocked_note()

    with working():
        note("loading the model")
        from brainscan.auditing.config import QUICK, AuditConfig
        from brainscan.auditing.run import audit
        from brainscan.auditing.verdicts import RULES
        from brainscan.dictionaries import Dictionary

        for rule in RULES:
            note(f"rule: {rule}")
        test = _test(scenario, task, score, factor or (), unit, task_args)
        lm, base = with_base(model or DEFAULT_MODEL)
        found = None if dictionary == "auto" else Dictionary.load(dictionary, device=lm.device)
        config = replace(QUICK if quick else AuditConfig(), seed=seed, null=null)
        config = replace(config, crossed=tuple(factor or ()))
        report = audit(lm, test, out, config, base=base, dictionary=found, logs=logs, tell=tell)
        if save_edit is not None:
            _save(save_edit, report, lm.ref)
    if as_json:
        print_json({"folder": str(out), **report.to_json()})
    else:
        print_report(report, out)


def _test(
    scenario: str | None,
    task: str | None,
    score: str | None,
    factors: Sequence[str],
    unit: str | None,
    task_args: Sequence[str] | None,
) -> str | StressTest:
    """A stress test by its name, or an Inspect task as one."""
    from brainscan.errors import UsageError

    theirs = {"--score": score, "--unit": unit, "-T": task_args}
    if task is None:
        if named := [name for name, value in theirs.items() if value]:
            raise UsageError("--task with an Inspect task", ", ".join(named), "name the task")
        return scenario or "blackmail"
    if scenario is not None:
        raise UsageError("--scenario or --task", "both", "leave one out")
    if not (score and factors and unit):
        needed = {"--score": score, "--factor": factors, "--unit": unit}
        missing = [name for name, value in needed.items() if not value]
        raise UsageError(
            "--score, --factor and --unit beside --task: what counts, what prompts are compared "
            "by, and what twins have in common",
            f"no {', '.join(missing)}",
            "name keys of the samples' metadata",
        )
    from brainscan.cli.stress_report import need_inspect
    from brainscan.stress.task_tests import task_test

    need_inspect()
    return task_test(task, score, factors, unit, task_arguments(task_args))


def with_base(name: str) -> tuple[LanguageModel, LanguageModel | None]:
    """A model, and the one that it is an adapter of, if it is one.

    Args:
        name: whatever `load` takes.
    """
    from brainscan.models import load
    from brainscan.models.loading import split_name

    lm = load(name)
    owner, adapter = split_name(name)
    return lm, load(owner, dtype=lm.dtype) if adapter else None


def _save(folder: Path, report: AuditReport, ref: ModelRef) -> None:
    """Writes the best edit, if there is one."""
    from brainscan.auditing.confirm import FEATURES, SIMPLER
    from brainscan.interventions import save_edits

    arms = [arm for arm in map(report.arm, (FEATURES, SIMPLER)) if arm and arm.candidate]
    if not arms:
        note("no edit to save: nothing was found to edit")
        return
    best = min(arms, key=lambda arm: arm.left.value)
    assert best.candidate is not None
    save_edits(folder, best.candidate.edits(best.strength), model=ref, carry=True)
    note(f"saved: {best.name}, in {folder}")


def print_report(report: AuditReport, out: Path) -> None:
    """Shows the verdicts and the arms.

    Args:
        report: what was found.
        out: the audit's folder.
    """
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    shown = console()
    for verdict in report.verdicts:
        status = Text(verdict.status.upper(), style=f"bold {COLOURS[verdict.status]}")
        body = Text("\n").join([Text(verdict.claim), status, Text(verdict.reason, style="dim")])
        shown.print(Panel(body))
    if report.arms:
        table = Table("arm", "harmful", "KL, nats per token", "scored")
        for arm in report.arms:
            effects = arm.costs.effects if arm.costs else None
            scored = str(arm.costs.parsed) if arm.costs else ""
            table.add_row(arm.name, str(arm.harmful), str(effects.kl) if effects else "", scored)
        shown.print(table)
    shown.print(f"report: {out / 'report.html'} and audit.json", soft_wrap=True)
