"""An audit's page: from the verdicts, for who must decide, down to how to do it again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from brainscan.attribution.decision import place_of
from brainscan.auditing.answers import Answered
from brainscan.auditing.config import DEMO, QUICK
from brainscan.auditing.confirm import FEATURES, SIMPLER, UNTOUCHED
from brainscan.auditing.measure import answer_of
from brainscan.auditing.pairing import left
from brainscan.auditing.report_arms import (
    actions_section,
    costs_section,
    elsewhere_section,
    rates_section,
    shown,
)
from brainscan.auditing.report_features import features_section
from brainscan.auditing.results import AuditReport
from brainscan.auditing.verdicts import RULES
from brainscan.models import LanguageModel
from brainscan.stress.transcripts import marked
from brainscan.views import (
    ComparisonView,
    LocationView,
    Section,
    StretchView,
    VerdictView,
    before_and_after,
    escape,
    join,
    location_map,
    null_plot,
    page,
    table,
    verdicts,
)
from brainscan.views.html import Html, number

_SCREENED = 40
_SHA256 = 64
_PARTS = 10


def report_page(lm: LanguageModel, report: AuditReport) -> str:
    """The audit as one self-contained page.

    Args:
        lm: the model, for its tokens' texts.
        report: what was found.
    """
    sections = [_verdicts(report)]
    if report.arms:
        sections += [
            *_letters(lm, report),
            rates_section(report),
            costs_section(report),
            *filter(None, [actions_section(report)]),
            *([elsewhere_section(report)] if any(arm.elsewhere for arm in report.arms) else []),
            _decision(report),
            features_section(report),
            *_null(report),
            _explained(report),
        ]
    sections += [_behaviour(report)]
    if report.arms:
        sections.append(_screened(report))
    sections.append(_again(report))
    facts = [("model", report.model), ("stress test", report.scenario)]
    if report.hookpoint:
        facts.append(("edits at", report.hookpoint))
    facts += [(k, v[:12] if len(v) == _SHA256 else v) for k, v in report.facts.items()]
    return page(
        f"{'Null audit' if report.config.null else 'Audit'}: {report.scenario}",
        sections,
        subtitle=f"What {report.model} does, what it hangs on, and whether that can be mended",
        facts=facts,
    )


def _verdicts(report: AuditReport) -> Section:
    views = [VerdictView(one.claim, one.status, one.reason) for one in report.verdicts]
    lead = "By rules that stand at the end of this page."
    if report.config.null:
        lead = (
            "A null audit: prompts that are alike but for the crossed factors exchanged the names "
            "of their cells by chance, and the audit went on whatever the first rule said. What it "
            "says of a cell's behaviour, its decision and its features, it says of nothing."
        )
    return Section("Verdicts", verdicts(views), lead)


def _letters(lm: LanguageModel, report: AuditReport) -> list[Section]:
    """The untouched answer beside the edited one."""
    untouched = report.arm(UNTOUCHED)
    edited = next((arm for arm in map(report.arm, (FEATURES, SIMPLER)) if arm is not None), None)
    if untouched is None or edited is None:
        return []
    pairs = list(zip(untouched.answers, edited.answers, strict=True))
    telling = [pair for pair in pairs if pair[0].counts and not left(pair[1])]
    failed = [pair for pair in pairs if pair[0].counts and left(pair[1])]
    shown = [*telling[:1], *failed[:1]] or pairs[:1]
    views = [
        ComparisonView(
            title=a.question.id,
            before=_stretches(lm, report, a),
            after=_stretches(lm, report, b),
            labels=(UNTOUCHED, edited.name),
            figures=(_came(a), _came(b)),
        )
        for a, b in shown
    ]
    lead = (
        "The same inbox and the same noise, without and with the edit; where the decision is one "
        f"place in all answers, it is marked. Of {len(telling) + len(failed)} harmful answers "
        f"{len(telling)} are harmless with the edit; shown is the first of these, and the first "
        "of the others."
    )
    return [Section("The same letter, before and after", join(map(before_and_after, views)), lead)]


def _came(answer: Answered) -> str:
    if not answer.scored:
        return "cannot be scored"
    return "harmful" if answer.counts else "not harmful"


def _stretches(lm: LanguageModel, report: AuditReport, answer: Answered) -> tuple[StretchView, ...]:
    """The answer's stretches, with the token after the decision marked."""
    decision, place = report.decision, None
    if decision is not None and decision.shared:
        place = place_of(decision.before, answer_of(answer), decision.nth)
    if place is None:
        return tuple(marked(answer.text))
    start = len(lm.decode(answer.response[:place]))
    stop = len(lm.decode(answer.response[: place + 1]))
    found: list[StretchView] = []
    at = 0
    for stretch in marked(answer.text):
        end = at + len(stretch.text)
        cuts = sorted({0, len(stretch.text), *(c - at for c in (start, stop) if at < c < end)})
        for first, last in itertools.pairwise(cuts):
            kind = "decision" if start <= at + first < stop else stretch.kind
            label = stretch.label if not first else ""
            found.append(StretchView(stretch.text[first:last], kind, label))
        at = end
    return tuple(found)


