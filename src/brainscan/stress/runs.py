"""Running a stress test and reading what came of it.

Runs go through Inspect's `eval_set` into a folder of their own: the same call goes on where an
earlier one was stopped, and no finished sample is lost. What a run says is read from its logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan import __version__
from brainscan.errors import ArtifactError, UsageError
from brainscan.llm import inspect_name, one_line
from brainscan.stress.judged_answers import LOGS
from brainscan.stress.matrix import Condition, name_of
from brainscan.stress.rates import Outcome, effects, funnel, overall, rate
from brainscan.stress.scenarios import Scenario, load_scenario
from brainscan.stress.tasks import RULES, Matrix, stages_of, stress
from brainscan.stress.validation import Validation, read_validation

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog


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
class StressRun:
    """What one model did in a stress test."""

    model: str
    """The model, as Inspect knows it."""
    scenario: Scenario
    """The scenario."""
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
        known = str(self.validation) if self.validation else "not validated by people"
        unsure = (
            f", no verdict on {self.failed} of {len(self.outcomes)} answers" if self.failed else ""
        )
        return f"{self.judged_by}, {known}{unsure}"

    @property
    def interior(self) -> bool:
        """Whether the model's interior can be looked into."""
        return self.model.startswith("brainscan/")

    def to_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return {
            "model": self.model,
            "interior": self.interior,
            "scenario": self.scenario.name,
            "judge": self.judge,
            "harmful": overall(self.outcomes).to_json(),
            "funnel": {k: v.to_json() for k, v in funnel(self.outcomes).items()},
            "conditions": [
                {
                    "factors": dict(condition),
                    **rate(outcomes).to_json(),
                    "funnel": {k: v.to_json() for k, v in funnel(outcomes).items()},
                }
                for condition, outcomes in self.by_condition()
            ],
            "effects": [
                {**asdict_effect, "difference": effect.difference.to_json()}
                for effect in effects(self.outcomes, self.scenario.factors)
                for asdict_effect in [effect._asdict()]
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


def run_stress(
    scenario: str,
    model: str,
    out: Path,
    matrix: Matrix,
    config: RunConfig,
    model_args: Mapping[str, Any] | None = None,
) -> StressRun:
    """Runs a scenario on a model, or goes on with a run that was stopped.

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
    done, headers = _evaluate(task, model, out, config, model_args or {})
    statuses = {header.status for header in headers}
    if not headers or statuses & {"cancelled", "started"}:  # Inspect swallows Ctrl-C
        raise KeyboardInterrupt
    if not done or statuses != {"success"}:
        problem = next((h.error.message for h in headers if h.error), "some samples failed")
        raise ArtifactError("every sample to run", problem, "run the same command again to go on")
    return read_run([Path(_local(header.location)) for header in headers], load_scenario(scenario))


def _evaluate(
    task: Task, model: str, out: Path, config: RunConfig, model_args: Mapping[str, Any]
) -> tuple[bool, list[EvalLog]]:
    """Runs what is missing; whether all is there, and the logs' headers."""
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
        )
    except Exception as error:
        if "log" in str(error).lower() and "dir" in str(error).lower():
            raise ArtifactError(
                f"a folder of this run alone, or a new one, at {out}",
                one_line(error),
                "name another --out",
            ) from error
        raise


def read_run(logs: Sequence[Path], scenario: Scenario) -> StressRun:
    """What one model did, from its logs.

    Args:
        logs: the logs of one model.
        scenario: what it was run on.

    Raises:
        UsageError: the logs hold no samples.
        ArtifactError: what people found of the judge is damaged.
    """
    from inspect_ai.log import read_eval_log

    outcomes = []
    model, judge, failed = "", RULES, 0
    for path in logs:
        log = read_eval_log(str(path))
        model = log.eval.model
        for sample in log.samples or []:
            score = next(iter((sample.scores or {}).values())).metadata or {}
            stages = stages_of(score)
            judge = score.get("judge", {}).get("model", judge)
            failed += bool(score.get("judge", {}).get("failed"))
            told = sample.metadata
            outcomes.append(Outcome(told["condition"], told["persona"], sample.epoch, stages))
    if not outcomes:
        raise UsageError("logs with samples", "none", "run the scenario first")
    outcomes.sort(key=lambda o: (name_of(o.condition), o.persona, o.epoch))
    validation = read_validation(logs)
    return StressRun(model, scenario, tuple(outcomes), tuple(logs), judge, failed, validation)


def _local(location: str) -> str:
    return location.removeprefix("file://")
