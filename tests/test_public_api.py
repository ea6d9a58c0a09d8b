from __future__ import annotations

import subprocess
import sys

import pytest

import brainscan

PUBLIC = [
    "Ablate",
    "AblateSet",
    "Add",
    "Address",
    "Atlas",
    "BrainscanError",
    "Clamp",
    "Dictionary",
    "Direction",
    "Probe",
    "ProjectOut",
    "Sampling",
    "Scale",
    "Span",
    "Swap",
    "Watch",
    "Where",
    "__version__",
    "audit",
    "calibrate",
    "capture",
    "generate",
    "intervene",
    "load",
    "measure_effects",
    "open_detectors",
    "scan",
    "test_edit",
    "watch_transcripts",
]


def test_the_public_names_are_these():
    assert brainscan.__all__ == PUBLIC
    assert dir(brainscan) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there_and_documented(name):
    thing = getattr(brainscan, name)
    assert name == "__version__" or thing.__doc__


def test_what_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Autoencoder'"):
        brainscan.Autoencoder  # noqa: B018


def test_every_public_object_says_where_it_lives():
    for name in PUBLIC:
        if name != "__version__":
            thing = getattr(brainscan, name)
            assert thing.__module__.startswith("brainscan."), name


def test_star_import_brings_exactly_these():
    code = "from brainscan import *; print(*sorted(n for n in dir() if n != '__builtins__'))"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    hidden = {"__annotations__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"}
    assert sorted(set(names) - hidden) == sorted(PUBLIC)
