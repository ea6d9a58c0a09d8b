"""Installs the PyTorch that fits this machine into the environment that runs this script.

1. A PyTorch within the bounds that is already there stays.
2. With an NVIDIA GPU, or outside Linux, pip's own choice is right.
3. On Linux without a GPU, pip is asked what it would take. If that is a CPU build (from a local
   folder of wheels, say), it is taken; otherwise the CPU build comes from PyTorch's own index,
   which saves gigabytes of CUDA libraries.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def main() -> int:
    wanted = requirement()
    if installed():
        return 0
    index = [] if sys.platform != "linux" or has_gpu() or chosen_is_cpu(wanted) else cpu_index()
    print(f"installing {wanted}" + (" (CPU build)" if index else ""), file=sys.stderr)
    code = subprocess.run([*PIP, "install", "-qq", *index, wanted]).returncode
    if code != 0:
        by_hand = f'{sys.executable} -m pip install "{wanted}"'
        print(f"expected to install {wanted}; pip failed; run: {by_hand}", file=sys.stderr)
    return code


def requirement() -> str:
    """The line of constraints.txt that bounds torch."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("torch>"):
            return line.strip()
    raise SystemExit(f"expected a line for torch in {CONSTRAINTS}; got none; restore the file")


def installed() -> bool:
    try:
        metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    # pip itself replaces a version out of bounds when it installs the rest.
    return True


def has_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout


def chosen_is_cpu(wanted: str) -> bool:
    """Whether the build that pip would take is one for the CPU."""
    asked = subprocess.run(
        [*PIP, "install", "-qq", "--dry-run", "--no-deps", "--report", "-", wanted],
        capture_output=True,
        text=True,
    )
    if asked.returncode != 0:
        return False
    plan = json.loads(asked.stdout)["install"]
    return any("+cpu" in item["metadata"]["version"] for item in plan)


def cpu_index() -> list[str]:
    return ["--index-url", CPU_INDEX]


if __name__ == "__main__":
    sys.exit(main())
