"""One progress bar for everything that takes more than a moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""Reports that so many more units are done."""


@contextmanager
def progress(label: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Shows a bar with rate and time left on stderr while the block runs.

    Silent when stderr is no terminal or ``BRAINSCAN_QUIET`` is set.

    Args:
        label: what is being done.
        total: how many units there are; None when unknown.
        unit: what a unit is, shown after the rate.
    """
    if not sys.stderr.isatty() or os.environ.get("BRAINSCAN_QUIET"):
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total, rate="")

        def advance(amount: int) -> None:
            bars.advance(task, amount)
            speed = bars.tasks[0].speed
            bars.update(task, rate=f"{speed:,.0f} {unit}/s" if speed else "")

        yield advance
