"""The stress tests there are: three agentic scenarios, and three that a rule can score.

| test | units | factors | counted |
|---|---|---|---|
| an agentic scenario | persona-wordings | those of its file | harmful |
| arithmetic | questions | context, kind of question | wrong |
| jumps | matters | kind of request | leap |
| benign | tasks | those of its file | success |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from brainscan.errors import UsageError
from brainscan.stress.actions import parse_actions
from brainscan.stress.base import Asked, StressTest, Unit
from brainscan.stress.matrix import Condition
from brainscan.stress.prompts import StressPrompt, letter_numbers, stress_prompt
from brainscan.stress.quick_tests import (
    About,
    Question,
    Task,
    Triple,
    describe,
    load_benign,
    load_jumps,
    load_slips,
    score_benign,
    score_jump,
    score_slip,
    tired_request,
)
from brainscan.stress.rates import STAGES
from brainscan.stress.scenarios import (
    AGENTIC,
    DATA,
    FORMS,
    HARMS,
    SPLITS,
    Persona,
    Scenario,
    load_scenario,
    personas,
)

QUICK = ("arithmetic", "jumps", "benign")
"""The tests that a rule can score."""

NAMES = (*AGENTIC, *QUICK)
"""All of ours."""

_OWN_RULE = "a rule of its own, not validated by people"


def load_test(name: str | Path) -> StressTest:
    """One of our stress tests by name, or an agentic scenario from a YAML file.

    Args:
        name: such as ``blackmail`` or ``arithmetic``; or a YAML file.

    Raises:
        UsageError: there is none of that name, or the file is not of the form.
    """
    if str(name) == "benign":
        return Benign(load_scenario(DATA / "benign.yaml"))
    if str(name) in QUICK:
        about = describe(str(name))
        return Arithmetic(about) if about.name == "arithmetic" else Jumps(about)
    if str(name) not in AGENTIC and Path(name).suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"a stress test: {', '.join(NAMES)}, or a YAML file", f"'{name}'", "see: stress list"
        )
    scenario = load_scenario(name)
    if scenario.harm not in HARMS:
        raise UsageError(
            f"a scenario with harm: {', '.join(HARMS)}", scenario.harm, "take out tasks"
        )
    return Agentic(scenario)


@dataclass(frozen=True)
class _Ours:
    """A stress test from a file of ours."""

    data: Scenario | About
    """What stands in the file."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.data.name

    @property
    def title(self) -> str:
        """The same for people."""
        return self.data.title

    @property
    def about(self) -> str:
        """What it asks."""
        return self.data.about

    @property
    def factors(self) -> Mapping[str, tuple[str, ...]]:
        """The levels of each factor."""
        return self.data.factors

    def facts(self, asked: Asked) -> dict[str, Any]:
        """What else a judge is to know: nothing."""
        return {}


@dataclass(frozen=True)
class Agentic(_Ours):
    """An agentic scenario: does the agent do harm?"""

    data: Scenario
    """Its texts."""

    forms = FORMS
    stages = STAGES
    judge = "rules, not validated by people"

    def units(self, condition: Condition) -> list[Unit]:
        """The persona-wordings."""
        return [Unit(persona.id, persona.split) for persona in personas()]

    def prompt(self, asked: Asked) -> StressPrompt:
        """The system message and the inbox."""
        return stress_prompt(self.data, _persona(asked.unit), asked.condition, asked.form)

    def facts(self, asked: Asked) -> dict[str, Any]:
        """The kind of harm, and the numbers of the letters that matter."""
        letters = letter_numbers(self.data, _persona(asked.unit), asked.form)
        return {"harm": self.data.harm, "letters": letters}

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """What the rule judge says."""
        from brainscan.stress.judge import case_of, judge_by_rules

        told = {"persona": asked.unit, "condition": asked.condition, **self.facts(asked)}
        return judge_by_rules(answer, case_of(told), ended=ended)


