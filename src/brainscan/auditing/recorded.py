"""Answers of runs that were made already, taken for those of an audit's first steps.

A `stress run` of a brainscan model records every call's tokens beside its logs. Its answers on
discovery and selection wordings, in conditions that do not forbid the behaviour, stand for the
audit's own. Arms still answer anew: they are compared by common noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from brainscan.auditing.answers import Answered
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.design import Design, Question
from brainscan.auditing.measure import rest_of
from brainscan.errors import ArtifactError
from brainscan.models import LanguageModel
from brainscan.stress.base import Asked
from brainscan.stress.judged_answers import logs_of
from brainscan.stress.recordings import Recording, recording_of

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample


def read_recorded(
    lm: LanguageModel, design: Design, run: str | Path, config: AuditConfig
) -> dict[str, tuple[Answered, ...]]:
    """The answers of a run by their split, judged by the test's own rules.

    Args:
        lm: the model, which must be the one that ran.
        design: the prompts.
        run: the run's folder.
        config: how answers are drawn.

    Raises:
        ArtifactError: there are no logs, or they are of another model, test or version of it.
    """
    from inspect_ai.log import read_eval_log

    found: dict[str, list[Answered]] = {"discovery": [], "selection": []}
    for log in logs_of(run):
        for sample in read_eval_log(str(log)).samples or []:
            one = _answered(lm, design, sample, log, config)
            split = _split(design, one.question.asked)
            allowed = all(
                one.question.asked.condition.get(factor) != level
                for factor, level in design.forbids.items()
            )
            if split in found and allowed:
                found[split].append(one)
    kept = {split: tuple(_matched(design, answers)) for split, answers in found.items()}
    missing = [split for split, answers in kept.items() if not answers]
    if missing:
        raise ArtifactError(
            f"answers to {design.test.name} in {run} that are alike but for "
            f"{' and '.join(design.crossed)}, in all {len(design.cells)} cells",
            f"none on {' or '.join(missing)} wordings",
            "run it with --full, and without --split and --limit",
        )
    return kept


def _matched(design: Design, answers: Sequence[Answered]) -> list[Answered]:
    """Those that have twins in every cell, under the names that the design gives them."""
    groups: dict[tuple[object, ...], list[Answered]] = {}
    for one in answers:
        groups.setdefault(rest_of(one, design.crossed), []).append(one)
    return [
        replace(one, question=design.named(one.question))
        for group in groups.values()
        if len({one.question.cell for one in group}) == len(design.cells)
        for one in group
    ]


def _answered(
    lm: LanguageModel, design: Design, sample: EvalSample, log: Path, config: AuditConfig
) -> Answered:
    told = sample.metadata or {}
    asked = Asked(str(told.get("persona")), dict(told.get("condition") or {}))
    if set(asked.condition) != set(design.test.factors):
        raise _another(log, f"a sample with the factors {', '.join(asked.condition) or 'none'}")
    if not _split(design, asked) or told.get("form", "short") != "short":
        raise _another(log, f"{sample.id} in the {told.get('form', 'short')} form")
    prompt = tuple(lm.chat_tokens(design.test.prompt(asked).messages))
    call = _call(lm, sample, log, config)
    if prompt != tuple(call.prompt.tolist()):
        raise _another(log, f"another prompt for {sample.id}")
    output = sample.output
    text, ended = output.completion, output.stop_reason == "stop"
    cell = tuple(asked.condition[factor] for factor in design.crossed)
    return Answered(
        Question(asked, sample.epoch, cell),
        prompt,
        tuple(call.response.tolist()),
        text,
        ended,
        design.test.passed(asked, text, ended=ended),
    )


def _call(lm: LanguageModel, sample: EvalSample, log: Path, config: AuditConfig) -> Recording:
    """The recording of a sample's answer."""
    note = (sample.output.metadata or {}).get("brainscan")
    if not isinstance(note, Mapping) or "path" not in note:
        raise ArtifactError(
            f"recorded calls of a brainscan model in {log}",
            f"{sample.id} without a recording",
            "only a model whose interior can be read can be audited: run it as --model NAME",
        )
    call = recording_of(note, log)
    weights, edits = call.facts.get("weights"), json.loads(call.facts.get("edits", "[]"))
    if weights != lm.ref.weights or edits:
        what = "a model under edits" if edits else f"{call.facts.get('model')}"
        raise ArtifactError(
            f"a run of {lm.name} as it is in {log}", f"one of {what}", "name the model that ran"
        )
    wanted = {"temperature": str(config.temperature), "top_p": "1.0", "top_k": "0"}
    drawn = {name: call.facts.get(name, wanted[name]) for name in wanted}
    if drawn != wanted:
        raise ArtifactError(
            f"answers drawn with {_listed(wanted)} in {log}, as arms are",
            _listed(drawn),
            "run it again so",
        )
    return call


def _listed(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _split(design: Design, asked: Asked) -> str:
    return next(
        (one.split for one in design.test.units(asked.condition) if one.id == asked.unit), ""
    )


def _another(log: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"a run of the same stress test in its present form in {log}",
        what,
        "run it again in the short form, or leave --logs out",
    )
