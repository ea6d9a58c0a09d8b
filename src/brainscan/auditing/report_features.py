"""The part of an audit's page on the chosen features: a strip at the decision, a table, cards."""

from __future__ import annotations

from brainscan.auditing.findings import FeatureFound
from brainscan.auditing.report_arms import shown
from brainscan.auditing.results import AuditReport
from brainscan.views import (
    CardView,
    ExampleGroupView,
    LatentView,
    Section,
    feature_card,
    join,
    table,
    token_strip,
)
from brainscan.views.html import Html, number

_CARDS = 6


def features_section(report: AuditReport) -> Section:
    """The chosen set's features."""
    heads = (
        "feature",
        "words (grade)",
        "alone",
        "interaction",
        "harmful",
        "harmless",
        "fires on",
        "on neutral text",
    )
    rows = [
        (
            one.ranked.address,
            f"{one.label or 'no words'} ({one.grade})",
            str(one.effect),
            number(one.ranked.score),
            number(one.ranked.harmful),
            number(one.ranked.harmless),
            number(one.firing_rate),
            shown(one.neutral_rate),
        )
        for one in report.features
    ]
    lead = (
        "The chosen set's features. Alone: how far the decision goes towards harmless if only this "
        "one is moved. Fires on: its share of training text, or of these transcripts where it was "
        "added; one that fires on no neutral text means something here alone. The strip is of a "
        "harmful answer, about its decision. Grade U: nobody tested the words."
    )
    if not rows:
        return Section("The features", Html("<p>No set of features was chosen.</p>"), lead)
    strip = [token_strip(report.strip, [*map(_latent, report.features)])] if report.strip else []
    cards = [feature_card(_card(one)) for one in report.features[:_CARDS] if one.examples]
    return Section("The features", join([*strip, table(heads, rows), *cards]), lead)


def _latent(one: FeatureFound) -> LatentView:
    promoted = tuple(token.text for token in one.promoted)
    return LatentView(one.ranked.address, one.label or "no words", one.examples, promoted)


def _card(one: FeatureFound) -> CardView:
    return CardView(
        id=one.ranked.address,
        label=one.label or "no words",
        grade=one.grade,
        firing_rate=one.firing_rate,
        maximum=one.maximum,
        quantiles=(),
        groups=(ExampleGroupView("in the discovery transcripts", one.examples),),
        promoted=one.promoted,
        suppressed=(),
    )
