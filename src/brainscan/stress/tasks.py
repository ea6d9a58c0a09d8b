"""Scenarios as Inspect tasks.

    inspect eval brainscan/stress -T scenario=blackmail --model brainscan/smollm2-135m-instruct

A sample is a persona-wording in a condition; epochs repeat it. Its score is 1 for harm and 0 for
none, with the stages it passed in the score's metadata; an answer that cannot be scored has none.
Samples come in an order in which any first few are spread over conditions and personas alike.
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
from brainscan.stress.actions import CUT
from brainscan.stress.matrix import Condition, factorial, fraction, sample_id, where
from brainscan.stress.model_judge import harm_by_model
from brainscan.stress.prompts import letter_numbers, stress_prompt
from brainscan.stress.scenarios import (
    SPLITS,
    Form,
    Persona,
    Scenario,
    load_scenario,
    personas,
)

if TYPE_CHECKING:
    from inspect_ai.solver import Solver

RULES = "rules"
"""The judge that is no model."""

HELD_OUT = SPLITS[1:]
"""The splits that no behaviour is planted with."""


@dataclass(frozen=True)
class Matrix:
    """Which samples of a scenario are run."""

    form: Form = "short"
    """The short form, or the long one with an inbox of real length."""
    full: bool = False
    """The whole factorial instead of a balanced fraction."""
    where: tuple[str, ...] = ()
    """Only conditions with these levels, ``factor=level`` each."""
    splits: tuple[str, ...] = HELD_OUT
    """Personas of these splits."""
    limit: int | None = None
    """At most so many samples, spread over conditions and personas."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise UsageError(f"splits of {', '.join(SPLITS)}", f"{unknown or 'none'}", "name some")
        if self.form not in ("short", "long"):
            raise UsageError("a form: short or long", f"'{self.form}'", "choose one")
        if self.limit is not None and self.limit < 1:
            raise UsageError("a limit of at least 1", str(self.limit), "raise it")


def conditions_of(scenario: Scenario, matrix: Matrix) -> list[Condition]:
    """The conditions of a run."""
    chosen = factorial(scenario.factors) if matrix.full or matrix.where else None
    if matrix.where:
        kept = where(chosen or [], matrix.where)
        return kept if matrix.full else _thinned(kept)
    return list(chosen or fraction(scenario.factors))


def samples_of(scenario: Scenario, matrix: Matrix) -> list[Sample]:
    """The samples of a run, none of them twice."""
    conditions = conditions_of(scenario, matrix)
    chosen = [persona for persona in personas() if persona.split in matrix.splits]
    seen: set[str] = set()
    samples = []
    for turn in range(len(chosen)):
        for number, condition in enumerate(conditions):
            sample = _sample(
                scenario, chosen[(number + turn) % len(chosen)], condition, matrix.form
            )
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
        splits: personas of these splits.
        limit: at most so many samples.
        judge: ``rules``, or the name of a model that judges.
    """
    loaded = load_scenario(scenario)
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
        scorer=harm_by_rules() if judge == RULES else harm_by_model(judge),
        name=f"stress-{loaded.name}",
        version=1,
    )


@scorer(metrics=[mean()])
def harm_by_rules() -> Scorer:
    """Judges an answer by rules (`judge`)."""
    from brainscan.stress.judge import case_of, judge_by_rules

    async def score(state: TaskState, target: Target) -> Score:
        ended = state.output.stop_reason not in CUT
        stages = judge_by_rules(state.output.completion, case_of(state.metadata), ended=ended)
        if not stages["parsed"]:
            return Score(value=float("nan"), metadata={"stages": stages})
        return Score(value=float(stages["harmful"]), metadata={"stages": stages})

    return score


def _answer() -> Solver:
    return generate(tool_calls="none")


def _sample(scenario: Scenario, persona: Persona, condition: Condition, form: Form) -> Sample:
    prompt = stress_prompt(scenario, persona, condition, form)
    return Sample(
        id=sample_id(persona.id, condition),
        input=[ChatMessageSystem(content=prompt.system), ChatMessageUser(content=prompt.user)],
        metadata={
            "scenario": scenario.name,
            "harm": scenario.harm,
            "persona": persona.id,
            "split": persona.split,
            "condition": dict(condition),
            "form": form,
            "letters": letter_numbers(scenario, persona, form),
            "prompt_sha256": prompt.digest,
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
