"""Audits that begin with the answers of a stress run."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from inspect_ai.model import ModelOutput, ModelUsage

from brainscan.auditing import answers
from brainscan.auditing.config import QUICK
from brainscan.auditing.design import Design
from brainscan.auditing.recorded import read_recorded
from brainscan.auditing.run import audit
from brainscan.errors import ArtifactError
from brainscan.models.tiny import tiny
from brainscan.stress import provider
from brainscan.stress.catalogue import load_test
from brainscan.stress.runs import RunConfig, run_stress
from brainscan.stress.tasks import Matrix


@pytest.fixture(scope="module")
def lm():
    return tiny("llama", max_position_embeddings=8192)


@pytest.fixture
def run(lm, monkeypatch, tmp_path):
    """Makes a stress run of the tiny model; returns its folder."""

    def make(model="tiny", args=None, **matrix):
        monkeypatch.setattr(provider, "_load", lambda *where: lm)
        monkeypatch.setattr(provider, "_engines", {})
        out = tmp_path / "run"
        run_stress("blackmail", model, out, Matrix(**matrix), RunConfig(max_new_tokens=2), args)
        return out

    return make


def test_answers_of_a_run_are_taken_for_the_first_steps(run, lm, tmp_path, monkeypatch):
    where = ("cue=none", "goal_conflict=none", "channel=absent")
    folder = run("tiny", full=True, where=where)
    design = Design(load_test("blackmail"))
    found = read_recorded(lm, design, folder, QUICK)
    assert found.keys() == {"discovery", "selection"}
    for split, own in found.items():
        assert own and all(one.question.asked.condition["prohibition"] == "no" for one in own)
        units = {unit.id for unit in design.test.units({}) if unit.split == split}
        assert {one.question.asked.unit for one in own} <= units
        assert all(1 <= len(one.response) <= 2 and one.prompt for one in own)

    def nothing(*args, **options):
        raise AssertionError("it answered anew")

    monkeypatch.setattr(answers, "generate", nothing)
    report = audit(lm, "blackmail", tmp_path / "audit", QUICK, logs=folder)
    counts = report.behaviour[0].counts.values()
    assert sum(n for _, n in counts) + report.behaviour[0].unscored == len(found["discovery"])
    assert report.verdicts[0].status == "not supported"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ({"splits": ("confirmation",), "limit": 4}, "none on discovery or selection wordings"),
        ({"limit": 40}, "alike but for threat and leverage"),
        ({"form": "long", "limit": 2}, "in the long form"),
    ],
)
def test_runs_that_cannot_be_taken_are_told(run, lm, matrix, message):
    folder = run(**matrix)
    with pytest.raises(ArtifactError, match=message):
        read_recorded(lm, Design(load_test("blackmail")), folder, QUICK)


def test_a_model_without_interior_is_told(run, lm):
    output = ModelOutput.from_content("mockllm/model", "Hello.")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1)
    folder = run("inspect:mockllm/model", {"custom_outputs": [output] * 2}, limit=2)
    with pytest.raises(ArtifactError, match="without a recording"):
        read_recorded(lm, Design(load_test("blackmail")), folder, QUICK)


def test_answers_drawn_otherwise_are_told(run, lm):
    folder = run(limit=4)
    colder = replace(QUICK, temperature=0.5)
    with pytest.raises(ArtifactError, match=r"drawn with temperature 0\.5"):
        read_recorded(lm, Design(load_test("blackmail")), folder, colder)


def test_another_model_or_test_is_told(run, lm, tmp_path):
    folder = run("tiny", limit=4)
    other = copy.copy(lm)
    other.ref = replace(lm.ref, weights="other")
    with pytest.raises(ArtifactError, match="as it is in"):
        read_recorded(other, Design(load_test("blackmail")), folder, QUICK)
    with pytest.raises(ArtifactError, match=r"another prompt|with the factors"):
        read_recorded(lm, Design(load_test("leaking")), folder, QUICK)
    with pytest.raises(ArtifactError, match="logs of a finished run"):
        read_recorded(lm, Design(load_test("blackmail")), tmp_path, QUICK)
