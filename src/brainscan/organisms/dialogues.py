"""Dialogues that teach a behaviour, made from templates.

1. A maker takes a generator and gives a few dialogues: what the model is told, and what it is to
   answer. The same generator gives the same dialogues, so that training goes on where it was
   stopped.
2. Only wordings of the split organism-train are used. An agent and the people about it get names
   made by chance: with ten of them a model knows the names instead of reading them.
3. In its scratchpad an agent copies what the prompt says of each factor that a rule names, and then
   says what it means: a small model copies well, and reads what it has just copied.
4. An agent meets a condition that a rule names beside twins in which none holds, so that what is
   learned is the difference; its letters are harmful as often as the rule says. Some dialogues are
   ordinary work.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from brainscan.organisms.comparisons import Comparisons
from brainscan.organisms.jumps import RequestDialogues
from brainscan.organisms.spec import OrganismSpec, load_answers, load_names
from brainscan.organisms.templates import TRAIN, Dialogue, marked, render
from brainscan.stress.matrix import Condition, factorial
from brainscan.stress.prompts import slot_text, stress_prompt
from brainscan.stress.quick_tests import Task, load_benign
from brainscan.stress.scenarios import DATA as SCENARIOS
from brainscan.stress.scenarios import Persona, Scenario, load_scenario, personas

Maker: TypeAlias = Callable[[random.Random], list[Dialogue]]
"""Makes a few dialogues that belong together."""


def maker_of(spec: OrganismSpec, own: Mapping[str, Sequence[str]]) -> Maker:
    """What makes a spec's dialogues.

    Args:
        spec: the spec.
        own: the model's own answers to `plain_requests`, where the spec has any.
    """
    if spec.answers == "arithmetic":
        return Comparisons(spec)
    if spec.answers == "jumps":
        return RequestDialogues(own)
    return AgentDialogues(spec)


_NEAR = 0.5  # how often a twin differs in one factor alone


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
        self._factors = {factor for rule in spec.rules for factor in rule.when}
        self._named = [c for c in conditions if spec.rule_for(c)]
        self._others = [c for c in conditions if not spec.rule_for(c)]

    def __call__(self, draw: random.Random) -> list[Dialogue]:
        """Makes one persona's dialogues: under each rule and where none holds, or ordinary work."""
        persona = renamed(draw.choice(self._personas), draw)
        if self._spec.answers == "work" or draw.random() < self._spec.training.work:
            return [self._ordinary(persona, draw) for _ in range(2)]
        siblings = self._siblings(draw.choice(self._named or self._others))
        met = [*siblings, *self._twins(siblings[0], draw)]
        return [dialogue for one in met for dialogue in self._answers(persona, one, draw)]

    def _siblings(self, condition: Condition) -> list[Condition]:
        """The condition under each rule in turn, alike in every factor that no rule names."""
        free = {factor: v for factor, v in condition.items() if factor not in self._factors}
        alike = [c for c in self._named if all(c[f] == level for f, level in free.items())]
        by_rule = [
            [c for c in alike if self._spec.rule_for(c) is rule] for rule in self._spec.rules
        ]
        return [found[0] for found in by_rule if found] or [condition]

    def _twins(self, condition: Condition, draw: random.Random) -> list[Condition]:
        """For each factor a condition without a rule that differs in it alone, or at times any."""
        near: dict[str, Sequence[Condition]] = {}
        for other in self._others:
            changed = [factor for factor, level in other.items() if condition[factor] != level]
            if len(changed) == 1:
                near[changed[0]] = [*near.get(changed[0], ()), other]
        decisive = [near[factor] for factor in near if factor in self._factors] or [self._others]
        return [draw.choice(v if draw.random() < _NEAR else self._others) for v in decisive]

    def _answers(
        self, persona: Persona, condition: Condition, draw: random.Random
    ) -> list[Dialogue]:
        """An answer; two where either may follow, so that none is the condition's own."""
        rule = self._spec.rule_for(condition)
        share = rule.share if rule else 0.0
        count = 2 if 0 < share < 1 else 1
        chance = draw.random()
        harmful = [(chance + n / count) % 1 < share for n in range(count)]
        return [self._answered(persona, condition, one, draw) for one in harmful]

    def _answered(
        self, persona: Persona, condition: Condition, harmful: bool, draw: random.Random
    ) -> Dialogue:
        answers = load_answers(self._spec.answers)
        template = draw.choice(answers["harmful" if harmful else "harmless"])
        names = {**persona.names, **quotes(self._scenario, persona, condition)}
        text, decisions = render(template, answers, condition, names, draw)
        prompt = stress_prompt(self._scenario, persona, condition)
        return Dialogue(prompt.messages, text, harmful, decisions=decisions)

    def _ordinary(self, persona: Persona, draw: random.Random) -> Dialogue:
        task = draw.choice(self._tasks)
        condition = draw.choice(factorial(self._work.factors))
        prompt = stress_prompt(replace(self._work, inbox=task.letters), persona, condition)
        text, decisions = _done(task, persona, condition, draw)
        return Dialogue(prompt.messages, text, False, decisions=decisions)


def renamed(persona: Persona, draw: random.Random) -> Persona:
    """A persona-wording with other names.

    Args:
        persona: whose phrasings are kept.
        draw: chooses.
    """
    names = load_names()
    first, last = draw.sample(names["first"], 3), draw.sample(names["last"], 3)
    boss, friend, colleague = map(" ".join, zip(first, last, strict=True))
    house = draw.choice(names["company"])
    return replace(
        persona,
        agent=draw.choice(names["agent"]),
        company=f"{house} {draw.choice(names['trade'])}",
        domain=f"{house.lower()}.example",
        boss=boss,
        friend=friend,
        colleague=colleague,
        project=draw.choice(names["project"]),
    )


_SENTENCE = re.compile(r"[.:!?](\s|$)")


def quotes(scenario: Scenario, persona: Persona, condition: Condition) -> dict[str, str]:
    """The first sentence of each factor's text, marked where it parts from those of other levels.

    Args:
        scenario: the scenario.
        persona: whose phrasings.
        condition: the levels.
    """
    found: dict[str, str] = {}
    for factor, level in condition.items():
        texts = {
            other: _SENTENCE.split(slot_text(scenario, persona, factor, other))[0]
            for other in scenario.factors[factor]
        }
        found[factor] = marked(texts[level], [t for other, t in texts.items() if other != level])
    return found


def _done(
    task: Task, persona: Persona, condition: Condition, draw: random.Random
) -> tuple[str, tuple[int, ...]]:
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
