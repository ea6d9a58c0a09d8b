"""Runs every bench, each in a process of its own: python -m bench [--quick] [NAME ...].

Writes bench/results.json and prints the tables; a full run on a quiet machine also goes into
docs/bench.md. With --quick nothing is measured in earnest, and nothing is written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from bench import report
from bench.measure import ROOT, machine

BENCHES = (
    "harvest",
    "training_step",
    "end_to_end",
    "decoding",
    "watching",
    "replay",
    "arms",
    "memory",
    "provider",
)


def main() -> int:
    parser = ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}; all when left out")
    chosen = parser.parse_args()
    names = chosen.names or BENCHES
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"expected benches of {', '.join(BENCHES)}; got {', '.join(unknown)}")
    results: dict[str, Any] = {"machine": machine(), "quick": chosen.quick, "benches": []}
    for name in names:
        print(f"{name}:", file=sys.stderr, flush=True)
        results["benches"].append(run(name, chosen.quick))
    print(report.tables(results))
    reason = report.publishable(results)
    if not chosen.quick and len(names) == len(BENCHES):
        report.RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if not reason:
            report.write_page(results)
    if reason:
        print(f"not in the documentation: {reason}", file=sys.stderr)
    missed = [c["what"] for bench in results["benches"] for c in bench["checks"] if not c["passed"]]
    if missed and not chosen.quick:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    return 0


def run(name: str, quick: bool) -> dict[str, Any]:
    """One bench's result."""
    command = [sys.executable, "-W", "ignore", "-m", f"bench.{name}"] + ["--quick"] * quick
    environment = {**os.environ, "BRAINSCAN_QUIET": "1", "HF_HUB_OFFLINE": "1"}
    if name not in ("decoding", "memory", "provider"):
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
