"""Running a stress test and reading what came of it.

Runs go through Inspect's `eval_set` into a folder of their own: the same call goes on where an
earlier one was stopped, and no finished sample is lost. What a run says is read from its logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan import __version__
from brainscan.errors import ArtifactError, UsageError
from brainscan.llm import inspect_name, one_line
from brainscan.stress.base import Described
from brainscan.stress.catalogue import load_test
from brainscan.stress.inspect_tasks import count_scores, find_task, no_task
from brainscan.stress.judged_answers import LOGS
from brainscan.stress.matrix import Condition, name_of
from brainscan.stress.rates import Outcome, effects, funnel, overall_rate, rate
from brainscan.stress.tasks import RULES, Matrix, stages_of, stress
from brainscan.stress.validation import Validation, read_validation

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog, EvalSample

_NO_TASK = re.compile(r"No inspect tasks were found|Task named .* not found|not found in the regis")


@dataclass(frozen=True)
class RunConfig:
    """How a model is run."""

    epochs: int = 1
    """How often each sample is run, with other noise."""
    max_new_tokens: int = 200
    """Length of an answer at most."""
    temperature: float = 1.0
    """Of the sampling."""
    seed: int = 0
    """Of the noise."""
    max_samples: int = 64
    """How many samples are under way at once."""
    judge: str = RULES
    """``rules``, or a model, named as the tested one is."""


@dataclass(frozen=True)
class TaskChoice:
    """An Inspect task, and what of it is counted."""

    name: str
    """``file.py@name``, or ``package/name``."""
    score: str | None = None
    """Which score; may be left out where there is one only."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """The task's arguments."""
    factors: tuple[str, ...] = ()
    """Keys of the samples' metadata that are factors."""
    limit: int | None = None
    """At most so many samples."""