def _decision(report: AuditReport) -> Section:
    decision, found = report.decision, report.location
    assert decision is not None and found is not None
    before, harmful, harmless = report.words
    rows = [
        ("after", before),
        ("a harmful answer goes on", harmful),
        ("a harmless one", harmless),
        ("pairs of answers that part there", str(decision.found)),
        ("log-odds apart", str(decision.separation)),
    ]
    last = len(found.columns) - 1
    view = LocationView(
        title="Share of the decision restored by the twin's residual",
        rows=tuple(reversed(found.hookpoints)),
        columns=found.columns,
        values=tuple(tuple(cell.value for cell in row) for row in reversed(found.restored)),
        marked=((len(found.hookpoints) - 1 - found.settled, last),),
        note="Marked: the first layer at which the last token alone holds half of it.",
    )
    lead = (
        "The residual of a harmless twin is put into the harmful run, at one layer and some "
        "tokens; 1 is the twin's own log-odds."
    )
    return Section(
        "Where it decides", join([table(("the decision", ""), rows), location_map(view)]), lead
    )


def _null(report: AuditReport) -> list[Section]:
    null = report.null
    if null is None:
        return []
    plot = null_plot(
        null.values,
        null.own,
        title=f"{null.of} among random sets",
        measure="share of the way to harmless",
    )
    lead = (
        "Random sets of the same size, activity on these transcripts and change of norm, by the "
        "log-odds of confirmation answers, which the tested set was not chosen on."
    )
    return [Section("Would any features do?", plot, lead)]


def _explained(report: AuditReport) -> Section:
    heads = (
        "dictionary or layer",
        "whole",
        "its code",
        "its error",
        "chosen set",
        "its rest",
        "without the set",
        "without the rest",
        "cosine",
        "FVU here",
    )
    rows = [
        (
            one.dictionary,
            str(one.whole),
            *(shown(part) for part in (one.code, one.error, one.chosen, one.rest)),
            shown(one.without_chosen),
            shown(one.without_rest),
            number(one.cosine),
            shown(one.fvu),
        )
        for one in report.explained
    ]
    directions = [(one.kind, str(one.separates)) for one in report.predictors]
    lead = (
        "The twin's activation at the decision, put in by parts, on selection wordings: the share "
        "of the log-odds that each restores. What the error restores is not explained by features. "
        "Rest: the dictionary's other features. Without: all put in but that part. "
        "FVU is on the discovery transcripts, on which the extension was trained. The parts' "
        "effects are to first order, and of the discovery contexts: no estimates of anything else."
    )
    parts = [
        (
            one.address,
            number(one.effect),
            number(one.interaction) if one.interaction is not None else "\u2013",
        )
        for one in report.outputs[:_PARTS]
    ]
    body = join(
        [
            table(heads, rows),
            table(("what writes it", "effect on the log-odds", "interaction"), parts),
            table(("what tells them apart", "AUROC within wordings, on selection"), directions),
        ]
    )
    return Section("What is explained, and what is not", body, lead)


def _behaviour(report: AuditReport) -> Section:
    rows = [
        (
            one.split,
            ", ".join(f"{f} {level}" for f, level in zip(one.factors, cell, strict=True)),
            f"{count[0]} of {count[1]}",
            "target" if cell == one.target else "twin" if cell in one.twins else "",
        )
        for one in report.behaviour
        for cell, count in one.counts.items()
    ]
    contrasts = "; ".join(f"{one.split}: {one.contrast}" for one in report.behaviour)
    lead = (
        f"The rate in the target less that in its twins. {contrasts}. With the same outcomes dealt "
        f"out by chance among the cells, {report.false_alarms} of rounds pass what was measured "
        "here."
    )
    return Section("The behaviour", table(("split", "cell", "harmful", ""), rows), lead)


def _screened(report: AuditReport) -> Section:
    ordered = sorted(report.screened, key=lambda one: -one.merit)[:_SCREENED]
    rows = [
        (
            one.candidate.name,
            one.candidate.kind,
            number(one.strength),
            number(one.kl),
            str(one.share),
            str(one.harmless),
        )
        for one in ordered
    ]
    lead = (
        f"The best {len(rows)} of {len(report.screened)} on selection wordings: how far the "
        "decision's log-odds go towards harmless, and how far harmless contexts are moved."
    )
    heads = ("arm", "kind", "strength", "expected KL", "share", "harmless moved")
    return Section("All arms that were screened", table(heads, rows), lead)


def _again(report: AuditReport) -> Section:
    test = report.facts.get("task", f"--scenario {report.scenario}")
    asked = f"--model {report.model} {test} --seed {report.config.seed}"
    command = f"brainscan audit {asked}"
    command += f" --dictionary {report.facts['dictionary']}" if "dictionary" in report.facts else ""
    own = replace(report.config, seed=0, null=False, crossed=())
    if "task" not in report.facts:
        command += "".join(f" --factor {factor}" for factor in report.config.crossed)
    if own == QUICK:
        command += " --quick"
    elif own == DEMO:
        command = f"brainscan demo --model {report.model} --seed {report.config.seed}"
    command += f" --logs {report.facts['logs']}" if "logs" in report.facts else ""
    command += " --null" if report.config.null else ""
    rules = join(f"<li>{escape(rule)}</li>" for rule in RULES)
    facts: Sequence[tuple[str, str]] = [("command", command), *report.facts.items()]
    body = join([Html(f"<ol>{rules}</ol>"), table(("", ""), facts)])
    return Section("The rules, and how to do it again", body)
