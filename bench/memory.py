"""Whether a harvest's memory grows with its length.

Each harvest runs in a process of its own, whose peak memory (`ru_maxrss`) is read at its end. It
harvests at the residual after layer 0 of the real model, one layer out of 30, so that two million
tokens take minutes; what is held at a time is the same at any layer.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import setting
from bench.measure import ROOT, Check, Result, Row, arguments, finish

SIZES = (100_000, 2_000_000)
QUICK = (10_000, 40_000)
LIMIT = 300.0


def main() -> None:
    if "--child" in sys.argv:
        child(*sys.argv[2:4])
        return
    sizes = QUICK if arguments(__doc__ or "") else SIZES
    peaks = [peak(tokens) for tokens in sizes]
    result = Result("memory", "harvest at resid_post.0, built-in corpus, context 1,024")
    for tokens, megabytes in zip(sizes, peaks, strict=True):
        result.rows.append(Row(f"peak at {tokens:,} tokens", [megabytes], "MB"))
    growth = [peaks[1] - peaks[0]]
    result.checks.append(Check("growth, MB", growth, LIMIT, at_least=False))
    finish(result)


def peak(tokens: int) -> float:
    """Peak memory in MB of a harvest in a process of its own."""
    with TemporaryDirectory(dir=setting.folder()) as folder:
        out = str(Path(folder) / "store")
        command = [sys.executable, "-m", "bench.memory", "--child", str(tokens), out]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"  {tokens:,} tokens: {found:.0f} MB", file=sys.stderr, flush=True)
    return float(found)


def child(tokens: str, out: str) -> None:
    """Harvests, and prints this process' peak."""
    from brainscan.activations import HarvestConfig, harvest, open_corpus

    config = HarvestConfig(hookpoints=("resid_post.0",), tokens=int(tokens))
    harvest(setting.load(), open_corpus("builtin"), config, out)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(used / (1e6 if sys.platform == "darwin" else 1e3))


if __name__ == "__main__":
    main()