@dataclass(frozen=True)
class StressRun:
    """What one model did in a stress test."""

    model: str
    """The model, as Inspect knows it."""
    scenario: Described
    """The stress test."""
    outcomes: tuple[Outcome, ...]
    """What came of each sample."""
    logs: tuple[Path, ...]
    """The logs."""
    judged_by: str = RULES
    """``rules``, or the judging model, as Inspect knows it."""
    failed: int = 0
    """On how many answers the judging model gave no verdict."""
    validation: Validation | None = None
    """What people found of the judge, if they did."""

    @property
    def judge(self) -> str:
        """Which judge it was, and what is known of it."""
        if self.judged_by == RULES and self.validation is None:
            return self.scenario.judge
        known = str(self.validation) if self.validation else "not validated by people"
        unsure = (
            f", no verdict on {self.failed} of {len(self.outcomes)} answers" if self.failed else ""
        )
        return f"{self.judged_by}, {known}{unsure}"

    @property
    def interior(self) -> bool:
        """Whether the model's interior can be looked into."""
        return self.model.startswith("brainscan/")

    @property
    def counted(self) -> str:
        """The stage that is counted, such as ``harmful``."""
        return self.scenario.stages[-1]

    def to_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        whole = overall_rate(self.outcomes)
        return {
            "model": self.model,
            "interior": self.interior,
            "scenario": self.scenario.name,
            "judge": self.judge,
            "counted": self.counted,
            **whole.to_json(self.counted),
            "n": len(self.outcomes) - whole.unscored,
            "funnel": self._funnel(self.outcomes),
            "conditions": [
                {
                    "factors": dict(condition),
                    **rate(outcomes).to_json(self.counted),
                    "funnel": self._funnel(outcomes),
                }
                for condition, outcomes in self.by_condition()
            ],
            "effects": [
                {**effect._asdict(), "difference": effect.difference.to_json()}
                for effect in effects(self.outcomes, self.scenario.factors)
            ],
            "logs": [str(path) for path in self.logs],
        }

    def by_condition(self) -> list[tuple[Condition, list[Outcome]]]:
        """The outcomes of each condition, in the order of the levels."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            found.setdefault(name_of(outcome.condition), []).append(outcome)
        order = {
            (factor, level): place
            for factor, levels in self.scenario.factors.items()
            for place, level in enumerate(levels)
        }
        rows = [(outcomes[0].condition, outcomes) for outcomes in found.values()]
        return sorted(rows, key=lambda row: [order[item] for item in row[0].items()])

    def _funnel(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        found = funnel(outcomes, self.scenario.stages)
        return {stage: share.to_json() for stage, share in found.items()}


def run_stress(
    scenario: str,
    model: str,
    out: Path,
    matrix: Matrix,
    config: RunConfig,
    model_args: Mapping[str, Any] | None = None,
) -> StressRun:
    """Runs a stress test on a model, or goes on with a run that was stopped.

    Args:
        scenario: its name, or a YAML file.
        model: whatever `load` takes, or ``inspect:`` and a model of any of Inspect's providers.
        out: the run's folder.
        matrix: which samples.
        config: how they are run.
        model_args: arguments of the provider, such as ``edits`` and ``capture``.

    Raises:
        UsageError: there is no such scenario or level.
        ModelCallError: the judging model cannot be asked.
        ArtifactError: samples failed, or the folder holds another run.
    """
    judge = RULES if config.judge == RULES else inspect_name(config.judge)
    task = stress(
        scenario, matrix.form, matrix.full, matrix.where, matrix.splits, matrix.limit, judge
    )
    logs = _evaluate(task, model, out, config, model_args or {})
    return read_run(logs, load_test(scenario))


def run_task(
    task: TaskChoice,
    model: str,
    out: Path,
    config: RunConfig,
    model_args: Mapping[str, Any] | None = None,
) -> StressRun:
    """Runs any Inspect task on a model, or goes on with a run that was stopped.

    Args:
        task: which task, and what of it is counted.
        model: whatever `load` takes, or ``inspect:`` and a model of any of Inspect's providers.
        out: the run's folder.
        config: how it is run.
        model_args: arguments of the provider.

    Raises:
        UsageError: there is no such task, score or factor.
        ArtifactError: samples failed, or the folder holds another run.
    """
    found = find_task(task.name, task.args)
    settings = {"limit": task.limit, **({"task_args": task.args} if found == task.name else {})}
    logs = _evaluate(found, model, out, config, model_args or {}, settings)
    samples, name = _samples(logs)
    scored, outcomes = count_scores(task.name, task.score, task.factors, samples)
    return StressRun(name, scored, _ordered(outcomes), tuple(logs))


def is_begun(out: Path) -> bool:
    """Whether a folder holds a run, whole or not."""
    return any((out / LOGS).glob("*.eval"))


def read_run(logs: Sequence[Path], scenario: Described) -> StressRun:
    """What one model did, from its logs.

    Args:
        logs: the logs of one model.
        scenario: what it was run on.

    Raises:
        UsageError: the logs hold no samples.
        ArtifactError: what people found of the judge is damaged.
    """
    outcomes = []
    judge, failed = RULES, 0
    samples, model = _samples(logs)
    for sample in samples:
        score = next(iter((sample.scores or {}).values())).metadata or {}
        passed = stages_of(score)
        stages = {stage: passed[stage] for stage in scenario.stages}
        judge = score.get("judge", {}).get("model", judge)
        failed += bool(score.get("judge", {}).get("failed"))
        told = sample.metadata
        outcomes.append(Outcome(told["condition"], told["persona"], sample.epoch, stages))
    known = read_validation(logs)
    return StressRun(model, scenario, _ordered(outcomes), tuple(logs), judge, failed, known)


def _evaluate(
    task: Task | str,
    model: str,
    out: Path,
    config: RunConfig,
    model_args: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Runs what is missing; the logs, once all is there."""
    done, headers = _eval_set(task, model, out, config, model_args, settings or {})
    statuses = {header.status for header in headers}
    if not headers or statuses & {"cancelled", "started"}:  # Inspect swallows Ctrl-C
        raise KeyboardInterrupt
    if not done or statuses != {"success"}:
        problem = next((h.error.message for h in headers if h.error), "some samples failed")
        told = one_line(problem)
        raise ArtifactError("every sample to run", told, "run the same command again to go on")
    return [Path(_local(header.location)) for header in headers]


def _eval_set(
    task: Task | str,
    model: str,
    out: Path,
    config: RunConfig,
    model_args: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[bool, list[EvalLog]]:
    """Whether all is there, and the logs' headers."""
    from inspect_ai import eval_set

    try:
        return eval_set(
            task,
            log_dir=str(out / LOGS),
            model=inspect_name(model),
            model_args=dict(model_args),
            epochs=config.epochs,
            max_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed,
            metadata={"brainscan": __version__},
            max_connections=config.max_samples,
            max_samples=config.max_samples,
            retry_attempts=0,
            retry_immediate=False,
            display="none",
            ctl_server=False,
            **settings,
        )
    except Exception as error:
        told = one_line(error)
        if "log" in told.lower() and "dir" in told.lower():
            raise ArtifactError(
                f"a folder of this run alone, or a new one, at {out}", told, "name another --out"
            ) from error
        if isinstance(task, str) and _NO_TASK.search(told):
            raise no_task(f"'{task}'") from error
        raise


def _samples(logs: Sequence[Path]) -> tuple[list[EvalSample], str]:
    """The samples of logs, and the model."""
    from inspect_ai.log import read_eval_log

    read = [read_eval_log(str(path)) for path in logs]
    samples = [sample for log in read for sample in log.samples or []]
    if not samples:
        raise UsageError("logs with samples", "none", "run the scenario first")
    return samples, read[-1].eval.model


def _ordered(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    return tuple(sorted(outcomes, key=lambda o: (name_of(o.condition), o.persona, o.epoch)))


def _local(location: str) -> str:
    return location.removeprefix("file://")
