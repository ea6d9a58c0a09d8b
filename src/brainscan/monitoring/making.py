"""From a model to detectors with a rule for jumps, as an artifact: `brainscan calibrate`.

What takes long is kept in the unfinished folder: what was read of the bank, the detectors, and the
model's own answers to benign requests. Interrupted, the same command goes on from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from brainscan import artifacts, stats
from brainscan.models import LanguageModel
from brainscan.models.generate import Sampling, generate
from brainscan.monitoring.bank import SPLITS, Concept, Split, check_names, concept_digest
from brainscan.monitoring.dialogues import (
    Dialogue,
    benign_dialogues,
    benign_requests,
    make_dialogues,
    request_split,
)
from brainscan.monitoring.evasion import evasions
from brainscan.monitoring.fitting import CalibrationConfig, make_detectors, settled
from brainscan.monitoring.following import follow
from brainscan.monitoring.jumps import JumpRule
from brainscan.monitoring.roles import marked_chat
from brainscan.monitoring.rules import (
    Case,
    fit_rules,
    judge_rule,
    leads,
    ordering,
    plain_scores,
    turn_scores,
)
from brainscan.monitoring.scores import Detectors
from brainscan.monitoring.storage import KIND, read_files, write_files
from brainscan.progress import progress
from brainscan.stats import Estimate

_CORPUS, _FIRST, _ANSWERS = "corpus.safetensors", "first", "answers.json"
_AT_ONCE = 16
_TEMPERATURE = 0.7


def calibrate(
    lm: LanguageModel,
    path: Path,
    concepts: Sequence[Concept],
    config: CalibrationConfig | None = None,
) -> Detectors:
    """Makes detectors and a rule for jumps, and writes them.

    Args:
        lm: the model, without edits.
        path: the artifact's folder; one that is there is replaced.
        concepts: at least two; without a danger among them there is no rule.
        config: how.

    Raises:
        UsageError: the concepts, the settings or a dictionary do not do.
        ArtifactError: an unfinished run of other settings, or something else is there.
    """
    config = settled(lm, config or CalibrationConfig())
    check_names(concepts)
    told = {**asdict(config), "concepts": [[one.name, concept_digest(one)] for one in concepts]}
    with artifacts.create(
        path,
        kind=KIND,
        model=lm.ref,
        hookpoints=config.hookpoints,
        settings=told,
        seed=config.seed,
        resumable=True,
    ) as draft:
        answers = _own_answers(lm, config, draft.path / _ANSWERS)
        detectors = _first(lm, concepts, config, answers, draft.path)
        if any(one.danger for one in concepts):
            detectors = with_rule(lm, detectors, concepts, answers, config.seed)
        write_files(draft.path, detectors)
        for name in (_CORPUS, _ANSWERS):
            (draft.path / name).unlink(missing_ok=True)
        shutil.rmtree(draft.path / _FIRST)
    return detectors


def with_rule(
    lm: LanguageModel,
    detectors: Detectors,
    concepts: Sequence[Concept],
    answers: Sequence[Dialogue],
    seed: int = 0,
) -> Detectors:
    """Detectors with a rule for jumps, and what it is worth.

    Args:
        lm: the model.
        detectors: the detectors.
        concepts: the bank that they were made of.
        answers: the model's own answers to benign requests.
        seed: of how dialogues are put together.
    """
    own = _shared(answers)
    select = _cases(lm, detectors, [*make_dialogues(concepts, "select", seed), *own["select"]])
    benign = [one for one in select if one.dialogue.family == "benign"]
    others = [one for one in select if one.dialogue.family != "benign"]
    usual = [one.followed for one in benign[::2]]
    rules = fit_rules(detectors, usual, [*benign[1::2], *others])
    test = [*make_dialogues(concepts, "test", seed), *own["test"]]
    cases = _cases(lm, detectors, test, logprobs=True)
    figures: dict[str, Mapping[str, Estimate]] = {}
    for rule in rules:
        figures[rule.statistic] = judge_rule(detectors, rule, cases, concepts)
    best = rules[0]
    figures[best.statistic] = {**figures[best.statistic], **leads(detectors, rules, cases)}
    plain = plain_scores(detectors, cases, concepts)
    figures |= {name: ordering(scores, cases) for name, scores in plain.items()}
    figures["evasion"] = _missed(lm, detectors, concepts, best)
    return replace(detectors, rule=best, jump_figures=figures)


def _shared(answers: Sequence[Dialogue]) -> dict[Split, Sequence[Dialogue]]:
    """The model's own answers, by the splits of their requests, as the dialogues have them."""
    return {
        split: [one for one in answers if request_split(one.request) == split] for split in SPLITS
    }


def _first(
    lm: LanguageModel,
    concepts: Sequence[Concept],
    config: CalibrationConfig,
    answers: Sequence[Dialogue],
    folder: Path,
) -> Detectors:
    """The detectors, made now or by the run that was interrupted."""
    whole = folder / _FIRST
    if whole.is_dir():
        return read_files(whole)
    own = _shared(answers)
    benign = [(s, one) for s in SPLITS for one in (*benign_dialogues((), s), *own[s])]
    found = make_detectors(lm, concepts, config, benign, folder / _CORPUS)
    draft = folder / f"{_FIRST}-unfinished"
    draft.mkdir(exist_ok=True)
    write_files(draft, found)
    draft.rename(whole)
    return found


def _cases(
    lm: LanguageModel,
    detectors: Detectors,
    dialogues: Sequence[Dialogue],
    *,
    logprobs: bool = False,
) -> list[Case]:
    marked = [marked_chat(lm, one.messages) for one in dialogues]
    read = follow(lm, detectors, marked, "read dialogues", logprobs=logprobs)
    pairs = zip(dialogues, read, strict=True)
    return [Case(dialogue, found) for dialogue, found in pairs if found.answer]


def _missed(
    lm: LanguageModel, detectors: Detectors, concepts: Sequence[Concept], rule: JumpRule
) -> dict[str, Estimate]:
    """The share of each way to slip by that raises no alarm, whole answers and by family."""
    cases = _cases(lm, detectors, evasions(concepts, benign_requests(), "test"))
    quiet = turn_scores(detectors, rule, cases) <= rule.threshold
    families = dict.fromkeys(case.dialogue.family for case in cases)
    found = {}
    for family in families:
        own = [case.dialogue.family == family for case in cases]
        found[f"missed: {family}"] = stats.proportion(int(quiet[own].sum()), sum(own))
    return found


def _own_answers(lm: LanguageModel, config: CalibrationConfig, kept: Path) -> list[Dialogue]:
    """The model's own answers to benign requests, written now or before."""
    held: list[str] = json.loads(kept.read_text("utf-8")) if kept.is_file() else []
    requests = benign_requests()[: config.answers]
    sampling = Sampling(max_new_tokens=config.answer_tokens, temperature=_TEMPERATURE)
    with progress("write answers", len(requests), "answers") as advance:
        advance(len(held))
        while len(held) < len(requests):
            some = requests[len(held) : len(held) + _AT_ONCE]
            seeds = [config.seed * len(requests) + len(held) + n for n in range(len(some))]
            made = generate(lm, [lm.chat_tokens(one) for one in some], sampling, seeds=seeds)
            held += [one.text for one in made]
            artifacts.write_file(kept, json.dumps(held).encode())
            advance(len(some))
    pairs = zip(requests, held, strict=True)
    return [Dialogue(request, text, "benign") for request, text in pairs if text.strip()]
