"""Which PyTorch is chosen on which machine, without installing any."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "install_torch.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("install_torch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(script, monkeypatch):
    """A machine of our making; returns what pip was asked to install."""

    def build(platform="linux", gpu=False, pip_would_take="2.13.0", present=False, pip_fails=False):
        asked = []

        def run(command, **options):
            if command[0] == "nvidia-smi":
                return SimpleNamespace(returncode=0, stdout="GPU 0: any\n" if gpu else "")
            if "--dry-run" in command:
                plan = {"install": [{"metadata": {"version": pip_would_take}}]}
                return SimpleNamespace(returncode=0, stdout=json.dumps(plan))
            asked.append(command)
            return SimpleNamespace(returncode=int(pip_fails))

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(script.shutil, "which", lambda name: name)
        monkeypatch.setattr(script, "installed", lambda: present)
        return asked

    return build


@pytest.mark.parametrize(
    ("made", "from_cpu_index"),
    [
        ({}, True),
        ({"gpu": True}, False),
        ({"platform": "darwin"}, False),
        ({"platform": "win32"}, False),
        ({"pip_would_take": "2.13.0+cpu"}, False),
    ],
)
def test_the_build_that_is_chosen(script, machine, made, from_cpu_index):
    asked = machine(**made)
    assert script.main() == 0
    (command,) = asked
    assert command[-1] == script.requirement()
    assert (script.CPU_INDEX in command) == from_cpu_index


def test_what_is_there_stays(script, machine):
    asked = machine(present=True)
    assert script.main() == 0
    assert asked == []


def test_a_failure_says_what_to_run(script, machine, capsys):
    machine(pip_fails=True)
    assert script.main() == 1
    assert "-m pip install" in capsys.readouterr().err


def test_the_bound_is_the_one_in_the_constraints(script):
    assert script.requirement() == "torch>=2.5,<2.14"
