"""An Inspect task as a stress test, so that a model can be audited in it.

1. Keys of the samples' metadata are the factors, one more names the unit: samples of one unit that
   differ by a factor are twins. Units are dealt to the splits by a hash of their names, every
   second one to confirmation.
2. The task's solver runs up to where it asks the model: what it asks then is the prompt. It must
   ask once, with one message of a user.
3. An answer is judged by running the solver again with that answer for the model's, and then the
   task's scorer; a score counts as in `inspect_tasks`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from brainscan.errors import UsageError
from brainscan.stress.base import Asked, Unit
from brainscan.stress.inspect_tasks import ScoreOf, find_task, level, made, no_task, passed, values
from brainscan.stress.matrix import Condition, name_of
from brainscan.stress.prompts import StressPrompt
from brainscan.stress.scenarios import Form

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessage
    from inspect_ai.solver import TaskState

_SPLITS = ("discovery", "confirmation", "selection", "confirmation")

_Place: TypeAlias = tuple[str, str]
"""A unit and the name of a condition."""


class _Asks(Exception):
    """What a solver asks the model."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        super().__init__("a solver asks")
        self.messages = messages


@dataclass(frozen=True)
class TaskTest(ScoreOf):
    """A task with one of its scores, as a stress test."""

    task: Task = field(compare=False, repr=False)
    """The task."""
    samples: Mapping[_Place, Sample] = field(compare=False, repr=False)
    """Its samples by unit and condition."""
    options: str = ""
    """The options that name it on the command line."""

    forms: ClassVar[tuple[Form, ...]] = ("short",)

    @cached_property
    def _splits(self) -> dict[str, str]:
        names = {unit for unit, _ in self.samples}
        ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        return {name: _SPLITS[n % len(_SPLITS)] for n, name in enumerate(ordered)}

    def units(self, condition: Condition) -> list[Unit]:
        """The units that have a sample in a condition."""
        here = name_of(condition)
        return [Unit(u, split) for u, split in self._splits.items() if (u, here) in self.samples]

    def prompt(self, asked: Asked) -> StressPrompt:
        """What the task's solver asks.

        Raises:
            UsageError: it asks nothing, or more than one message of a user.
        """
        messages = _waited(self._asks(self._sample(asked)))
        said = [message.text for message in messages if message.role == "user"]
        system = [message.text for message in messages if message.role == "system"]
        if len(said) != 1 or len(said) + len(system) != len(messages):
            raise UsageError(
                f"one message of a user in each prompt of {self.name}, after system messages",
                ", ".join(message.role for message in messages) or "nothing",
                "audit a task of one turn",
            )
        return StressPrompt("\n\n".join(system), said[0])

    def facts(self, asked: Asked) -> dict[str, Any]:
        """Nothing else is known of a sample."""
        return {}

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> dict[str, bool]:
        """What the task's scorer says of an answer; one that was cut off is not scored."""
        found = _waited(self._score(self._sample(asked), answer)) if ended else None
        return {"parsed": found is not None, "passed": found is True}

    def _sample(self, asked: Asked) -> Sample:
        return self.samples[asked.unit, name_of(asked.condition)]

    async def _asks(self, sample: Sample) -> Sequence[ChatMessage]:
        async def generate(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
            raise _Asks(state.messages)

        try:
            await self.task.solver(_state(sample), generate)
        except _Asks as asks:
            return asks.messages
        return []

    async def _score(self, sample: Sample, answer: str) -> bool | None:
        from inspect_ai.model import ModelOutput
        from inspect_ai.scorer import Target

        calls = 0

        async def generate(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise UsageError(
                    f"a task that asks the model once, as an audit of {self.name} needs",
                    "a solver that asks again",
                    "audit a task of one turn",
                )
            state.output = ModelOutput.from_content("brainscan", answer)
            state.messages.append(state.output.message)
            return state

        state = await self.task.solver(_state(sample), generate)
        scores: dict[str, Any] = {}
        for scorer in self.task.scorer or ():
            scores[_name(scorer)] = await scorer(state, Target(sample.target))
        found = values(scores)
        if self.score not in found:
            raise UsageError(
                f"a score of {self.name}: {', '.join(found) or 'none'}", self.score, "name one"
            )
        return passed(self.score, found[self.score], found)


def task_test(
    name: str,
    score: str,
    factors: Sequence[str],
    unit: str,
    args: Mapping[str, Any] | None = None,
) -> TaskTest:
    """An Inspect task as a stress test.

    Args:
        name: ``file.py@name``, or ``package/name`` of a package with a module for the task.
        score: the score that is counted.
        factors: keys of the samples' metadata: what prompts are compared by.
        unit: the key that says which samples are alike but for the factors.
        args: the task's arguments.

    Raises:
        UsageError: there is no such task, a sample lacks a key, or two samples of a unit have the
            same levels.
    """
    found = _loaded(name, args or {})
    samples: dict[_Place, Sample] = {}
    levels: dict[str, dict[str, None]] = {key: {} for key in factors}
    for number, sample in enumerate(found.dataset):
        told = f"sample {sample.id or number + 1}"
        condition = {key: level(sample.metadata or {}, told, key) for key in factors}
        for key, one in condition.items():
            levels[key].setdefault(one)
        place = level(sample.metadata or {}, told, unit), name_of(condition)
        if place in samples:
            raise UsageError(
                f"one sample of each {unit} with the same {', '.join(factors) or 'metadata'}",
                f"two of {place[0]} ({place[1] or 'no factors'})",
                "name the factors by which they differ with --factor",
            )
        samples[place] = sample
    asked = [f"--task {name} --score {score}", *(f"--factor {key}" for key in factors)]
    return TaskTest(
        name=name,
        score=score,
        factors={key: tuple(own) for key, own in levels.items()},
        task=found,
        samples=samples,
        options=" ".join(
            [*asked, f"--unit {unit}", *(f"-T {k}={v}" for k, v in (args or {}).items())]
        ),
    )


def _loaded(name: str, args: Mapping[str, Any]) -> Task:
    """The task itself."""
    from inspect_ai import Task

    found: Task | str | None = find_task(name, args)
    if isinstance(found, str) and "@" in found:
        file, _, task = found.rpartition("@")
        spec = spec_from_file_location(Path(file).stem, file)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        found = made(getattr(module, task, None), args, name)
    if not isinstance(found, Task):
        raise no_task(f"'{name}', which is not found without a module of its own")
    return found


def _state(sample: Sample) -> TaskState:
    from inspect_ai.model import ChatMessageUser, ModelName
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    given = sample.input
    messages: list[ChatMessage] = (
        [ChatMessageUser(content=given)] if isinstance(given, str) else list(given)
    )
    return TaskState(
        model=ModelName("brainscan/audited"),
        sample_id=sample.id or 0,
        epoch=1,
        input=given,
        messages=messages,
        target=Target(sample.target),
        choices=sample.choices,
        metadata=dict(sample.metadata or {}),
    )


def _name(scorer: Any) -> str:
    from inspect_ai._util.registry import registry_unqualified_name

    return str(registry_unqualified_name(scorer))


def _waited(coroutine: Any) -> Any:
    """What a coroutine gives, whether or not a loop runs already (as in a notebook)."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
