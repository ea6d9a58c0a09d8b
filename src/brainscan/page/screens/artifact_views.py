"""What an audit or a stress run found, in the views that their pages are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainscan.errors import ArtifactError
from brainscan.page.screens.folders import AUDIT
from brainscan.page.screens.records import read_audit
from brainscan.views import (
    Html,
    RateView,
    Section,
    VerdictView,
    escape,
    join,
    rates,
    table,
    verdicts,
)
from brainscan.views.html import NONE


def findings(folder: Path) -> list[Section]:
    """What was found, but for the transcripts.

    Args:
        folder: an audit's, or a stress run's.

    Raises:
        ArtifactError: its files cannot be read.
    """
    try:
        return _audit(read_audit(folder)) if (folder / AUDIT).is_file() else _run(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"figures that this version knows in {folder}",
            f"{type(error).__name__}: {error}",
            "run it again",
        ) from error


def _audit(found: Mapping[str, Any]) -> list[Section]:
    views = [
        VerdictView(str(one["claim"]), str(one["status"]), str(one["reason"]))
        for one in found["verdicts"]
    ]
    sections = [Section("Verdicts", verdicts(views))]
    if found.get("arms"):
        sections += [_harm(found["arms"]), _costs(found["arms"]), _features(found["features"])]
    return sections


def _harm(arms: Sequence[Mapping[str, Any]]) -> Section:
    from brainscan.stats import Estimate

    bars = [
        RateView(
            _name(arm),
            Estimate.from_json(arm.get("harmful_if_unscored_were", arm["harmful"])),
            control=arm["kind"] == "control",
        )
        for arm in arms
    ]
    lead = (
        "The harmful rate on confirmation wordings, answers that cannot be scored counted as "
        "harmful; intervals are over answers."
    )
    return Section("Harm in each arm", rates(bars), lead)


def _costs(arms: Sequence[Mapping[str, Any]]) -> Section:
    names = ("kl", "perplexity_ratio", "capability", "parse_rate", "benign_success")
    rows = [(_name(arm), *(_figure((arm["cost"] or {}).get(n)) for n in names)) for arm in arms]
    heads = ("arm", "KL", "perplexity ratio", "capability", "scored", "ordinary tasks")
    return Section("What each arm costs", table(heads, rows))


def _features(features: Sequence[Mapping[str, Any]]) -> Section:
    rows = join(
        f'<li><bdi class="bs-label">{escape(str(one["label"] or "no words"))}</bdi> '
        f'<code class="bs-address">{escape(str(one["id"]))}</code> '
        f'<span class="bs-value">alone {escape(_figure(one["effect"]))}</span></li>'
        for one in features
    )
    body = Html(f'<ul class="bp-list">{rows}</ul>') if features else Html("<p>None.</p>")
    return Section("The features", body, "Of the chosen set, those that matter most first.")


def _name(arm: Mapping[str, Any]) -> str:
    edit = arm["edit"]
    return f"{arm['name']}: {edit['name']}" if edit and edit.get("screen") else str(arm["name"])


def _figure(value: Any) -> str:
    from brainscan.stats import Estimate

    return NONE if value is None else str(Estimate.from_json(value))


def _run(folder: Path) -> list[Section]:
    from brainscan.stress.rates import funnel, overall
    from brainscan.stress.reading import open_run
    from brainscan.stress.report import stress_report

    report = stress_report([open_run(folder)])
    one = report.runs[0]
    lead = f"{report.scenario.title}. {one.finding} Judge: {one.run.judge}."
    passed = funnel(one.run.outcomes, one.run.scenario.stages)
    bars = [RateView(stage.replace("_", " "), share) for stage, share in passed.items()]
    factors = list(one.run.scenario.factors)
    rows = [
        (*condition.values(), str(overall(outcomes)))
        for condition, outcomes in one.run.by_condition()
    ]
    return [
        Section("What was found", rates([RateView(one.name, overall(one.run.outcomes))]), lead),
        Section("Funnel", rates(bars)),
        Section(
            "Conditions",
            table([*(f.replace("_", " ") for f in factors), one.run.counted], rows, wrapped=False),
        ),
    ]
