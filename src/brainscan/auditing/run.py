"""An audit from beginning to end.

    measure -> locate -> rank -> screen -> confirm -> cost -> decide

1. Discovery wordings say where the behaviour is, where the model decides, at which layer, and which
   features the decision hangs on; the dictionary there is extended on their transcripts.
2. Selection wordings choose the arms: the best set of features, the best of the other dictionary,
   the best direction.
3. These are frozen, and answer on confirmation wordings beside controls.
4. Verdicts follow by rules that were written down before (`verdicts.RULES`).

Everything is kept in the artifact as it is measured; a killed audit goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from brainscan import __version__, artifacts
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.deciding import decide
from brainscan.auditing.design import Design
from brainscan.auditing.kept import Kept
from brainscan.auditing.locating import find_place
from brainscan.auditing.measure import false_alarms, measure
from brainscan.auditing.preview import Preview, preview
from brainscan.auditing.recorded import read_recorded
from brainscan.auditing.report import report_page
from brainscan.auditing.results import AuditReport
from brainscan.auditing.room import Room, Tell
from brainscan.auditing.trying import try_arms
from brainscan.auditing.verdicts import RULES, no_behaviour, no_place
from brainscan.dictionaries import Dictionary
from brainscan.models import LanguageModel
from brainscan.stress.base import StressTest
from brainscan.stress.catalogue import load_test
from brainscan.stress.judged_answers import hashes, logs_of
from brainscan.stress.task_tests import TaskTest

KIND = "audit"
FIGURES, PAGE = "audit.json", "report.html"

_MEASURED = "figures.jsonl"


def audit(
    lm: LanguageModel,
    scenario: str | StressTest,
    out: str | Path = "audit",
    config: AuditConfig | None = None,
    *,
    base: LanguageModel | None = None,
    dictionary: Dictionary | None = None,
    logs: str | Path | None = None,
    tell: Tell = lambda line: None,
    show: Callable[[Preview], None] | None = None,
) -> AuditReport:
    """Audits a model in a stress test, or goes on with an audit that was stopped.

    Args:
        lm: the model.
        scenario: a stress test, its name, or a YAML file.
        out: the audit's folder.
        config: how thorough it is; thorough when left out, `QUICK` for a first look.
        base: the model without its adapter, for an arm of its own.
        dictionary: a dictionary; a shipped one near where the model decides when left out.
        logs: a `stress run` of this model, whose answers stand for the first steps' own.
        tell: called with a line whenever there is something to say.
        show: called with a first look as soon as there is one.

    Raises:
        UsageError: there is no such test, or no factor in it to compare by.
        ArtifactError: the folder holds something else, or the logs are of another model or test.
    """
    test, config = _test(scenario), config or AuditConfig()
    design = Design(test, config.seed if config.null else None, config.crossed)
    recorded = read_recorded(lm, design, logs, config) if logs is not None else {}
    settings = _settings(lm, design, config, dictionary, base, logs)
    with artifacts.create(
        out,
        kind=KIND,
        model=lm.ref,
        parents=_parents(dictionary),
        settings=settings,
        seed=config.seed,
        resumable=True,
    ) as draft:
        kept = Kept(draft.path / _MEASURED)
        room = Room(lm, design, config, draft.path, Path(out).absolute(), kept, tell, recorded)
        if show and (first := preview(room, dictionary)):
            show(first)
        facts = _named(test, logs) | {"prompts": settings["prompts"]}
        report = _audited(room, base, dictionary, facts)
        _write(report, room)
    return report


def _test(scenario: str | StressTest) -> StressTest:
    return load_test(scenario) if isinstance(scenario, str) else scenario


def _write(report: AuditReport, room: Room) -> None:
    found = {"rules": list(RULES), **report.to_json()}
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    artifacts.write_file(room.folder / FIGURES, (text + "\n").encode())
    page = report_page(room.lm, report)
    artifacts.write_file(room.folder / PAGE, page.encode("utf-8", "replace"))


def _audited(
    room: Room,
    base: LanguageModel | None,
    dictionary: Dictionary | None,
    facts: Mapping[str, str],
) -> AuditReport:
    room.tell("measuring the behaviour")
    measured = measure(room)
    behaviour = tuple(one.behaviour for one in measured)
    nothing = None if room.config.null else no_behaviour(behaviour)
    plain = AuditReport(
        config=room.config,
        model=room.lm.name,
        scenario=room.design.test.name,
        behaviour=behaviour,
        false_alarms=false_alarms(measured, room.config.seed),
        verdicts=(nothing,) if nothing else (),
        facts={
            "weights": room.lm.ref.weights,
            "seed": str(room.config.seed),
            "code": f"brainscan {__version__}",
            "dtype": str(room.lm.dtype).removeprefix("torch."),
            **facts,
        },
    )
    if nothing:
        room.tell(nothing.reason)
        return plain
    discovery, selection = measured
    located = find_place(room, discovery, dictionary)
    if located and located.dictionary:
        plain = replace(plain, facts={**plain.facts, **_taken(located.dictionary)})
    tried = try_arms(room, located, discovery, selection) if located else None
    if located is None or tried is None:
        return replace(plain, verdicts=(no_place(),))
    return decide(room, plain, located, selection, tried, base)


def _named(test: StressTest, logs: str | Path | None) -> dict[str, str]:
    """What the command needs to be told again, where it was given."""
    found = {} if logs is None else {"logs": str(logs)}
    return found | {"task": test.options} if isinstance(test, TaskTest) else found


def _taken(dictionary: Dictionary) -> dict[str, str]:
    """What a page says of the dictionary that was taken."""
    manifest = dictionary.manifest
    found = {"dictionary": dictionary.name}
    return found | {"dictionary sha256": manifest.digest} if manifest else found


def _parents(dictionary: Dictionary | None) -> dict[str, str]:
    manifest = dictionary.manifest if dictionary else None
    return {"dictionary": manifest.digest} if manifest else {}


def _settings(
    lm: LanguageModel,
    design: Design,
    config: AuditConfig,
    dictionary: Dictionary | None,
    base: LanguageModel | None,
    logs: str | Path | None,
) -> dict[str, Any]:
    """What another audit would differ by."""
    given = {} if logs is None else {"logs": hashes(logs_of(logs))}
    return {
        **given,
        "scenario": design.test.name,
        "prompts": _prompts_sha256(lm, design, config),
        "dtype": str(lm.dtype),
        "config": asdict(config),
        "dictionary": dictionary.name if dictionary else "auto",
        "base": base.ref.weights if base else None,
    }


def _prompts_sha256(lm: LanguageModel, design: Design, config: AuditConfig) -> str:
    """A hash of the prompts of all splits in tokens: other texts are another audit."""
    digest = hashlib.sha256()
    sizes = {
        "discovery": config.per_cell,
        "selection": config.selection,
        "confirmation": config.confirmation,
    }
    for split, n in sizes.items():
        for cell in design.cells:
            for question in design.questions(split, cell, n):
                if question.epoch == 1:
                    messages = design.test.prompt(question.asked).messages
                    digest.update(json.dumps(lm.chat_tokens(messages)).encode())
    return digest.hexdigest()
