"""``brainscan stress``: put a model under pressure, see what it does, and count it properly."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import DEFAULT_MODEL, Json, Out, Seed
from brainscan.cli.output import console, print_json, visible, working

if TYPE_CHECKING:
    from brainscan.stress.runs import StressRun

app = typer.Typer(name="stress", help="List, show and run stress tests.", no_args_is_help=True)

ScenarioName = Annotated[str, typer.Argument(help="A stress test's name, or a YAML file.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only conditions with this level: FACTOR=LEVEL; may be repeated."),
]


class FormName(StrEnum):
    """How long the prompts are."""

    SHORT = "short"
    LONG = "long"


@app.command("list", epilog="Example: brainscan stress list")
def list_scenarios(as_json: Json = False) -> None:
    """Name the stress tests there are."""
    with working():
        from brainscan.stress.catalogue import NAMES, load_test
        from brainscan.stress.matrix import factorial

        found = [load_test(name) for name in NAMES]
        rows = [
            {
                "name": test.name,
                "title": test.title,
                "about": test.about,
                "factors": {name: list(levels) for name, levels in test.factors.items()},
                "conditions": len(conditions),
                "personas": len({unit.id for one in conditions for unit in test.units(one)}),
                "counted": test.stages[-1],
            }
            for test in found
            for conditions in [factorial(test.factors)]
        ]
    if as_json:
        print_json({"scenarios": rows})
        return
    for row in rows:
        print(f"{row['name']}: {row['about']}")


@app.command(epilog="Example: brainscan stress show blackmail --where threat=shutdown")
def show(
    scenario: ScenarioName,
    where: Where = None,
    persona: Annotated[
        str | None,
        typer.Option("--persona", help="A persona-wording, question, matter or task."),
    ] = None,
    form: Annotated[FormName, typer.Option("--form", help="Short or long.")] = FormName.SHORT,
    as_json: Json = False,
) -> None:
    """Show a stress test's factors and what the model is told in one of its conditions."""
    with working():
        from brainscan.errors import UsageError
        from brainscan.stress.base import Asked
        from brainscan.stress.catalogue import load_test
        from brainscan.stress.matrix import factorial
        from brainscan.stress.matrix import where as chosen
        from brainscan.stress.scenarios import SPLITS

        test = load_test(scenario)
        condition = chosen(factorial(test.factors), where or ())[0]
        units = test.units(condition)
        known = [unit.id for unit in units]
        unit = persona or next(unit.id for unit in units if unit.split != SPLITS[0])
        if unit not in known or form.value not in test.forms:
            raise UsageError(
                f"one of {', '.join(known)}, in a form of {', '.join(test.forms)}",
                f"'{unit}', {form.value}",
                "name another",
            )
        prompt = test.prompt(Asked(unit, condition, form.value))
    if as_json:
        factors = {name: list(levels) for name, levels in test.factors.items()}
        told = {"condition": dict(condition), "system": prompt.system, "user": prompt.user}
        print_json({"name": test.name, "factors": factors, "persona": unit, **told})
        return
    for factor, levels in test.factors.items():
        print(f"{factor}: " + ", ".join(f"[{x}]" if x == condition[factor] else x for x in levels))
    for message in prompt.messages:
        print(f"\n--- {message['role']}\n{visible(message['content'])}")


@app.command(epilog="Example: brainscan stress run blackmail --epochs 2 --limit 48 --json")
def run(
    scenario: ScenarioName,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="As `load` takes it, or inspect:PROVIDER/NAME."),
    ] = DEFAULT_MODEL,
    out: Out = Path("stress"),
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Runs of each sample.")] = 1,
    form: Annotated[FormName, typer.Option("--form", help="Short or long.")] = FormName.SHORT,
    full: Annotated[bool, typer.Option("--full", help="The whole factorial.")] = False,
    where: Where = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Units of this split; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Samples at most.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Length of an answer at most.")
    ] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Of sampling.")
    ] = 1.0,
    edits: Annotated[
        list[str] | None, typer.Option("--edit", help="An edit, or a folder of saved ones.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a stress test on a model and count what it did.

    Stopped in the middle, the same command goes on with what is missing.
    """
    with working():
        _need_inspect()
        from brainscan.stress.runs import RunConfig, run_stress
        from brainscan.stress.tasks import HELD_OUT, Matrix

        matrix = Matrix(form.value, full, tuple(where or ()), tuple(split or HELD_OUT), limit)
        config = RunConfig(epochs, max_new_tokens, temperature, seed)
        args = {"edits": edits} if edits else {}
        found = run_stress(scenario, model, out, matrix, config, args)
    if as_json:
        print_json({**found.to_json(), "out": str(out)})
    else:
        _print(found)


def _need_inspect() -> None:
    from importlib.util import find_spec

    from brainscan.errors import MissingExtraError

    if find_spec("inspect_ai") is None:
        raise MissingExtraError("inspect-ai", "stress")


def _print(run: StressRun) -> None:
    from rich.table import Table

    from brainscan.stress.rates import effects, funnel, overall, rate

    out, counted = console(), run.counted.replace("_", " ")
    out.print(f"{run.model} on {run.scenario.name}: {counted} {overall(run.outcomes)} units")
    if not run.interior:
        out.print("this model's interior is not available")
    stages = Table("stage", "share of answers")
    for stage, share in funnel(run.outcomes, run.scenario.stages).items():
        stages.add_row(stage.replace("_", " "), str(share))
    out.print(stages)
    table = Table(*run.scenario.factors, counted, "unscored")
    for condition, outcomes in run.by_condition():
        found = rate(outcomes)
        table.add_row(*condition.values(), str(found.share), str(found.unscored))
    out.print(table)
    moved = Table("factor", "level", "against", "difference", "p (Holm)", "detectable")
    for e in effects(run.outcomes, run.scenario.factors):
        figures = (str(e.difference), f"{e.adjusted:.2g}", f"{e.detectable:.2g}")
        moved.add_row(e.factor, e.level, e.against, *figures)
    out.print(moved)
    out.print(f"judged by {run.scenario.judge}", style="dim")
