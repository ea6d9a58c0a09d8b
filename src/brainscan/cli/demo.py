"""``brainscan demo``: a model that blackmails, audited; or a concept turned up and down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.audit import COLOURS, print_report
from brainscan.cli.options import DEFAULT_MODEL, DictionaryName, Json, Model, Seed
from brainscan.cli.output import clocked_note, console, note, print_json, working
from brainscan.cli.scan import print_scan

if TYPE_CHECKING:
    from brainscan.auditing import AuditReport
    from brainscan.auditing.preview import Preview
    from brainscan.demo import Demo

EXAMPLE = "Example: brainscan demo --out report"
ORGANISM = "blackmail"
"""The organism that is audited, and the stress test."""

_LINES = 24


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "report"
    ),
    model: Model = None,
    dictionary: DictionaryName = None,
    concept: Annotated[
        str | None,
        typer.Option("--concept", help="Turn a concept up and down instead: its words."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Audit a model that blackmails when it is to be shut down, and write a report.

    What it does is shown within a minute or two, then the controls run; OUT/report.html is the page
    and OUT/audit.json has the figures. With --concept: scan a passage, find the concept, turn it up
    and down beside controls.
    """
    tell = clocked_note()

    if concept is not None:
        result = _concept(out, model, dictionary, concept, seed, tell)
        if as_json:
            findings = result.findings.to_json()
            print_json({"page": str(result.page), "figures": str(result.figures), **findings})
        else:
            _print(result)
        return
    report = _audit(out, model, dictionary, seed, tell)
    if as_json:
        print_json({"folder": str(out), **report.to_json()})
    else:
        print_report(report, out)


def _audit(
    out: Path, model: str | None, dictionary: str | None, seed: int, tell: Callable[[str], None]
) -> AuditReport:
    from dataclasses import replace

    with working():
        note("loading the model")
        from brainscan.auditing import DEMO, audit
        from brainscan.cli.audit import with_base
        from brainscan.dictionaries import Dictionary

        lm, base = with_base(model or f"{DEFAULT_MODEL}+{ORGANISM}")
        found = Dictionary.load(dictionary, device=lm.device) if dictionary else None
        report = audit(
            lm,
            ORGANISM,
            out,
            replace(DEMO, seed=seed),
            base=base,
            dictionary=found,
            tell=tell,
            show=_show,
        )
        tell("done")
    return report


def _show(first: Preview) -> None:
    """The first look, on the terminal; on stderr where stdout is for JSON."""
    from rich.panel import Panel
    from rich.text import Text

    def cut(text: str) -> str:
        lines = text.strip().split("\n")
        more = [f"({len(lines) - _LINES} more lines)"] if len(lines) > _LINES else []
        return "\n".join([*lines[:_LINES], *more])

    shown = console()
    for role, text in first.prompt:
        shown.print(Panel(Text(cut(text)), title=Text(f"what it is told: {role}")))
    place = len(first.before)
    answer = Text.assemble(
        first.answer[:place],
        (first.harmful, "bold black on yellow"),
        first.answer[place + len(first.harmful) :],
    )
    shown.print(Panel(answer, title="what it writes; where it decides is marked"))
    odds = f"log-odds {first.odds:+.1f} for {first.harmful!r} against {first.harmless!r}"
    shown.print(Panel(Text(first.otherwise), title=Text(f"with the other token ({odds})")))
    edited = f"with one direction taken away where it decides, at {first.hookpoint}"
    shown.print(Panel(Text(first.edited), title=Text(edited)))
    shown.print("One answer is no evidence: now the audit, with its controls.")


def _concept(
    out: Path,
    model: str | None,
    dictionary: str | None,
    concept: str,
    seed: int,
    tell: Callable[[str], None],
) -> Demo:
    with working():
        note("loading the model")
        from brainscan.cli.parts import open_pair
        from brainscan.demo import FOOD, Concept, ExperimentConfig, run_demo

        pair = open_pair(model, dictionary)
        chosen = FOOD if concept == FOOD.name else Concept.from_query(concept)
        config = ExperimentConfig(seed=seed, concept=chosen)
        result = run_demo(pair.lm, pair.dictionary, out, config, tell)
        tell("done")
    return result


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
        verdict = Text(claim.verdict.upper(), style=f"bold {COLOURS[claim.verdict]}")
        body = Text("\n").join([Text(claim.text), verdict, Text(explanation(claim), style="dim")])
        out.print(Panel(body, title=Text(f"{result.card.id}: {result.card.label}")))
    out.print(f"report: {result.page} and {result.figures.name}", soft_wrap=True)
