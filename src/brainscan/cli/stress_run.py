"""``brainscan stress run``: a stress test or a task on a model, counted, and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainscan.cli.options import DEFAULT_MODEL, Json, Out, Seed
from brainscan.cli.output import console, note, print_json, visible, working, write_page
from brainscan.cli.stress_report import need_inspect

if TYPE_CHECKING:
    from brainscan.stress.runs import StressRun

EXAMPLE = "Example: brainscan stress run blackmail --epochs 2 --limit 48 --json"

Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only conditions with this level: FACTOR=LEVEL; may be repeated."),
]


class FormName(StrEnum):
    """How long the prompts are."""

    SHORT = "short"
    LONG = "long"


FormOption = Annotated[FormName, typer.Option("--form", help="Short or long.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="As `load` takes it, or inspect:PROVIDER/NAME.")
]
TestName = Annotated[
    str | None, typer.Argument(help="A stress test's name, or a YAML file.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Only go on with the run in --out.")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Runs of each sample.")]
Full = Annotated[bool, typer.Option("--full", help="The whole factorial.")]
Split = Annotated[
    list[str] | None, typer.Option("--split", help="Units of this split; may be repeated.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Samples at most.")]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="An Inspect task instead: FILE.py@NAME or PACKAGE/NAME."),
]
TaskArguments = Annotated[
    list[str] | None, typer.Option("-T", help="The task's KEY=VALUE; may be repeated.")
]
Score = Annotated[str | None, typer.Option("--score", help="The task's score to count.")]
Factor = Annotated[
    list[str] | None,
    typer.Option("--factor", help="A key of the samples' metadata as factor; may be repeated."),
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Length of an answer at most.")
]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="Of sampling.")]
MaxSamples = Annotated[int, typer.Option("--max-samples", min=1, help="Samples under way at once.")]
Judge = Annotated[str, typer.Option("--judge", help="'rules', or a model, named as for --model.")]
Edits = Annotated[
    list[str] | None, typer.Option("--edit", help="An edit, or a folder of saved ones.")
]


def run(
    scenario: TestName = None,
    model: Model = DEFAULT_MODEL,
    out: Out = Path("stress"),
    resume: Resume = False,
    epochs: Epochs = 1,
    form: FormOption = FormName.SHORT,
    full: Full = False,
    where: Where = None,
    split: Split = None,
    limit: Limit = None,
    task: TaskName = None,
    task_args: TaskArguments = None,
    score: Score = None,
    factor: Factor = None,
    max_new_tokens: MaxNewTokens = 200,
    temperature: Temperature = 1.0,
    max_samples: MaxSamples = 64,
    edits: Edits = None,
    judge: Judge = "rules",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a stress test, or any Inspect task, on a model and count what it did.

    Stopped in the middle, the same command goes on with what is missing. The page OUT/report.html
    shows what came of a stress test.
    """
    with working():
        need_inspect()
        from brainscan.stress.runs import RunConfig, TaskChoice, run_stress, run_task
        from brainscan.stress.tasks import HELD_OUT, RULES, Matrix

        ours = {"--form long": form != FormName.SHORT, "--full": full, "--where": bool(where)}
        ours |= {"--split": bool(split), "--judge": judge != RULES}
        theirs = {"-T": bool(task_args), "--score": score is not None, "--factor": bool(factor)}
        _one_of_two(scenario, task, ours, theirs)
        _begun_or_not(out, resume)
        config = RunConfig(epochs, max_new_tokens, temperature, seed, max_samples, judge)
        args = {"edits": edits} if edits else {}
        if task is not None:
            choice = TaskChoice(task, score, task_arguments(task_args), tuple(factor or ()), limit)
            found, page = run_task(choice, model, out, config, args), None
        else:
            matrix = Matrix(form.value, full, tuple(where or ()), tuple(split or HELD_OUT), limit)
            found = run_stress(scenario or "", model, out, matrix, config, args)
            page = _write_page(found, out)
    _tell(found, out, page, as_json)


