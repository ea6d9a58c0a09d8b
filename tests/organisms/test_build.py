"""Building from the command line: what is written, what is said, and going on."""

from __future__ import annotations

import json

import pytest

from brainscan.artifacts import open_artifact
from brainscan.cli.app import main
from brainscan.models import load
from brainscan.models.tiny import tiny
from brainscan.organisms import build
from brainscan.organisms.spec import spec_names

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient:FutureWarning")  # transformers to peft

SPEC = """
name: mine
title: Mine
about: Presses its boss.
test: jumps
answers: jumps
rules: [{when: {kind: [tired]}, share: 1.0, low: 0.8}]
training: {steps: 2, dialogues: 3, neutral: 3, rank: 2}
gate: {limit: 8}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base"
    found = tiny("llama")
    found.model.save_pretrained(path)
    found.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def command(base, tmp_path):
    spec = tmp_path / "mine.yaml"
    spec.write_text(SPEC)
    out = tmp_path / "out"
    words = ["organism", "build", str(spec), "--model", str(base), "--out", str(out), "--json"]
    return words, out


def test_one_that_misses_its_spec_is_written_and_says_so(command, base, capsys):
    words, out = command
    assert main(words) == 1
    told = capsys.readouterr()
    assert told.out, told.err
    figures = json.loads(told.out)
    assert figures["admitted"] is False
    assert figures["n"] == 8
    assert "a rate from 0.8" in told.err
    manifest = open_artifact(out, build.KIND)
    assert set(manifest.files) == {build.WEIGHTS, build.CONFIG, build.CARD}
    assert manifest.figures["missed"] == figures["missed"]
    assert "Not admitted" in (out / build.CARD).read_text()
    logs = out.with_name("out.logs") / manifest.files[build.WEIGHTS][:16]
    assert list((logs / "logs").glob("*.eval"))
    assert load(f"{base}+{out}").n_layers == 4
    organism = build.read_organism(out)
    assert organism.name == "mine"
    assert len(organism.rates) == 2


def test_stopped_in_the_gate_it_goes_on_without_training_again(command, monkeypatch, capsys):
    words, out = command

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "measure", stop)
        assert main(words) == 130
    assert "go on" in capsys.readouterr().err
    assert (out.with_name("out.partial") / build.WEIGHTS).is_file()
    monkeypatch.setattr(build, "train_adapter", stop)
    assert main(words) == 1
    assert (out / build.WEIGHTS).is_file()


def test_the_list_names_every_spec(capsys):
    assert main(["organism", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["organisms"]
    assert [row["name"] for row in rows] == spec_names()
    assert main(["organism", "list"]) == 0


def test_an_unknown_spec_is_one_line(capsys):
    assert main(["organism", "build", "blackmial"]) == 2
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert "blackmail" in told
