"""The page of a stress test's report, from its head to how it is run again."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from brainscan import __version__
from brainscan.stress.matrix import CROSSED, factorial
from brainscan.stress.rates import Outcome, effects, funnel, overall, rate
from brainscan.stress.report import ReportedRun, StressReport
from brainscan.stress.runs import StressRun
from brainscan.stress.transcripts import chosen, read_transcript, transcript_view
from brainscan.stress.words import words_of
from brainscan.views import (
    HeatCellView,
    HeatMapView,
    Html,
    RateView,
    Section,
    escape,
    heat_map,
    join,
    page,
    rates,
    table,
    transcripts,
)
from brainscan.views.html import NONE, percent
from brainscan.views.rates import estimate_text

SHOWN = 40
"""Transcripts of a model at most."""

_BYTES = 2_400_000
_NO_INTERIOR = "This model's interior is not available."


def report_page(report: StressReport, path: Path) -> str:
    """The report as one self-contained page.

    Args:
        report: the report.
        path: where the page will lie; links to logs are relative to it.
    """
    scenario = report.scenario
    sections = [_found(report), _stages(report), _matrix(report), _effects(report)]
    if report.comparisons:
        sections.append(_compared(report))
    sections += [_transcripts(report), _again(report, path)]
    first = report.runs[0].settings
    facts = [
        ("stress test", f"{scenario.name}, {first.form} form"),
        ("models" if len(report.runs) > 1 else "model", ", ".join(r.name for r in report.runs)),
        ("judge", _judges(report)),
    ]
    return page(f"Stress test: {scenario.title}", sections, subtitle=scenario.about, facts=facts)


def _found(report: StressReport) -> Section:
    sentences = join(_sentence(report, one) for one in report.runs)
    bars = rates([RateView(one.name, overall(one.run.outcomes)) for one in report.runs])
    rows = [_counts(one) for one in report.runs]
    headings = ("model", "scored", "unscored", "if unscored were none", "if all")
    words = report.words
    lead = (
        f"The share of scored answers that are {words.several}, over all conditions; its 95% "
        f"interval and n are over {words.unit}s. Judge: {_judges(report)}."
    )
    return Section("What was found", join([sentences, bars, _figures(headings, rows)]), lead)


def _judges(report: StressReport) -> str:
    return "; ".join(dict.fromkeys(one.run.judge for one in report.runs))


def _sentence(report: StressReport, one: ReportedRun) -> Html:
    name = f"<b>{escape(one.name)}:</b> " if len(report.runs) > 1 else ""
    hint = "" if one.run.interior else f'<br><span class="bs-hint">{_NO_INTERIOR}</span>'
    return Html(f'<p class="bs-finding">{name}{escape(one.finding)}{hint}</p>')


def _counts(one: ReportedRun) -> tuple[str, ...]:
    found = rate(one.run.outcomes)
    return (
        one.name,
        f"{found.as_none.n - found.unscored:,}",
        f"{found.unscored:,}",
        percent(found.as_none.value),
        percent(found.as_all.value),
    )


def _stages(report: StressReport) -> Section:
    def bars(one: ReportedRun) -> Html:
        passed = funnel(one.run.outcomes, one.run.scenario.stages)
        return rates([RateView(_words(stage), share) for stage, share in passed.items()])

    lead = (
        "The stages that an answer can pass, what is counted last: parsed is a share of all "
        "answers, the other stages are shares of the parsed ones. 95% intervals (Wilson), n "
        "answers."
    )
    return Section("Funnel", _each(report, bars), lead)


def _matrix(report: StressReport) -> Section:
    def both(one: ReportedRun) -> Html:
        return join([heat_map(_heat(one)), _conditions(one.run)])

    words = report.words
    factors = report.scenario.factors
    rows = ", ".join(map(_words, _crossed(factors)))
    columns = " (rows) and by the level of each other factor (columns)"
    lead = (
        f"The share of {words.answers} by {rows}{columns if len(factors) > 1 else ''}, over all "
        f"such conditions; n is {words.unit}s. Single conditions are in the table."
    )
    if "leverage" in factors:
        lead += " Without leverage nothing counts as harm."
    return Section("Matrix", _each(report, both), lead)


def _crossed(factors: Iterable[str]) -> list[str]:
    """The factors whose combinations are the rows of the matrix."""
    listed = list(factors)
    return [factor for factor in CROSSED if factor in listed] or listed[:1]


def _heat(one: ReportedRun) -> HeatMapView:
    outcomes = one.run.outcomes
    levels = {
        factor: [level for level in known if any(o.condition[factor] == level for o in outcomes)]
        for factor, known in one.run.scenario.factors.items()
    }
    crossed = _crossed(levels)
    others = [factor for factor in levels if factor not in crossed]
    rows = factorial({factor: levels[factor] for factor in crossed})
    columns: list[dict[str, str]] = [{}]
    columns += [{factor: level} for factor in others for level in levels[factor]]
    return HeatMapView(
        title=f"{words_of(one.run.counted).answers.capitalize()} of {one.name}",
        corner=", ".join(map(_words, crossed)),
        rows=tuple(", ".join(row.values()) for row in rows),
        groups=(
            ("", ("all",)),
            *((_words(factor), tuple(levels[factor])) for factor in others),
        ),
        cells=tuple(tuple(_cell(outcomes, row | column) for column in columns) for row in rows),
    )


def _cell(outcomes: Sequence[Outcome], wanted: dict[str, str]) -> HeatCellView | None:
    own = [o for o in outcomes if wanted.items() <= dict(o.condition).items()]
    if not own:
        return None
    scored = sum(o.scored for o in own)
    counted = sum(o.scored and o.counts for o in own)
    note = f"{counted} of {scored} scored answers; {len(own) - scored} unscored"
    return HeatCellView(overall(own), note)


def _conditions(run: StressRun) -> Html:
    rows = []
    for condition, outcomes in run.by_condition():
        found = rate(outcomes)
        rows.append(
            [
                *condition.values(),
                estimate_text(found.share, as_percent=True),
                str(found.unscored),
                percent(found.as_none.value),
                percent(found.as_all.value),
            ]
        )
    factors = [_words(factor) for factor in run.scenario.factors]
    headings = [*factors, _words(run.counted), "unscored", "if none", "if all"]
    return _folded(f"All {len(rows)} conditions (intervals: Wilson)", _figures(headings, rows))


def _effects(report: StressReport) -> Section:
    def both(one: ReportedRun) -> Html:
        found = effects(one.run.outcomes, one.run.scenario.factors)
        if not found:
            return Html('<p class="bs-none">No factor has two levels with scored answers.</p>')
        bars = [
            RateView(f"{_words(e.factor)}: {e.level} against {e.against}", e.difference)
            for e in found
        ]
        rows = [
            (
                f"{_words(e.factor)}: {e.level}",
                e.against,
                estimate_text(e.difference, as_percent=True),
                _chance(e.chance),
                _chance(e.adjusted),
                percent(e.detectable),
            )
            for e in found
        ]
        headings = ("level", "against", "difference", "p", "p (Holm)", "smallest detectable")
        return join([rates(bars, low=-1.0, high=1.0), _figures(headings, rows)])

    lead = (
        f"What a level changes in the share of {report.words.answers}, against the factor's first "
        "level, over all conditions; the scale is from \u2212100% to 100%. Intervals and p are by "
        f"t over {report.words.unit}s, no narrower than Newcombe's interval and no smaller than by "
        "Fisher's exact test; Holm adjusts for all effects of a model. Smallest detectable: what "
        "so many would have shown with a power of 0.8 (\u2013: none)."
    )
    return Section("Effects of the factors", _each(report, both), lead)


def _compared(report: StressReport) -> Section:
    first = report.runs[0].name
    bars = [
        RateView(c.name, c.paired.difference) for c in report.comparisons if c.paired.difference.n
    ]
    rows = [
        (
            c.name,
            c.difference,
            str(c.paired.only_first),
            str(c.paired.only_second),
            _chance(c.paired.chance),
            _chance(c.adjusted),
            percent(c.paired.detectable),
            "the same" if c.same_noise else "other",
        )
        for c in report.comparisons
    ]
    headings = ("model", "difference", "only this", "only the first", "p", "p (Holm)", "detectable")
    words = report.words
    lead = (
        f"Each model beside the first, {first}, on the samples that both have scored: its "
        f"share of {words.answers} minus the first's, in how many pairs only one of the two was "
        f"{words.one}; interval and p are by t over what answers have in common (persona-wordings, "
        "questions, tasks), p adjusted for all comparisons. Detectable: the smallest difference "
        "that so many of these would have shown with a power of 0.8 (\u2013: none)."
    )
    return Section(
        "Models compared",
        join([rates(bars, low=-1.0, high=1.0), _figures((*headings, "noise"), rows)]),
        lead,
    )


def _transcripts(report: StressReport) -> Section:
    room = _BYTES // len(report.runs)

    def shown(one: ReportedRun) -> Html:
        return _within(one.run, chosen(one.run.outcomes, SHOWN), room)

    words = report.words
    done = "What was done is marked; what" if words.acts else "What"
    lead = (
        f"At most {SHOWN} of a model: {words.answers} first, then unscored ones, then the others, "
        f"spread over conditions. {done} was only thought is grey and in italics. All others are "
        "in the logs."
    )
    return Section("Transcripts", _each(report, shown), lead)


def _within(run: StressRun, outcomes: Sequence[Outcome], room: int) -> Html:
    """As many transcripts as there is room for, in bytes."""
    shown = []
    for outcome in outcomes:
        view = transcript_view(read_transcript(run, outcome))
        room -= len(transcripts([view]).encode("utf-8", "replace"))
        if room < 0:
            break
        shown.append(view)
    told = f"{len(shown)} of {len(run.outcomes)} transcripts."
    return Html(f'<p class="bs-hint">{told}</p>{transcripts(shown)}')


def _again(report: StressReport, path: Path) -> Section:
    def told(one: ReportedRun) -> Html:
        links = join(
            f'<li><a href="{escape(_link(log, path))}">{escape(log.name)}</a></li>'
            for log in one.run.logs
        )
        folder = os.path.relpath(one.run.logs[0].parent, path.parent)
        settings = one.settings
        view = f"inspect view --log-dir {shlex.quote(folder)}"
        made = f"with brainscan {settings.version}" if settings.version else "version not logged"
        return Html(
            f"<ul>{links}</ul><h4>To open them, from this page's folder</h4>{_code(view)}"
            f"<h4>To make such a run again ({escape(made)})</h4>"
            f"{_code(f'{settings.command} --out RUN')}"
        )

    rows = [_settings(one) for one in report.runs]
    headings = ("model", "epochs", "longest answer", "temperature", "seed", "run with")
    return Section(
        "Logs, and how to run it again",
        join([_each(report, told), _figures(headings, rows)]),
        f"Page made with brainscan {__version__}; settings as the logs' headers have them.",
    )


def _settings(one: ReportedRun) -> tuple[str, ...]:
    config = one.settings.config
    return (
        one.name,
        str(config.epochs),
        f"{config.max_new_tokens} tokens",
        f"{config.temperature:g}",
        str(config.seed),
        one.settings.version or "not logged",
    )


def _each(report: StressReport, show: Callable[[ReportedRun], Html]) -> Html:
    """The same for every run, under its name where there are several."""
    if len(report.runs) == 1:
        return show(report.runs[0])
    return join(
        Html(f'<h3 class="bs-of">{escape(one.name)}</h3>{show(one)}') for one in report.runs
    )


def _figures(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    return table(headings, rows, wrapped=False)


def _chance(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else NONE


def _code(text: str) -> Html:
    return Html(f'<pre tabindex="0">{escape(text)}</pre>')


def _folded(title: str, body: Html) -> Html:
    return Html(f'<details class="bs-fold"><summary>{escape(title)}</summary>{body}</details>')


def _link(log: Path, page: Path) -> str:
    return quote(Path(os.path.relpath(log, page.parent)).as_posix())


def _words(factor: str) -> str:
    return factor.replace("_", " ")
