"""``brainscan stress``: put a model under pressure, see what it does, and count it properly."""

from __future__ import annotations

from typing import Annotated

import typer

from brainscan.cli.options import Json
from brainscan.cli.output import print_json, visible, working
from brainscan.cli.stress_report import EXAMPLE as REPORT_EXAMPLE
from brainscan.cli.stress_report import report
from brainscan.cli.stress_run import EXAMPLE as RUN_EXAMPLE
from brainscan.cli.stress_run import FormName, FormOption, Where, run

app = typer.Typer(name="stress", help="List, show and run stress tests.", no_args_is_help=True)
app.command("report", epilog=REPORT_EXAMPLE)(report)
app.command("run", epilog=RUN_EXAMPLE)(run)

ScenarioName = Annotated[str, typer.Argument(help="A stress test's name, or a YAML file.")]


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
    form: FormOption = FormName.SHORT,
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