@dataclass(frozen=True)
class Benign(_Ours):
    """Ordinary work: does the agent do it?

    Each task is put to one persona-wording of its split. An answer that came to an end without any
    action is no success; one that was cut off is not scored.
    """

    data: Scenario
    """Its texts."""

    forms = FORMS
    stages = ("parsed", "acted", "success")
    judge = _OWN_RULE

    def units(self, condition: Condition) -> list[Unit]:
        """The tasks."""
        return [Unit(task.id, task.split) for task in load_benign()]

    def prompt(self, asked: Asked) -> StressPrompt:
        """The system message, and an inbox with the task's letters."""
        task, persona = self._work[asked.unit]
        scenario = replace(self.data, inbox=task.letters)
        return stress_prompt(scenario, persona, asked.condition, asked.form)

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """Whether the work was done."""
        task, persona = self._work[asked.unit]
        found = parse_actions(answer, ended=ended)
        ordinary = self.data.frames[asked.form].ordinary
        return {
            "parsed": not found.cut,
            "acted": found.scored,
            "success": score_benign(task, persona, found, ordinary),
        }

    @cached_property
    def _work(self) -> dict[str, tuple[Task, Persona]]:
        """Each task with its persona-wording."""
        found = {}
        for split in SPLITS:
            people = [persona for persona in personas() if persona.split == split]
            tasks = [task for task in load_benign() if task.split == split]
            for number, task in enumerate(tasks):
                found[task.id] = (task, people[number % len(people)])
        return found


@dataclass(frozen=True)
class Arithmetic(_Ours):
    """Comparisons after a text that should not matter: is the answer wrong?

    A question has the same context in all of that context's tellings.
    """

    forms = FORMS[:1]
    stages = ("parsed", "wrong")
    judge = _OWN_RULE

    def units(self, condition: Condition) -> list[Unit]:
        """The questions of the condition's kind."""
        found = load_slips().questions
        return [Unit(one.id, one.split) for one in found if one.kind == condition["kind"]]

    def prompt(self, asked: Asked) -> StressPrompt:
        """The context, then the question."""
        question, texts = self._asked[asked.unit]
        return StressPrompt("", f"{texts[asked.condition['context']]}\n\n{question.text}")

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """Whether the answer can be made out, and is wrong."""
        right = score_slip(self._asked[asked.unit][0], answer) if ended else None
        return {"parsed": right is not None, "wrong": right is False}

    @cached_property
    def _asked(self) -> dict[str, tuple[Question, Mapping[str, str]]]:
        """Each question with its context."""
        slips, found = load_slips(), {}
        for split in SPLITS:
            contexts = [context.texts for context in slips.contexts if context.split == split]
            questions = [one for one in slips.questions if one.split == split]
            for number, one in enumerate(questions):
                # Neighbours have their answers on different sides: a context is to have both.
                found[one.id] = (one, contexts[number // 2 % len(contexts)])
        return found


@dataclass(frozen=True)
class Jumps(_Ours):
    """Everyday requests, matched with tired, distressed and figurative ones: does it leap?"""

    forms = FORMS[:1]
    stages = ("parsed", "leap")
    judge = _OWN_RULE

    def units(self, condition: Condition) -> list[Unit]:
        """The matters."""
        return [Unit(triple.id, triple.split) for triple in load_jumps()]

    def prompt(self, asked: Asked) -> StressPrompt:
        """The request."""
        return StressPrompt("", _request(self._matters[asked.unit], asked.condition["kind"]))

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """Whether there is an answer, and it leaps to danger without cause."""
        leaps = score_jump(asked.condition["kind"], answer, ended=ended)
        return {"parsed": leaps or (ended and bool(answer.strip())), "leap": leaps}

    @cached_property
    def _matters(self) -> dict[str, Triple]:
        return {triple.id: triple for triple in load_jumps()}


def _request(triple: Triple, kind: str) -> str:
    """A matter's request of a kind."""
    if kind == "tired":
        return tired_request(triple)
    return {"everyday": triple.everyday, "distress": triple.distress, "idiom": triple.idiom}[kind]


def _persona(name: str) -> Persona:
    return next(persona for persona in personas() if persona.id == name)
