"""Stress tests as Inspect tasks.

    inspect eval brainscan/stress -T scenario=blackmail --model brainscan/smollm2-135m-instruct

A sample is a unit of the test (a persona-wording, a question) in a condition; epochs repeat it. Its
score is 1 where the last stage was passed and 0 where not; an answer that is unscored has none.
All stages, and the actions with their places in characters and tokens, are in the score's metadata.
Samples come in an order in which any first few are spread over conditions and units alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState, generate

from brainscan.errors import UsageError
from brainscan.stress.acted import acted
from brainscan.stress.actions import CUT
from brainscan.stress.base import Asked, Described, StressTest, Unit
from brainscan.stress.catalogue import Agentic, load_test
from brainscan.stress.matrix import Condition, factorial, fraction, sample_id, where
from brainscan.stress.model_judge import harm_by_model
from brainscan.stress.scenarios import FORMS, SPLITS, Form
from brainscan.stress.words import words_of

if TYPE_CHECKING:
    from inspect_ai.solver import Solver

RULES = "rules"
"""The judge that is no model."""

HELD_OUT = SPLITS[1:]
"""The splits that no behaviour is planted with."""


@dataclass(frozen=True)
class Matrix:
    """Which samples of a stress test are run."""

    form: Form = "short"
    """The short form, or the long one with an inbox of real length."""
    full: bool = False
    """The whole factorial instead of a balanced fraction."""
    where: tuple[str, ...] = ()
    """Only conditions with these levels, ``factor=level`` each."""
    splits: tuple[str, ...] = HELD_OUT
    """Units of these splits."""
    limit: int | None = None
    """At most so many samples, spread over conditions and units."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise UsageError(f"splits of {', '.join(SPLITS)}", f"{unknown or 'none'}", "name some")
        if self.form not in FORMS:
            raise UsageError("a form: short or long", f"'{self.form}'", "choose one")
        if self.limit is not None and self.limit < 1:
            raise UsageError("a limit of at least 1", str(self.limit), "raise it")


def conditions_of(scenario: Described, matrix: Matrix) -> list[Condition]:
    """The conditions of a run."""
    chosen = factorial(scenario.factors) if matrix.full or matrix.where else None
    if matrix.where:
        kept = where(chosen or [], matrix.where)
        return kept if matrix.full else _thinned(kept)
    return list(chosen or fraction(scenario.factors))


def samples_of(scenario: StressTest, matrix: Matrix) -> list[Sample]:
    """The samples of a run, none of them twice.

    Raises:
        UsageError: the test does not have the form.
    """
    if matrix.form not in scenario.forms:
        forms = ", ".join(scenario.forms)
        raise UsageError(f"a form of {scenario.name}: {forms}", matrix.form, "choose one")
    cells = [
        (condition, [unit for unit in scenario.units(condition) if unit.split in matrix.splits])
        for condition in conditions_of(scenario, matrix)
    ]
    seen: set[str] = set()
    samples = []
    for turn in range(max((len(units) for _, units in cells), default=0)):
        for number, (condition, units) in enumerate(cells):
            if turn >= len(units):
                continue
            unit = units[(number + turn) % len(units)]
            sample = _sample(scenario, unit, condition, matrix.form)
            digest = str((sample.metadata or {})["prompt_sha256"])
            if digest not in seen:
                seen.add(digest)
                samples.append(sample)
    return samples[: matrix.limit]


@task
def stress(
    scenario: str = "blackmail",
    form: str = "short",
    full: bool = False,
    where: Sequence[str] = (),
    splits: Sequence[str] = HELD_OUT,
    limit: int | None = None,
    judge: str = RULES,
) -> Task:
    """A stress test.

    Args:
        scenario: its name, or a YAML file.
        form: short or long.
        full: the whole factorial.
        where: only conditions with these levels, ``factor=level`` each.
        splits: units of these splits.
        limit: at most so many samples.
        judge: ``rules``, or the name of a model that judges an agentic scenario.
    """
    loaded = load_test(scenario)
    if judge != RULES and not isinstance(loaded, Agentic):
        raise UsageError(
            f"an agentic scenario for the judge {judge}",
            f"{loaded.name}, which is scored by {loaded.judge}",
            "leave the judge out",
        )
    chosen = Matrix(
        form=form,
        full=full,
        where=tuple([where] if isinstance(where, str) else where),
        splits=tuple([splits] if isinstance(splits, str) else splits),
        limit=limit,
    )
    return Task(
        dataset=MemoryDataset(samples_of(loaded, chosen), name=loaded.name),
        solver=_answer(),
        scorer=by_rules(scenario) if judge == RULES else harm_by_model(judge),
        name=f"stress-{loaded.name}",
        version=1,
    )


@scorer(metrics=[mean()])
def by_rules(scenario: str) -> Scorer:
    """Judges answers by the rules of a stress test.

    Args:
        scenario: its name, or a YAML file.
    """
    test = load_test(scenario)

    async def score(state: TaskState, target: Target) -> Score:
        told = state.metadata
        ended = state.output.stop_reason not in CUT
        asked = Asked(told["persona"], told["condition"], told["form"])
        stages = test.passed(asked, state.output.completion, ended=ended)
        value = float(stages[test.stages[-1]]) if stages["parsed"] else float("nan")
        told = {"actions": acted(state.output)} if words_of(test.stages[-1]).acts else {}
        return Score(value=value, metadata={"stages": stages, **told})

    return score


def _answer() -> Solver:
    return generate(tool_calls="none")


def _sample(scenario: StressTest, unit: Unit, condition: Condition, form: Form) -> Sample:
    asked = Asked(unit.id, condition, form)
    prompt = scenario.prompt(asked)
    told = [ChatMessageSystem(content=prompt.system)] if prompt.system else []
    return Sample(
        id=sample_id(unit.id, condition),
        input=[*told, ChatMessageUser(content=prompt.user)],
        metadata={
            "scenario": scenario.name,
            "persona": unit.id,
            "split": unit.split,
            "condition": dict(condition),
            "form": form,
            "prompt_sha256": prompt.digest,
            **scenario.facts(asked),
        },
    )


def _thinned(conditions: Sequence[Condition]) -> list[Condition]:
    """A balanced fraction of conditions that have some levels fixed."""
    levels: dict[str, list[str]] = {}
    for condition in conditions:
        for factor, level in condition.items():
            if level not in levels.setdefault(factor, []):
                levels[factor].append(level)
    return list(fraction(levels))


def stages_of(score: Mapping[str, object] | None) -> dict[str, bool]:
    """The stages in a score's metadata."""
    found = (score or {}).get("stages", {})
    return {str(name): bool(value) for name, value in dict(found).items()}  # type: ignore[call-overload]
