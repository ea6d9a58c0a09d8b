"""Any Inspect task, with one of its scores counted as stress tests are.

1. A task is ``file.py@name`` or ``package/name``, with arguments.
2. A score that is a mapping gives one score for each key, called ``scorer/key``; the key alone will
   do where only one scorer has it.
3. A score counts where it is C, yes, true or 1, and does not where it is I, P (in part), no, false
   or 0. N (no answer), what is not a number, and scores of answers that were cut off at the limit
   are not scored. Others are an error: a rate is of things that happened or did not.
4. Answers to one sample are alike, so intervals are over samples. Keys of the samples' metadata may
   be taken as factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainscan.errors import UsageError
from brainscan.stress.actions import CUT
from brainscan.stress.rates import Outcome

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import Score

_COUNT = {"c": True, "yes": True, "true": True, "1": True, "1.0": True}
_COUNT |= {"i": False, "p": False, "no": False, "false": False, "0": False, "0.0": False}
_UNSCORED = ("n", "nan")


@dataclass(frozen=True)
class ScoreOf:
    """A score of a task, and the factors that it was counted by."""

    stages = ("parsed", "passed")

    name: str
    """The task."""
    score: str
    """The score."""
    factors: Mapping[str, tuple[str, ...]]
    """The levels that its samples have."""

    @property
    def title(self) -> str:
        """The task."""
        return self.name

    @property
    def about(self) -> str:
        """What is counted."""
        return f"The score {self.score} of the Inspect task {self.name}."

    @property
    def judge(self) -> str:
        """The task's own scorer."""
        return f"the score {self.score} of {self.name}, not validated by people"


def find_task(name: str, args: Mapping[str, Any]) -> Task | str:
    """The task of a name; the name alone where Inspect knows what it is.

    Args:
        name: ``file.py@name``, or ``package/name``.
        args: the task's arguments.

    Raises:
        UsageError: it is neither, there is no such file or package, or an argument is wrong.
    """
    file, sign, task = name.rpartition("@")
    if sign and task and Path(file).is_file():
        return name
    package, slash, task = name.partition("/")
    if sign or not (slash and task and package.isidentifier() and find_spec(package)):
        missing = f"no such {'file' if sign else 'package'} in '{name}'"
        raise no_task(missing if sign or slash else f"'{name}'")
    return _imported(package, task, args) or name


def _imported(package: str, task: str, args: Mapping[str, Any]) -> Task | None:
    """The task of a package that has a module for it, whether or not it is registered."""
    try:
        found = getattr(import_module(f"{package}.{task}"), task, None)
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{task}":
            return None
        raise no_task(f"'{package}/{task}', which needs {error.name}") from error
    return made(found, args, f"{package}/{task}")


def made(found: Any, args: Mapping[str, Any], name: str) -> Task | None:
    """The task that a function makes; None where it is no such function.

    Args:
        found: the function.
        args: its arguments.
        name: what the task is called.

    Raises:
        UsageError: it has no such argument.
    """
    from inspect_ai import Task

    try:
        task = found(**args) if callable(found) else None
    except TypeError as error:
        raise UsageError(f"arguments of {name}", str(error), "change -T") from error
    return task if isinstance(task, Task) else None


def no_task(got: str) -> UsageError:
    """The error that there is no such task."""
    return UsageError(
        "an Inspect task: file.py@NAME, or PACKAGE/NAME of an installed package",
        got,
        "see: inspect list tasks",
    )


def count_scores(
    task: str, score: str | None, factors: Sequence[str], samples: Sequence[EvalSample]
) -> tuple[ScoreOf, list[Outcome]]:
    """What came of a task's samples.

    Args:
        task: its name.
        score: which score; may be left out where there is one only.
        factors: keys of the samples' metadata.
        samples: the samples.

    Raises:
        UsageError: there is no such score or factor, or the score is no matter of yes or no.
    """
    outcomes = []
    name = _named(score, samples)
    for sample in samples:
        told = f"sample {sample.id}"
        condition = {key: level(sample.metadata, told, key) for key in factors}
        counts = passed(name, values(sample.scores or {}).get(name), _seen(samples))
        if sample.output.stop_reason in CUT:
            counts = None
        stages = {"parsed": counts is not None, "passed": counts is True}
        outcomes.append(Outcome(condition, str(sample.id), sample.epoch, stages))
    levels = {key: tuple(sorted({o.condition[key] for o in outcomes})) for key in factors}
    return ScoreOf(task, name, levels), outcomes


def values(scores: Mapping[str, Score]) -> dict[str, Any]:
    """The values of a sample's scores by name.

    Args:
        scores: the scores by their scorers' names.
    """
    found: dict[str, Any] = {}
    for name, score in scores.items():
        if isinstance(score.value, Mapping):
            found |= {f"{name}/{key}": value for key, value in score.value.items()}
        else:
            found[name] = score.value
    return found


def passed(name: str, value: Any, seen: Mapping[str, Any]) -> bool | None:
    """Whether a score counts; None where nothing is known.

    Args:
        name: the score's name.
        value: its value.
        seen: the scores that there are, with values of theirs.

    Raises:
        UsageError: it is no matter of yes or no.
    """
    word = str(value).strip().lower()
    if value is None or word in _UNSCORED or (isinstance(value, float) and math.isnan(value)):
        return None
    if word not in _COUNT:
        raise UsageError(
            f"a score {name} of C, I, P or N, true or false, 1 or 0",
            f"{value!r}; there are {_told(seen)}",
            "count another score",
        )
    return _COUNT[word]


def level(metadata: Mapping[str, Any], sample: str, key: str) -> str:
    """A sample's level of a factor.

    Args:
        metadata: the sample's.
        sample: what it is called.
        key: the factor.

    Raises:
        UsageError: there is no such key.
    """
    if key not in metadata:
        keys = ", ".join(sorted(metadata)) or "none"
        raise UsageError(
            f"a key among the metadata of {sample}: {keys}", f"'{key}'", "name one of these"
        )
    return str(metadata[key])


def _named(score: str | None, samples: Sequence[EvalSample]) -> str:
    """The one score that is meant."""
    seen = _seen(samples)
    meant = [n for n in seen if score is None or score in (n, n.rpartition("/")[2])]
    if score in seen or len(meant) == 1:
        return score if score in seen else meant[0]
    raise UsageError(
        f"one score of {_told(seen) or 'a task that scores its samples'}",
        "none chosen" if score is None else f"'{score}'",
        "name it with --score",
    )


def _seen(samples: Sequence[EvalSample]) -> dict[str, list[str]]:
    """The scores that there are, each with its values."""
    found: dict[str, set[str]] = {}
    for sample in samples:
        for name, value in values(sample.scores or {}).items():
            found.setdefault(name, set()).add(str(value))
    return {name: sorted(own) for name, own in sorted(found.items())}


def _told(seen: Mapping[str, Any]) -> str:
    """These in words."""
    told = []
    for name, own in seen.items():
        some = own if isinstance(own, list) else [str(own)]
        told.append(f"{name} ({', '.join(some[:5])}{', ...' if len(some) > 5 else ''})")
    return "; ".join(told)
