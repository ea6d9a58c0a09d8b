"""Any Inspect task is run, and any of its scores that says yes or no is counted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainscan.cli.app import main
from brainscan.errors import UsageError
from brainscan.models.tiny import tiny
from brainscan.stress import provider
from brainscan.stress.inspect_tasks import count_scores, find_task
from brainscan.stress.rates import overall

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, includes, mean, scorer
from inspect_ai.solver import generate

@scorer(metrics={"*": [mean()]})
def shape():
    async def score(state, target):
        text = state.output.completion
        return Score(value={"long": len(text) > 2, "letters": len(text)})
    return score

@task
def ask(questions: int = 4):
    rows = [
        Sample(id=f"q{n}", input=f"number {n}", target="yes", metadata={"parity": n % 2})
        for n in range(questions)
    ]
    return Task(dataset=rows, solver=generate(), scorer=[includes(), shape()])
"""


def sample(name, epoch=1, metadata=None, stop_reason="stop", **values):
    scores = {name: SimpleNamespace(value=value) for name, value in values.items()}
    output = SimpleNamespace(stop_reason=stop_reason)
    told = metadata or {}
    return SimpleNamespace(id=name, epoch=epoch, metadata=told, scores=scores, output=output)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task's file, and a model that says yes to odd numbers."""
    lm = tiny("llama", max_position_embeddings=2048)
    monkeypatch.setattr(provider, "_load", lambda *where: lm)
    monkeypatch.setattr(provider, "_engines", {})
    answer = provider.Engine.answer

    async def say(self, request):
        made = await answer(self, request)
        prompt = lm.decode(list(request.prompt))
        object.__setattr__(made, "text", "yes" if "1" in prompt or "3" in prompt else "no")
        object.__setattr__(made, "stop_reason", "stop")
        return made

    monkeypatch.setattr(provider.Engine, "answer", say)
    (tmp_path / "ask.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return "ask.py@ask"


def run(task, *arguments):
    command = ["stress", "run", "--task", task, "--model", "tiny", "--max-new-tokens", "2"]
    return main([*command, *map(str, arguments)])


def test_a_tasks_score_is_counted_by_factors_and_over_samples(task, capsys):
    command = ["-T", "questions=3", "--epochs", "2", "--out", "run", "--json"]
    assert run(task, "--score", "includes", "--factor", "parity", *command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scenario"], found["counted"]) == (task, "passed")
    assert found["judge"] == f"the score includes of {task}, not validated by people"
    assert found["report"] is None and not Path("run", "report.html").exists()
    assert found["passed"]["value"] == pytest.approx(1 / 3) and found["passed"]["n"] == 3
    rows = {row["factors"]["parity"]: row["passed"] for row in found["conditions"]}
    assert (rows["0"]["value"], rows["0"]["n"]) == (0.0, 4)
    assert (rows["1"]["value"], rows["1"]["n"]) == (1.0, 2)
    assert run(task, "--score", "long", *command) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["passed"]["value"] == pytest.approx(1 / 3)
    assert "goes on with the run" in told.err
    assert run(task, "--score", "long", *command[:-1], "--limit", "2", "--out", "two") == 0
    assert "passed" in capsys.readouterr().out
    for score, said in (("letters", "a score shape/letters of C, I, P or N"), ("x", "'x'")):
        assert run(task, "--score", score, *command) == 2
        told = capsys.readouterr().err
        assert said in told and "includes (C, I)" in told
    assert run(task, "--score", "long", "--factor", "size", *command) == 2
    assert "parity" in capsys.readouterr().err
    assert main(["stress", "report", "run", "--out", "no.html"]) == 1
    assert "a run of a stress test of ours" in capsys.readouterr().err
    assert run(task, "--judge", "tiny", *command) == 2
    assert "--judge" in capsys.readouterr().err


def test_scores_that_say_yes_or_no():
    values = ("C", "I", "P", "N", True, False, 1, 0, 1.0, "yes", "no", float("nan"))
    samples = [sample(f"s{number}", only=value) for number, value in enumerate(values)]
    described, outcomes = count_scores("a/b", None, (), samples)
    assert described.score == "only" and described.factors == {}
    counted = [outcome.counts if outcome.scored else None for outcome in outcomes]
    passed = [True, False, False, None, True, False, True, False, True, True, False, None]
    assert counted == passed


def test_scores_of_answers_that_were_cut_off_are_none():
    reasons = ("stop", "tool_calls", "max_tokens", "model_length")
    samples = [sample(reason, stop_reason=reason, only="C") for reason in reasons]
    scored = {o.persona: o.scored for o in count_scores("a/b", None, (), samples)[1]}
    assert scored == dict(zip(reasons, (True, True, False, False), strict=True))


def test_intervals_are_over_samples():
    samples = [sample(f"s{n}", epoch, only=n == 0) for n in range(4) for epoch in range(1, 6)]
    found = overall(count_scores("a/b", "only", (), samples)[1])
    assert (found.value, found.n) == (0.25, 4)


@pytest.mark.parametrize(
    ("scores", "score", "told"),
    [
        ({"one": 1, "two": 0}, None, "none chosen"),
        ({"one": {"x": 1}, "two": {"x": 0}}, "x", r"one/x \(1\); two/x \(0\)"),
        ({"one": 0.3}, "one", "0.3"),
        ({"one": "[1]"}, "one", "C, I, P or N"),
        ({}, None, "scores its samples"),
    ],
)
def test_a_score_that_is_none_is_told(scores, score, told):
    with pytest.raises(UsageError, match=told):
        count_scores("a/b", score, (), [sample("s", **scores)])


@pytest.mark.parametrize(
    "name", ["", "x", "missing.py@x", "missing.py", "no_such_package/x", "a b/x", "/x", "json/"]
)
def test_a_task_that_is_not_there(name):
    with pytest.raises(UsageError, match=r"FILE|file\.py@NAME"):
        find_task(name, {})


def test_a_task_of_a_package_with_a_module_for_it(task, tmp_path, monkeypatch, capsys):
    package = tmp_path / "some_evals"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "ask.py").write_text(TASK)
    (package / "broken.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    command = ["-T", "questions=2", "--score", "includes", "--out", "run", "--json"]
    for _ in range(2):
        assert run("some_evals/ask", *command) == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["passed"]["n"] == 2
    assert "goes on" in told.err
    assert run("some_evals/ask", "-T", "number=2") == 2
    assert "number" in capsys.readouterr().err
    assert run("some_evals/broken") == 2
    assert "needs not_there_at_all" in capsys.readouterr().err


def test_bad_tasks_and_options_are_told(task, capsys):
    for name in ("ask.py@answer", "json/answer", "json/decoder", "pprint/pprint"):
        assert run(name, "--out", "run") == 2
        assert "an Inspect task" in capsys.readouterr().err
    for options, told in (
        (["-T", "questions"], "KEY=VALUE"),
        (["-T", "questions=["], "KEY=VALUE"),
        (["--full", "--where", "a=b"], "--full, --where"),
    ):
        assert run(task, *options) == 2
        assert told in capsys.readouterr().err
    assert main(["stress", "run", "blackmail", "--score", "x"]) == 2
    assert "--score" in capsys.readouterr().err
    assert main(["stress", "run"]) == 2
    assert "neither" in capsys.readouterr().err
    assert run(task, "blackmail") == 2
    assert "both" in capsys.readouterr().err
