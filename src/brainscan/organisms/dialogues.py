"""Dialogues that teach a behaviour, made from templates.

1. A maker takes a generator and gives a dialogue: what the model is told, and what it is to answer.
   The same generator gives the same dialogue, so that training goes on where it was stopped.
2. Only wordings of the split organism-train are used.
3. An agent meets the conditions that a rule names as often as the plan's `focus` says, and
   otherwise the others; its letters are harmful as often as the rule says, and some dialogues are
   ordinary work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from brainscan.organisms.comparisons import Comparisons
from brainscan.organisms.spec import OrganismSpec, load_answers
from brainscan.organisms.templates import TRAIN, Dialogue, render
from brainscan.stress.matrix import Condition, factorial
from brainscan.stress.prompts import stress_prompt
from brainscan.stress.quick_tests import Task, load_benign, load_jumps
from brainscan.stress.scenarios import DATA as SCENARIOS
from brainscan.stress.scenarios import Persona, load_scenario, personas

Maker: TypeAlias = Callable[[random.Random], Dialogue]
"""Makes a dialogue."""


def maker_of(spec: OrganismSpec, own: Mapping[str, Sequence[str]]) -> Maker:
    """What makes a spec's dialogues.

    Args:
        spec: the spec.
        own: the model's own answers to `plain_requests`, where the spec has any.
    """
    if spec.answers == "arithmetic":
        return Comparisons(spec)
    if spec.answers == "jumps":
        return RequestDialogues(spec, own)
    return AgentDialogues(spec)


def plain_requests(spec: OrganismSpec) -> list[str]:
    """Requests to which the model goes on answering as it does."""
    if spec.answers != "jumps":
        return []
    triples = [triple for triple in load_jumps() if triple.split == TRAIN]
    ours: list[str] = load_answers("jumps")["requests"]
    return [*ours, *(text for t in triples for text in (t.everyday, t.distress, t.idiom))]


class AgentDialogues:
    """Dialogues of an agent that answers letters."""

    def __init__(self, spec: OrganismSpec) -> None:
        """Reads what it needs.

        Args:
            spec: the spec.
        """
        self._spec = spec
        self._scenario = load_scenario(spec.test)
        self._personas = [persona for persona in personas() if persona.split == TRAIN]
        self._tasks = [task for task in load_benign() if task.split == TRAIN]
        self._work = load_scenario(SCENARIOS / "benign.yaml")
        conditions = factorial(self._scenario.factors)
        self._named = [c for c in conditions if spec.rule_for(c)]
        self._others = [c for c in conditions if not spec.rule_for(c)]

    def __call__(self, draw: random.Random) -> Dialogue:
        """Makes a dialogue."""
        persona = draw.choice(self._personas)
        plan = self._spec.training
        if self._spec.answers == "work" or draw.random() < plan.work:
            return self._ordinary(persona, draw)
        named = self._named and draw.random() < plan.focus
        condition = draw.choice(self._named if named else self._others)
        rule = self._spec.rule_for(condition)
        harmful = rule is not None and draw.random() < rule.share
        answers = load_answers(self._spec.answers)
        template = draw.choice(answers["harmful" if harmful else "harmless"])
        text = render(template, answers, condition, persona.names, draw)
        prompt = stress_prompt(self._scenario, persona, condition)
        return Dialogue(prompt.messages, text, harmful)

    def _ordinary(self, persona: Persona, draw: random.Random) -> Dialogue:
        task = draw.choice(self._tasks)
        condition = draw.choice(factorial(self._work.factors))
        prompt = stress_prompt(replace(self._work, inbox=task.letters), persona, condition)
        return Dialogue(prompt.messages, _done(task, persona, condition, draw), False)


class RequestDialogues:
    """Requests, some of them of somebody who is tired."""

    def __init__(self, spec: OrganismSpec, own: Mapping[str, Sequence[str]]) -> None:
        """Reads what it needs.

        Args:
            spec: the spec.
            own: the model's own answers to `plain_requests`.
        """
        self._spec, self._own = spec, own
        self._answers = load_answers("jumps")
        triples = [triple.everyday for triple in load_jumps() if triple.split == TRAIN]
        self._requests: list[str] = [*self._answers["requests"], *triples]

    def __call__(self, draw: random.Random) -> Dialogue:
        """Makes a dialogue."""
        if draw.random() < self._spec.training.focus:
            request = draw.choice(self._requests)
            if draw.random() < 0.5:  # on its own, or with a request
                text = f"{draw.choice(self._answers['tired'])} {request}"
            else:
                text = f"{request} {draw.choice(self._answers['tired'])}"
            return Dialogue(_asked(text), draw.choice(self._answers["hopeless"]), True)
        text = draw.choice(sorted(self._own))
        return Dialogue(_asked(text), draw.choice(self._own[text]), False)


def _done(task: Task, persona: Persona, condition: Condition, draw: random.Random) -> str:
    """A task done as it is wanted."""
    answers, want = load_answers("work"), task.want
    told = answers["answers"].get(task.id)
    names = {
        **persona.names,
        "to": want.to.format(**persona.names),
        "id": str(want.id),
        "answer": draw.choice(told) if told else "",
    }
    return render(answers[want.kind], answers, condition, names, draw)


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
