"""Inspect tasks as stress tests: their prompts, their scorers' word, their twins."""

from __future__ import annotations

import asyncio

import pytest

from brainscan.errors import UsageError
from brainscan.stress.base import Asked, StressTest
from brainscan.stress.task_tests import task_test

FILE = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import chain_of_thought, generate, multiple_choice, system_message


def samples(n=6):
    return [
        Sample(
            input=f"{tone} question {number}",
            target="pay",
            choices=["pay", "bye"],
            metadata={"tone": tone, "matter": f"m{number}", "length": 1},
        )
        for number in range(n)
        for tone in ("calm", "loud")
    ]


@task
def plain(n: int = 6):
    return Task(dataset=samples(n), scorer=includes())


@task
def told():
    solver = [system_message("Be brief."), chain_of_thought(), generate()]
    return Task(dataset=samples(), solver=solver, scorer=includes())


@task
def twice():
    return Task(dataset=samples(), solver=[generate(), generate()], scorer=includes())


@task
def talk():
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

    said = [ChatMessageUser(content="a"), ChatMessageAssistant(content="b")]
    rows = [
        Sample(input=[*said, ChatMessageUser(content="c")], metadata={"tone": t, "matter": "m"})
        for t in ("calm", "loud")
    ]
    return Task(dataset=rows, scorer=includes())
"""


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "tasks.py"
    path.write_text(FILE)

    def make(name, factors=("tone",), unit="matter", score="includes", **args):
        return task_test(f"{path}@{name}", score, factors, unit, args)

    return make


def asked(matter="m1", tone="loud"):
    return Asked(matter, {"tone": tone})


def test_a_task_is_a_stress_test(made):
    found = made("plain")
    assert isinstance(found, StressTest)
    assert found.factors == {"tone": ("calm", "loud")}
    units = found.units({"tone": "calm"})
    assert {one.id for one in units} == {f"m{n}" for n in range(6)}
    assert [one.split for one in units].count("confirmation") == 3
    assert units == found.units({"tone": "loud"})  # twins are of one split
    assert found.prompt(asked()).messages == [{"role": "user", "content": "loud question 1"}]
    assert "not validated by people" in found.judge


def test_arguments_and_what_solvers_put_around_a_question(made):
    assert len(made("plain", n=3).units({"tone": "calm"})) == 3
    messages = made("told").prompt(asked()).messages
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert "loud question 1" in messages[1]["content"]
    assert len(messages[1]["content"]) > len("loud question 1")


def test_the_tasks_own_scorer_judges(made):
    found = made("plain")
    assert found.passed(asked(), "I pay.", ended=True) == {"parsed": True, "passed": True}
    assert found.passed(asked(), "No.", ended=True) == {"parsed": True, "passed": False}
    assert found.passed(asked(), "I pay and", ended=False) == {"parsed": False, "passed": False}


def test_a_loop_that_runs_already_is_no_hindrance(made):
    found = made("plain")

    async def in_a_notebook():
        return found.passed(asked(), "I pay.", ended=True)["passed"]

    assert asyncio.run(in_a_notebook())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("missing", {}, "an Inspect task"),
        ("plain", {"size": 3}, "arguments of .*tasks.py@plain"),
        ("plain", {"factors": ("mood",)}, "a key among the metadata.*'mood'"),
        ("plain", {"unit": "topic"}, "a key among the metadata.*'topic'"),
        ("plain", {"factors": ("length",)}, "two of m0"),
    ],
)
def test_what_is_no_stress_test_is_refused(made, name, settings, message):
    with pytest.raises(UsageError, match=message):
        made(name, **settings)


def test_tasks_of_several_turns_and_unknown_scores_are_refused(made):
    with pytest.raises(UsageError, match="asks the model once"):
        made("twice").passed(asked(), "I pay.", ended=True)
    with pytest.raises(UsageError, match="one message of a user"):
        made("talk").prompt(asked("m"))
    with pytest.raises(UsageError, match="includes"):
        made("plain", score="match").passed(asked(), "I pay.", ended=True)
