"""``brainscan demo``: from a passage to a steered concept with its controls, as a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import DictionaryName, Json, Model, Seed
from brainscan.cli.output import console, note, print_json, working
from brainscan.cli.scan import print_scan

if TYPE_CHECKING:
    from brainscan.demo import Demo

EXAMPLE = "Example: brainscan demo --out report"

_COLOURS = {"supported": "green", "inconclusive": "yellow", "not supported": "red"}


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "report"
    ),
    model: Model = None,
    dictionary: DictionaryName = None,
    concept: Annotated[
        str | None,
        typer.Option("--concept", help="Words of another concept than food."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Scan a passage, find a concept, turn it up and down beside controls, write a report.

    The page OUT/report.html shows the scanned passage after some seconds, and everything when the
    command is done. The figures are in OUT/report.json.
    """
    started = time.monotonic()
    with working():
        note("loading the model")
        from brainscan.cli.parts import open_pair
        from brainscan.demo import Concept, ExperimentConfig, run_demo

        pair = open_pair(model, dictionary)
        config = ExperimentConfig(seed=seed)
        if concept is not None:
            config = ExperimentConfig(seed=seed, concept=Concept.from_query(concept))

        def tell(line: str) -> None:
            note(f"[{time.monotonic() - started:3.0f} s] {line}")

        result = run_demo(pair.lm, pair.dictionary, out, config, tell)
        tell("done")
    if as_json:
        findings = result.findings.to_json()
        print_json({"page": str(result.page), "figures": str(result.figures), **findings})
    else:
        _print(result)


def _print(result: Demo) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from brainscan.demo.report import explanation

    out = console()
    findings = result.findings
    print_scan(result.scan)
    arms = Table("arm", "answers that speak of " + findings.config.concept.name)
    for name, answers in findings.answers.items():
        arms.add_row(name, str(answers.share))
    out.print(arms)
    for claim in findings.claims:
        verdict = Text(claim.verdict.upper(), style=f"bold {_COLOURS[claim.verdict]}")
        body = Text("\n").join([Text(claim.text), verdict, Text(explanation(claim), style="dim")])
        out.print(Panel(body, title=Text(f"{result.card.id}: {result.card.label}")))
    out.print(f"report: {result.page} and {result.figures.name}", soft_wrap=True)
