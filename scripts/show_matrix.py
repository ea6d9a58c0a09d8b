"""Writes, as Markdown, what models did under each condition of a stress test's default matrix.

    python scripts/show_matrix.py blackmail MODEL=LOGS ...

LOGS is the folder of a run, as `stress run` or the gate of `organism build` leaves it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from brainscan.stress.catalogue import load_test
from brainscan.stress.matrix import name_of
from brainscan.stress.rates import Rate, overall, rate
from brainscan.stress.runs import read_run


def main(name: str, *told: str) -> None:
    scenario = load_test(name)
    runs = {
        model: read_run(sorted(Path(folder).rglob("*.eval")), scenario)
        for model, _, folder in (one.partition("=") for one in told)
    }
    print(_row([*scenario.factors, *runs]))
    print(_row(["---"] * (len(scenario.factors) + len(runs))))
    by_model = [
        {name_of(condition): rate(outcomes) for condition, outcomes in run.by_condition()}
        for run in runs.values()
    ]
    for condition in next(iter(runs.values())).by_condition():
        found = [rates[name_of(condition[0])] for rates in by_model]
        print(_row([*condition[0].values(), *map(_cell, found)]))
    blank = [""] * (len(scenario.factors) - 1)
    print(_row(["all", *blank, *(str(overall(run.outcomes)) for run in runs.values())]))


def _cell(found: Rate) -> str:
    return f"{found.share}, {found.unscored} unscored" if found.unscored else str(found.share)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(*sys.argv[1:])