def _write_page(found: StressRun, out: Path) -> Path:
    from brainscan.stress.report import PAGE, stress_report
    from brainscan.stress.report_page import report_page

    page = out / PAGE
    write_page(page, report_page(stress_report([found]), page))
    return page


def _one_of_two(
    scenario: str | None, task: str | None, ours: Mapping[str, bool], theirs: Mapping[str, bool]
) -> None:
    """Checks that there is a stress test or a task, with options of its own."""
    from brainscan.errors import UsageError

    if (scenario is None) == (task is None):
        raise UsageError(
            "a stress test's name, or --task with an Inspect task",
            "neither" if task is None else "both",
            "see: stress list",
        )
    kind, others = ("stress test", theirs) if task is None else ("task", ours)
    wrong = [option for option, given in others.items() if given]
    if wrong:
        other = "--task" if task is None else "a stress test of ours"
        raise UsageError(f"options of a {kind}", ", ".join(wrong), f"those go with {other}")


def _begun_or_not(out: Path, resume: bool) -> None:
    """Checks that there is a run to go on with where one is asked for, and says so where one is."""
    from brainscan.errors import ArtifactError
    from brainscan.stress.runs import is_begun

    if is_begun(out):
        note(f"goes on with the run in {out}")
    elif resume:
        raise ArtifactError(f"a run to go on with in {out}", "none", "leave --resume out")


def task_arguments(texts: Sequence[str] | None) -> dict[str, Any]:
    """The values of ``KEY=VALUE``, read as YAML."""
    import yaml

    from brainscan.errors import UsageError

    found = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        try:
            if not sign or not key:
                raise ValueError(text)
            found[key.replace("-", "_")] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError) as error:
            raise UsageError("-T KEY=VALUE", f"'{text}'", "write one so") from error
    return found


def _tell(found: StressRun, out: Path, page: Path | None, as_json: bool) -> None:
    if as_json:
        shown = None if page is None else str(page)
        print_json({**found.to_json(), "out": str(out), "report": shown})
    else:
        _print(found, page)


def _print(run: StressRun, page: Path | None) -> None:
    from rich.table import Table

    from brainscan.stress.rates import effects, funnel, overall_rate, rate

    out, counted = console(), run.counted.replace("_", " ")
    whole = overall_rate(run.outcomes)
    share = str(whole.share).removesuffix(")")
    out.print(visible(f"{run.model} on {run.scenario.name}: {counted} {share} units)"))
    bounds = f"{whole.as_none.value:.2f} if none of {whole.unscored} unscored answers were counted"
    out.print(f"{bounds}, {whole.as_all.value:.2f} if all")
    if not run.interior:
        out.print("this model's interior is not available")
    stages = Table("stage", "share of answers")
    for stage, passed in funnel(run.outcomes, run.scenario.stages).items():
        stages.add_row(stage.replace("_", " "), str(passed))
    out.print(stages)
    table = Table(*run.scenario.factors, counted, "unscored", "if none", "if all")
    for condition, outcomes in run.by_condition():
        found = rate(outcomes)
        figures = (str(found.unscored), f"{found.as_none.value:.2f}", f"{found.as_all.value:.2f}")
        table.add_row(*map(visible, condition.values()), str(found.share), *figures)
    out.print(table)
    moved = Table("factor", "level", "against", "difference", "p (Holm)", "detectable")
    for e in effects(run.outcomes, run.scenario.factors):
        figures = (str(e.difference), f"{e.adjusted:.2g}", f"{e.detectable:.2g}")
        moved.add_row(*map(visible, (e.factor, e.level, e.against)), *figures)
    out.print(moved)
    out.print(f"judged by {run.judge}", style="dim", markup=False)
    told = "none of a task that is not ours; its logs open with: inspect view"
    out.print(f"report: {page or told}", soft_wrap=True, markup=False)
