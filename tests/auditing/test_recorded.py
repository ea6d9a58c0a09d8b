"""Audits that begin with the answers of a stress run."""

from __future__ import annotations

from dataclasses import replace

import pytest

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

    def make(model="inspect:mockllm/model", **matrix):
        monkeypatch.setattr(provider, "_load", lambda *where: lm)
        monkeypatch.setattr(provider, "_engines", {})
        out = tmp_path / "run"
        run_stress("blackmail", model, out, Matrix(**matrix), RunConfig(max_new_tokens=2))
        return out

    return make


def test_answers_of_a_run_are_taken_for_the_first_steps(run, lm, tmp_path, monkeypatch):
    folder = run("tiny", limit=48)
    design = Design(load_test("blackmail"))
    found = read_recorded(lm, design, folder)
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
    ("model", "matrix", "message"),
    [
        ("inspect:mockllm/model", {"limit": 4}, "without a recording"),
        ("tiny", {"splits": ("confirmation",), "limit": 4}, "none on discovery or selection"),
        ("tiny", {"form": "long", "limit": 2}, "another prompt"),
    ],
)
def test_runs_that_cannot_be_taken_are_told(run, lm, model, matrix, message):
    folder = run(model, **matrix)
    with pytest.raises(ArtifactError, match=message):
        read_recorded(lm, Design(load_test("blackmail")), folder)


def test_another_model_or_test_is_told(run, lm, tmp_path):
    folder = run("tiny", limit=4)
    with pytest.raises(ArtifactError, match="as it is in"):
        other = replace(lm, ref=replace(lm.ref, weights="other"))
        read_recorded(other, Design(load_test("blackmail")), folder)
    with pytest.raises(ArtifactError, match=r"another prompt|with the factors"):
        read_recorded(lm, Design(load_test("leaking")), folder)
    with pytest.raises(ArtifactError, match="logs of a finished run"):
        read_recorded(lm, Design(load_test("blackmail")), tmp_path)
