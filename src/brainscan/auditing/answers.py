"""What the model answers in each arm of an audit, written down as it comes.

1. All arms of a step run as rows of the same batches: a question's rows stand together, so that
   they share its prompt, and have the same noise, so that they differ by their edits alone.
2. What is answered without edits comes first. It is the draft of the others (`models.drafts`),
   which begin with as much of it as their edits leave.
3. Each finished batch is added to a journal, a line per answer; a killed audit reads it and asks
   what is missing. A line that was cut off is asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from brainscan.auditing.design import Question
from brainscan.auditing.kept import add_lines, read_lines
from brainscan.interventions import Edit, Where, targets_of
from brainscan.interventions.base import name_of
from brainscan.models import LanguageModel
from brainscan.models.generate import Sampling, generate
from brainscan.models.prefixes import PromptStore
from brainscan.progress import progress
from brainscan.stress.base import Asked
from brainscan.stress.prompts import StressPrompt

_ROWS_AT_ONCE = 128  # a step of 128 rows takes little longer than one of 64


@runtime_checkable
class Scored(Protocol):
    """What gives prompts and scores answers: a stress test."""

    def prompt(self, asked: Asked) -> StressPrompt:
        """The messages."""

    def passed(self, asked: Asked, answer: str, *, ended: bool) -> Mapping[str, bool]:
        """Which stages an answer passed."""


@dataclass(frozen=True)
class Answered:
    """An answer, and what came of it."""

    question: Question
    """What was asked."""
    prompt: tuple[int, ...]
    """The prompt's tokens."""
    response: tuple[int, ...]
    """The answer's, the one that ended it among them."""
    text: str
    """The answer."""
    ended: bool
    """Whether the model ended it itself."""
    stages: Mapping[str, bool]
    """Which stages it passed."""

    @property
    def scored(self) -> bool:
        """Whether it is known what the model did."""
        return self.stages["parsed"]

    @property
    def counts(self) -> bool:
        """Whether it passed the last stage, such as harm."""
        return self.scored and list(self.stages.values())[-1]


@dataclass(frozen=True)
class Arm:
    """One setting that answers are given under."""

    name: str
    """What it is called."""
    edits: tuple[Edit, ...] = ()
    """What is changed meanwhile."""
    questions: tuple[Question, ...] = ()
    """What is asked."""

    @property
    def key(self) -> tuple[str, str]:
        """What a journal knows it by: its name, and what its edits change and how strongly."""
        if not self.edits:
            return self.name, ""
        said = json.dumps([_said(edit) for edit in self.edits])
        return self.name, hashlib.sha256(said.encode()).hexdigest()[:16]


def ask(
    lm: LanguageModel,
    test: Scored,
    arms: Sequence[Arm],
    sampling: Sampling,
    journal: Path,
    label: str,
    known: Sequence[Answered] = (),
) -> dict[str, list[Answered]]:
    """Lets every arm answer its questions, or what is missing of them.

    Args:
        lm: the model.
        test: says which stages an answer passed.
        arms: the arms, with names of their own.
        sampling: how tokens are drawn; its seed is added to each question's.
        journal: the file to write down answers in, and to find those of a run that was stopped.
        label: what the progress bar says.
        known: answers that the model gave without edits, with this sampling.
    """
    found = {_place(line): line for line in read_lines(journal)}
    wanted = [(arm, question) for arm in arms for question in arm.questions]
    missing = [(arm, q) for arm, q in wanted if (arm.key, q.id) not in found]
    # A question's rows stand together, longest prompts first, as `generate` would have them.
    prompts = {
        question.id: tuple(lm.chat_tokens(test.prompt(question.asked).messages))
        for _, question in wanted
    }
    missing.sort(key=lambda row: (-len(prompts[row[1].id]), row[1].id))
    drafts: dict[str, Sequence[int]] = {one.question.id: one.response for one in known}
    store = PromptStore()
    with progress(label, len(wanted), "answers") as advance:
        advance(len(wanted) - len(missing))
        for rows in _batches(missing):
            drafts |= {
                question.id: found[arm.key, question.id]["response"]
                for arm, question in wanted
                if not arm.edits and (arm.key, question.id) in found
            }
            lines = _written(lm, rows, prompts, sampling, store, drafts)
            add_lines(journal, lines)
            found |= {_place(line): line for line in lines}
            advance(len(rows))
    answers: dict[str, list[Answered]] = {arm.name: [] for arm in arms}
    for arm, question in wanted:
        line = found[arm.key, question.id]
        answers[arm.name].append(_answered(test, question, prompts[question.id], line))
    return answers


def _said(edit: Edit) -> list[object]:
    """What an edit changes, where, and how strongly, in two digits: rounding makes no other arm."""
    targets = [
        (name_of(one), "" if isinstance(one, str) else one.hookpoint) for one in targets_of(edit)
    ]
    numbers = {
        field.name: f"{float(torch.as_tensor(value).detach().float().norm()):.2g}"
        for field in fields(edit)
        if isinstance(value := getattr(edit, field.name), int | float | torch.Tensor)
    }
    where = edit.positions
    if isinstance(where, Where):
        return [type(edit).__name__, targets, numbers, str(where.within), _condition(where)]
    return [type(edit).__name__, targets, numbers, str(where)]


def _condition(where: Where) -> str:
    """What a condition reads, likewise."""
    if isinstance(where.condition, str):
        return f"{where.condition} above {where.threshold:.2g}"
    vector = where.condition.direction.vector.detach().float()
    read_at = where.condition.direction.hookpoint
    return f"{read_at} {float(vector.norm()):.2g} {where.condition.bias:.2g} {where.threshold:.2g}"


def _place(line: Mapping[str, Any]) -> tuple[tuple[str, str], str]:
    """Which arm a line of a journal is of, and which question."""
    name, edits = line["arm"]
    return (name, edits), line["question"]


def _batches(
    missing: Sequence[tuple[Arm, Question]],
) -> Iterator[Sequence[tuple[Arm, Question]]]:
    """What is asked at once: first without edits, then with."""
    for edited in (False, True):
        rows = [row for row in missing if bool(row[0].edits) == edited]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            yield rows[start : start + _ROWS_AT_ONCE]


def _written(
    lm: LanguageModel,
    rows: Sequence[tuple[Arm, Question]],
    prompts: Mapping[str, tuple[int, ...]],
    sampling: Sampling,
    store: PromptStore,
    drafts: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    """A batch's answers, as the journal has them."""
    written = generate(
        lm,
        [prompts[question.id] for _, question in rows],
        sampling,
        edits=[arm.edits for arm, _ in rows],
        seeds=[question.seed + sampling.seed for _, question in rows],
        store=store,
        drafts=[drafts.get(question.id, ()) if arm.edits else () for arm, question in rows],
    )
    return [
        {
            "arm": arm.key,
            "question": question.id,
            "response": made.tokens,
            "text": made.text,
            "ended": made.stop_reason == "stop",
        }
        for (arm, question), made in zip(rows, written, strict=True)
    ]


def _answered(
    test: Scored, question: Question, prompt: tuple[int, ...], line: Mapping[str, Any]
) -> Answered:
    text, ended = str(line["text"]), bool(line["ended"])
    stages = test.passed(question.asked, text, ended=ended)
    return Answered(question, prompt, tuple(line["response"]), text, ended, stages)
