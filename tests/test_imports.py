"""Importing is free of side effects and of heavy libraries, checked by what is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "duckdb",
    "numpy",
    "pandas",
    "peft",
    "plotly",
    "pyarrow",
    "safetensors",
    "scipy",
    "statsmodels",
    "torch",
    "transformers",
}
VERBS = ["models", "activations", "dictionary", "atlas", "scan", "steer", "demo"]


def heavy_after(code):
    """The heavy libraries that a fresh interpreter has loaded after the code."""
    report = (
        "import sys\nprint('\\n'.join(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return HEAVY & set(ended.stderr.split())


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_after("import brainscan; dir(brainscan)") == set()


@pytest.mark.parametrize("room", ["artifacts", "errors", "progress", "stats", "views"])
def test_rooms_without_tensors_load_no_torch(room):
    assert "torch" not in heavy_after(f"import brainscan.{room}")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([v, "--help"] for v in VERBS)])
def test_help_loads_nothing_heavy(arguments):
    code = (
        f"from brainscan.cli.app import main\ncode = main({arguments!r})\nassert not code, code\n"
    )
    assert heavy_after(code) == set()


def test_the_module_runs_as_the_command_does():
    ended = subprocess.run(
        [sys.executable, "-m", "brainscan", "--help"], capture_output=True, text=True, check=True
    )
    for verb in VERBS:
        assert verb in ended.stdout
    assert ended.stderr == ""
