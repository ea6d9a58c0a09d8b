"""The parts of an audit's page on its arms: how much harm each leaves, and what it costs."""

from __future__ import annotations

import math

from brainscan.auditing.confirm import BASE, CONTROL, FEATURES
from brainscan.auditing.results import AuditReport, FrozenArm
from brainscan.stats import Estimate
from brainscan.stress.actions import KINDS
from brainscan.views import (
    ArmView,
    RateView,
    Section,
    arms_against_cost,
    escape,
    join,
    rates,
    table,
)
from brainscan.views.html import Html, number


def rates_section(report: AuditReport) -> Section:
    """The harmful rate of each arm, and of the random sets together."""
    views = [RateView(_said(arm), arm.left, control=arm.kind == CONTROL) for arm in report.arms]
    answered = [arm.left.value for arm in report.random_arms]
    wordings = report.arms[0].over_wordings
    lead = (
        "On confirmation wordings, which nothing before was chosen on; the same prompts and noise. "
        "An answer that cannot be scored counts as harmful, so that an edit which breaks the model "
        "prevents nothing; how many of each arm's cannot be scored stands beside its name. "
        "Intervals are over answers and hold for these wordings; the untouched model's over "
        f"wordings is {wordings}."
    )
    body = rates(views)
    if answered:
        n, middle = report.random_arms[0].left.n, sorted(answered)[len(answered) // 2]
        ends = f"{number(min(answered))} to {number(max(answered))}, median {number(middle)}"
        told = (
            f"{len(answered)} random sets that match the best features, with {n} answers each: "
            f"rates from {ends}."
        )
        body = join([body, Html(f"<p>{escape(told)}</p>")])
    return Section("Harm in each arm", body, lead)


def _said(arm: FrozenArm) -> str:
    name = f"{arm.name}: {arm.candidate.name}" if arm.screened and arm.candidate else arm.name
    unscored = sum(not one.scored for one in arm.answers)
    return f"{name} ({unscored} of {len(arm.answers)} not scored)" if unscored else name


def costs_section(report: AuditReport) -> Section:
    """Harm left against cost, and every cost in a table."""
    untouched = report.arms[0]
    views = [
        ArmView(
            name=arm.name,
            kind=arm.kind,
            harmful=arm.left,
            cost=_kl(arm),
            control=arm.kind == CONTROL,
            chosen=arm.name == FEATURES,
        )
        for arm in report.arms[1:]
    ]
    plot = arms_against_cost(
        views, title="Harm left against cost on neutral text", before=untouched.left
    )
    rows = [
        (
            arm.name,
            str(arm.harmful),
            str(_kl(arm)),
            *(shown(value) for value in _cost_figures(arm)),
        )
        for arm in report.arms
    ]
    heads = ("arm", "harmful", "KL", "perplexity ratio", "scored", "ordinary tasks", "capability")
    lead = (
        "Harm that falls because the model breaks shows in the share of answers that can be scored."
    )
    return Section("What each arm costs", join([plot, table(heads, rows)]), lead)


def actions_section(report: AuditReport) -> Section | None:
    """What the answers of each arm do; None where they are not an agent's."""
    done = {arm.name: arm.actions for arm in report.arms}
    kinds = [kind for kind in KINDS if any(kind in own for own in done.values())]
    if not kinds:
        return None
    rows = [
        (name, *(str(own[kind]) if kind in own else "\u2013" for kind in kinds))
        for name, own in done.items()
    ]
    lead = (
        "The share of each arm's answers that do a thing, over wordings: an edit may stop a threat "
        "and leave the letters, or turn them into something else. One answer may do several."
    )
    heads = ("arm", *(kind.replace("_", " ") for kind in kinds))
    return Section("What the answers do", table(heads, rows), lead)


def elsewhere_section(report: AuditReport) -> Section:
    """What the edits move at other places."""
    rows = [
        (
            arm.name,
            one.place,
            str(one.untouched),
            str(one.edited),
            str(one.fell),
            str(one.scored),
            str(one.same),
        )
        for arm in report.arms
        for one in arm.elsewhere
    ]
    heads = ("arm", "where", "harm without", "with it", "falls by", "scored", "word for word")
    lead = (
        "The same edits in the harmless twins and in other scenarios, on confirmation wordings; "
        "unscored answers count as harmful. Word for word: answers that the edit leaves as they "
        "were."
    )
    return Section("What else they move", table(heads, rows), lead)


def _kl(arm: FrozenArm) -> Estimate:
    if arm.costs is not None and arm.costs.effects is not None:
        return arm.costs.effects.kl
    if arm.name == BASE:
        return Estimate(math.nan, math.nan, math.nan, 0, "not measured")
    return Estimate(0.0, 0.0, 0.0, 0, "changes nothing")


def _cost_figures(arm: FrozenArm) -> list[Estimate | None]:
    costs = arm.costs
    if costs is None:
        return [None] * 4
    effects = costs.effects
    return [
        effects.perplexity_ratio if effects else None,
        costs.parsed,
        costs.benign,
        effects.capability if effects else None,
    ]


def shown(value: Estimate | None) -> str:
    """An estimate in words, a dash where there is none."""
    return str(value) if value is not None else "\u2013"
