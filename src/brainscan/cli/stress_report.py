"""``brainscan stress report``: what came of one or several runs of a scenario, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainscan.cli.options import Json
from brainscan.cli.output import console, print_json, working, write_page

if TYPE_CHECKING:
    from brainscan.stress.report import StressReport

EXAMPLE = "Example: brainscan stress report RUN_A RUN_B --out report.html"


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders that `stress run` made.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    as_json: Json = False,
) -> None:
    """Write what came of a run as a page, or of several runs of one scenario beside each other."""
    with working():
        need_inspect()
        from brainscan.stress.reading import open_run
        from brainscan.stress.report import stress_report
        from brainscan.stress.report_page import report_page

        found = stress_report([open_run(folder) for folder in folders])
        write_page(out, report_page(found, out))
    if as_json:
        print_json({"report": str(out), **found.to_json()})
    else:
        _print(found, out)


def need_inspect() -> None:
    """Checks that Inspect is installed.

    Raises:
        MissingExtraError: it is not.
    """
    from importlib.util import find_spec

    from brainscan.errors import MissingExtraError

    if find_spec("inspect_ai") is None:
        raise MissingExtraError("inspect-ai", "stress")


def _print(found: StressReport, page: Path) -> None:
    from rich.text import Text

    out = console()
    for one in found.runs:
        out.print(Text(f"{one.name}: {one.finding}"))
    for c in found.comparisons:
        told = f"{c.name} minus {c.against}: {c.difference}, p (Holm) {c.adjusted:.2g}"
        out.print(Text(told))
    out.print(Text(f"report: {page}"), soft_wrap=True)
