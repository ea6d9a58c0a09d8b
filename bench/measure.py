"""How benches measure: CPU seconds, interleaved repeats, medians, and the machine's name.

1. What is compared runs in one process run, in turn, the order reversed every other time, so that
   a machine that slows down or is shared slows both sides.
2. A ratio is taken within each repeat; the median of these ratios is what is reported, with the
   smallest and the largest beside it.
3. Time is that of the processor (`time.process_time`), on one thread, unless a bench says so.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5
FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


@dataclass(frozen=True)
class Row:
    """One thing measured, several times."""

    what: str
    """What was measured."""
    values: list[float]
    """Each repeat's value."""
    unit: str
    """What the values are in."""


@dataclass(frozen=True)
class Check:
    """A ratio, or a difference, against its target."""

    what: str
    """What is compared with what."""
    values: list[float]
    """Each repeat's value."""
    target: float
    """What the median is held against."""
    at_least: bool = True
    """Whether the target is a lower bound; else an upper one."""

    @property
    def passed(self) -> bool:
        """Whether the median meets the target."""
        middle = statistics.median(self.values)
        return middle >= self.target if self.at_least else middle <= self.target


@dataclass
class Result:
    """What a bench found."""

    name: str
    """The bench."""
    setting: str
    """What was run, in a sentence."""
    rows: list[Row] = field(default_factory=list)
    """What was measured."""
    checks: list[Check] = field(default_factory=list)
    """What was compared."""
    skipped: str = ""
    """What could not be measured here, and how to make it."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, medians included."""
        plain = asdict(self)
        for item in plain["rows"] + plain["checks"]:
            item["median"] = statistics.median(item["values"])
        for item, check in zip(plain["checks"], self.checks, strict=True):
            item["passed"] = check.passed
        return plain


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Processor seconds that a piece of work takes in this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(
    arms: Mapping[str, Callable[[], float]], repeats: int = REPEATS
) -> dict[str, list[float]]:
    """Each arm's values over repeats, arms in turn and back.

    Args:
        arms: by name, what returns one measured value.
        repeats: how often each is run.
    """
    values: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats):
        for name in list(arms) if repeat % 2 == 0 else reversed(list(arms)):
            values[name].append(arms[name]())
            print(f"  {name}: {values[name][-1]:.4g}", file=sys.stderr, flush=True)
    return values


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how busy it was."""
    info = _cpu_info()
    flags = set(info.get("flags", "").split())
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "family": f"{info.get('cpu family', '?')}/{info.get('model', '?')}",
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def arguments(description: str) -> bool:
    """Reads a bench's command line; whether it is to be quick."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    return bool(parser.parse_args().quick)


def finish(result: Result) -> None:
    """Prints a bench's result as one line of JSON on stdout."""
    print(json.dumps(result.to_json()), flush=True)


def one_thread() -> None:
    """Keeps torch to one thread."""
    import torch

    torch.set_num_threads(1)


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    return dict(re.findall(r"^(.+?)\s*:\s*(.*)$", first, flags=re.MULTILINE))


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return asked.stdout.strip() or "unknown"
