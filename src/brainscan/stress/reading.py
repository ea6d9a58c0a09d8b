"""A run's folder as it was left: what was run, how it is run again, and what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import BadZipFile

from brainscan.errors import ArtifactError, BrainscanError
from brainscan.stress.catalogue import load_test
from brainscan.stress.judged_answers import LOGS
from brainscan.stress.runs import RunConfig, StressRun, read_run
from brainscan.stress.tasks import HELD_OUT, RULES

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

T = TypeVar("T")

_OURS = "brainscan/"
_AGAIN = "run the same command again to go on"


@dataclass(frozen=True)
class RunSettings:
    """How a run was made, as its log's header has it."""

    model: str
    """The model, as Inspect knows it."""
    edits: tuple[str, ...]
    """The edits it ran under."""
    task: Mapping[str, Any]
    """The task's arguments: scenario, form, conditions, splits."""
    config: RunConfig
    """Epochs, length, temperature and seed."""
    version: str
    """The brainscan that made it; empty where the log does not say."""

    @property
    def form(self) -> str:
        """How long the prompts were."""
        return str(self.task.get("form", "short"))

    @property
    def noise(self) -> tuple[Any, ...] | None:
        """What the noise hangs on, to see whether two runs had the same; None for other engines."""
        ours = self.model.startswith(_OURS)
        return (self.config.seed, self.config.temperature) if ours else None

    @property
    def command(self) -> str:
        """The command line that makes such a run again."""
        told = self.task
        words = ["brainscan", "stress", "run", str(told.get("scenario", "blackmail"))]
        words += ["--model", _named(self.model)]
        words += ["--form", self.form, "--full"] if told.get("full") else ["--form", self.form]
        words += _repeated("--where", told.get("where"))
        if tuple(told.get("splits") or HELD_OUT) != HELD_OUT:
            words += _repeated("--split", told["splits"])
        if told.get("limit"):
            words += ["--limit", str(told["limit"])]
        words += _repeated("--edit", self.edits)
        config = self.config
        words += ["--epochs", str(config.epochs), "--max-new-tokens", str(config.max_new_tokens)]
        words += ["--temperature", f"{config.temperature:g}", "--seed", str(config.seed)]
        if config.judge != RULES:
            words += ["--judge", _named(config.judge)]
        return shlex.join(words)

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        config = self.config
        return {
            "form": self.form,
            "edits": list(self.edits),
            "epochs": config.epochs,
            "max_new_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "seed": config.seed,
            "version": self.version or None,
            "command": self.command,
        }


def _named(model: str) -> str:
    """One of Inspect's models as the command line takes it."""
    return model.removeprefix(_OURS) if model.startswith(_OURS) else f"inspect:{model}"


def open_run(folder: Path) -> StressRun:
    """What one model did, from a folder that `run_stress` made.

    Args:
        folder: the run's folder.

    Raises:
        ArtifactError: the folder holds no whole run of a stress test.
    """
    last = {header.eval.task_id: (path, header) for path, header in _headers(folder)}
    held = set()
    for path, header in last.values():
        if header.status != "success":
            raise ArtifactError(f"a whole run in {folder}", f"one that is {header.status}", _AGAIN)
        if header.eval.task_registry_name != f"{_OURS}stress":
            raise ArtifactError(
                f"a run of a stress test of ours in {folder}",
                f"one of {header.eval.task} ({path.name})",
                "open other logs with: inspect view",
            )
        held.add((str(header.eval.task_args.get("scenario", "blackmail")), header.eval.model))
    if len(held) != 1:
        several = "; ".join(f"{scenario} of {model}" for scenario, model in sorted(held))
        raise ArtifactError(f"one run in {folder}", several, "give each run a folder of its own")
    ((scenario, _),) = held
    logs = [path for path, _ in last.values()]
    return _guarded(folder, lambda: read_run(logs, load_test(scenario)))


def settings_of(run: StressRun) -> RunSettings:
    """How a run was made.

    Args:
        run: the run.
    """
    from inspect_ai.log import read_eval_log

    header = read_eval_log(str(run.logs[0]), header_only=True)
    told, config = header.eval, header.eval.model_generate_config
    edits = told.model_args.get("edits") or ()
    default = RunConfig()
    return RunSettings(
        model=told.model,
        edits=(edits,) if isinstance(edits, str) else tuple(map(str, edits)),
        task=told.task_args,
        config=RunConfig(
            epochs=told.config.epochs or 1,
            max_new_tokens=config.max_tokens or default.max_new_tokens,
            temperature=default.temperature if config.temperature is None else config.temperature,
            seed=config.seed or 0,
            max_samples=told.config.max_samples or default.max_samples,
            judge=str(told.task_args.get("judge", default.judge)),
        ),
        version=str((told.metadata or {}).get("brainscan", "")),
    )


def _headers(folder: Path) -> list[tuple[Path, EvalLog]]:
    """The headers of a folder's logs, in the order they were begun."""
    from inspect_ai.log import read_eval_log

    paths = sorted((folder / LOGS).glob("*.eval"))
    if not paths:
        raise ArtifactError(
            f"a folder that `stress run` made, with {LOGS}/*.eval in it",
            f"none in {folder}" if folder.is_dir() else f"no folder {folder}",
            "make one with: brainscan stress run",
        )

    def header(path: Path) -> EvalLog:
        return _guarded(folder, lambda: read_eval_log(str(path), header_only=True))

    return [(path, header(path)) for path in paths]


def _guarded(folder: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except BrainscanError:
        raise
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        text = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"whole logs in {folder / LOGS}", f"{type(error).__name__}: {text}", "run it again"
        ) from error


def _repeated(option: str, values: Any) -> list[str]:
    listed = [values] if isinstance(values, str) else list(values or ())
    return [word for value in listed for word in (option, str(value))]
