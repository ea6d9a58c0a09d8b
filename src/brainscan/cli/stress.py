"""``brainscan stress``: put a model under pressure, see what it does, and count it properly."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import DEFAULT_MODEL, Json, Out, Seed
from brainscan.cli.output import console, print_json, visible, working, write_page
from brainscan.cli.stress_report import EXAMPLE as REPORT_EXAMPLE
from brainscan.cli.stress_report import need_inspect, report

if TYPE_CHECKING:
    from brainscan.stress.runs import StressRun

app = typer.Typer(name="stress", help="List, show and run stress tests.", no_args_is_help=True)
app.command("report", epilog=REPORT_EXAMPLE)(report)

ScenarioName = Annotated[str, typer.Argument(help="A scenario's name, or a YAML file.")]
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
    """Name the scenarios there are."""
    with working():
        from brainscan.stress.matrix import factorial
        from brainscan.stress.scenarios import AGENTIC, load_scenario, personas

        found = [load_scenario(name) for name in AGENTIC]
        rows = [
            {
                "name": scenario.name,
                "title": scenario.title,
                "about": scenario.about,
                "factors": {name: list(levels) for name, levels in scenario.factors.items()},
                "conditions": len(factorial(scenario.factors)),
                "personas": len(personas()),
            }
            for scenario in found
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
    persona: Annotated[str, typer.Option("--persona", help="A persona-wording.")] = "p11",
    form: Annotated[FormName, typer.Option("--form", help="Short or long.")] = FormName.SHORT,
    as_json: Json = False,
) -> None:
    """Show a scenario's factors and what the model is told in one of its conditions."""
    with working():
        from brainscan.errors import UsageError
        from brainscan.stress.matrix import factorial
        from brainscan.stress.matrix import where as chosen
        from brainscan.stress.prompts import stress_prompt
        from brainscan.stress.scenarios import load_scenario, personas

        loaded = load_scenario(scenario)
        known = {one.id: one for one in personas()}
        if persona not in known:
            raise UsageError(f"a persona of {', '.join(known)}", f"'{persona}'", "name one")
        condition = chosen(factorial(loaded.factors), where or ())[0]
        prompt = stress_prompt(loaded, known[persona], condition, form.value)
    if as_json:
        factors = {name: list(levels) for name, levels in loaded.factors.items()}
        told = {"condition": dict(condition), "system": prompt.system, "user": prompt.user}
        print_json({"name": loaded.name, "factors": factors, "persona": persona, **told})
        return
    for factor, levels in loaded.factors.items():
        print(f"{factor}: " + ", ".join(f"[{x}]" if x == condition[factor] else x for x in levels))
    print(f"\n--- system\n{visible(prompt.system)}\n\n--- user\n{visible(prompt.user)}")


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
        list[str] | None, typer.Option("--split", help="Personas of this split; may be repeated.")
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
    judge: Annotated[
        str, typer.Option("--judge", help="'rules', or a model, named as for --model.")
    ] = "rules",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a scenario on a model and count what it did.

    Stopped in the middle, the same command goes on with what is missing. The page OUT/report.html
    shows what came of it.
    """
    with working():
        need_inspect()
        from brainscan.stress.report import PAGE, stress_report
        from brainscan.stress.report_page import report_page
        from brainscan.stress.runs import RunConfig, run_stress
        from brainscan.stress.tasks import HELD_OUT, Matrix

        matrix = Matrix(form.value, full, tuple(where or ()), tuple(split or HELD_OUT), limit)
        config = RunConfig(epochs, max_new_tokens, temperature, seed, judge=judge)
        args = {"edits": edits} if edits else {}
        found = run_stress(scenario, model, out, matrix, config, args)
        page = out / PAGE
        write_page(page, report_page(stress_report([found]), page))
    if as_json:
        print_json({**found.to_json(), "out": str(out), "report": str(page)})
    else:
        _print(found)
        console().print(f"report: {page}", soft_wrap=True, markup=False)


def _print(run: StressRun) -> None:
    from rich.table import Table

    from brainscan.stress.rates import effects, funnel, overall, rate

    out = console()
    out.print(f"{run.model} on {run.scenario.name}: harmful {overall(run.outcomes)} wordings")
    if not run.interior:
        out.print("this model's interior is not available")
    stages = Table("stage", "share of answers")
    for stage, share in funnel(run.outcomes).items():
        stages.add_row(stage.replace("_", " "), str(share))
    out.print(stages)
    table = Table(*run.scenario.factors, "harmful", "unscored")
    for condition, outcomes in run.by_condition():
        found = rate(outcomes)
        table.add_row(*condition.values(), str(found.harmful), str(found.unscored))
    out.print(table)
    moved = Table("factor", "level", "against", "difference", "p (Holm)", "detectable")
    for e in effects(run.outcomes, run.scenario.factors):
        figures = (str(e.difference), f"{e.adjusted:.2g}", f"{e.detectable:.2g}")
        moved.add_row(e.factor, e.level, e.against, *figures)
    out.print(moved)
    out.print(f"judged by {run.judge}", style="dim", markup=False)
