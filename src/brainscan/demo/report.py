"""The demo's report, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brainscan.demo.results import (
    ASKED,
    UNTOUCHED,
    Claim,
    Comparison,
    Findings,
    asked_and,
    latent_at,
    random_at,
)
from brainscan.demo.texts import PASSAGE
from brainscan.dictionaries import Dictionary
from brainscan.features import FeatureCard, Hit, Scan
from brainscan.interventions import Effects, format_edit
from brainscan.models import LanguageModel
from brainscan.views import (
    CurveView,
    GenerationView,
    Html,
    RateView,
    Section,
    escape,
    feature_card,
    join,
    page,
    rates,
    side_by_side,
    strength_response_plot,
    table,
)

TITLE = "A concept in a language model, turned up and down"

_SHOWN_PROMPTS = 3
_COSTS = ("KL, nats per token", "perplexity ratio", "capability", "capability untouched")


def first_page(scan: Scan) -> str:
    """The page with the scanned passage alone, while the rest is still being measured."""
    waiting = "The experiment is still running; reload this page when it is done."
    return page(TITLE, [_passage(scan)], subtitle=waiting)


def report_json(
    lm: LanguageModel,
    dictionary: Dictionary,
    scan: Scan,
    hits: Sequence[Hit],
    findings: Findings,
) -> dict[str, Any]:
    """Everything that the report says, as a JSON object."""
    return {
        "model": {"name": lm.name, "weights": lm.ref.weights},
        "dictionary": {
            "name": dictionary.name,
            "digest": dictionary.manifest.digest if dictionary.manifest else None,
        },
        "passage": {"text": PASSAGE, **scan.to_json()},
        "search": {
            "query": findings.config.concept.query,
            "results": [hit.to_json() for hit in hits],
        },
        "experiment": findings.to_json(),
    }


def report_page(
    lm: LanguageModel,
    dictionary: Dictionary,
    scan: Scan,
    hits: Sequence[Hit],
    card: FeatureCard,
    findings: Findings,
) -> str:
    """The whole report, as one self-contained page."""
    sections = [
        _passage(scan),
        _verdicts(findings),
        _response(findings),
        _answers(findings),
        _cost(findings),
        Section("The latent", feature_card(card), "What the atlas says of it; grade U: untested."),
        _chosen(hits, findings),
        _method(findings),
    ]
    facts = [
        ("model", lm.name),
        ("weights", lm.ref.weights[:12]),
        ("dictionary", dictionary.name),
        ("latent", findings.choice.address),
        ("seed", str(findings.config.seed)),
    ]
    subtitle = (
        f"Does {findings.choice.address} make answers speak of {findings.config.concept.name}?"
    )
    return page(TITLE, sections, subtitle=subtitle, facts=facts)


def explanation(claim: Claim) -> str:
    """What a claim's verdict rests on, in words."""
    return "; ".join(_compared(comparison) for comparison in claim.comparisons)


def _compared(comparison: Comparison) -> str:
    if not comparison.differing:
        return f"against {comparison.against} no answer differs"
    return (
        f"against {comparison.against} it is ahead in {comparison.wins} of the "
        f"{comparison.differing} prompts that differ (by chance: {comparison.chance:.2g})"
    )


def _passage(scan: Scan) -> Section:
    lead = (
        "A passage of ours. The buttons colour it by one latent that stands out in it, or by the "
        "strongest latent of each token. Point at a token, or reach it with the arrow keys, to see "
        "which latents fire there."
    )
    return Section("A passage, token by token", scan.strip(), lead)


def _verdicts(findings: Findings) -> Section:
    rows = [(claim.text, claim.verdict, explanation(claim)) for claim in findings.claims]
    lead = (
        "A claim is supported if, of the prompts where two arms differ, it is ahead in more than a "
        "coin would be in 97.5% of cases (the sign test), for every control."
    )
    return Section("What can be said", table(("claim", "verdict", "because"), rows), lead)


def _response(findings: Findings) -> Section:
    strengths = findings.config.strengths
    answers = findings.answers
    own = CurveView(
        findings.choice.address,
        strengths,
        tuple(answers[latent_at(s)].share for s in strengths),
    )
    control = CurveView(
        "random latents, equal change of norm",
        tuple(s for s in strengths if s),
        tuple(answers[random_at(s)].share for s in strengths if s),
        control=True,
    )
    concept = findings.config.concept
    plot = strength_response_plot(
        [own, control],
        title=f"Share of answers that speak of {concept.name}, by strength",
        measure="share of answers",
        reference=answers[UNTOUCHED].share.value,
    )
    asked, down = answers[ASKED].share, -findings.choice.strength
    bars = rates(
        [
            RateView("untouched", answers[UNTOUCHED].share, control=True),
            RateView(f"asked in words: {concept.request}", asked, control=True),
            RateView(
                f"asked in words, latent at {down:g}x", answers[asked_and(latent_at(down))].share
            ),
            RateView(
                f"asked in words, random latents matched to {down:g}x",
                answers[asked_and(random_at(down))].share,
                control=True,
            ),
        ]
    )
    lead = (
        f"{len(findings.config.judging_prompts)} prompts that do not speak of {concept.name}, one "
        "answer each, with the same noise in every arm. The band is a 95% interval (Wilson)."
    )
    return Section("Strength and response", join([plot, bars]), lead)


def _answers(findings: Findings) -> Section:
    up = findings.choice.strength
    shown = (
        (UNTOUCHED, "untouched", True),
        (latent_at(up), f"{findings.choice.address} at {up:g} times its maximum", False),
        (random_at(up), "random latent, equal change of norm", True),
        (ASKED, "asked in words", True),
    )
    figures = [
        side_by_side(
            prompt,
            [
                GenerationView(title, (findings.answers[arm].texts[number],), control=control)
                for arm, title, control in shown
            ],
        )
        for number, prompt in enumerate(findings.config.judging_prompts[:_SHOWN_PROMPTS])
    ]
    lead = f"The first {_SHOWN_PROMPTS} prompts, whatever came; report.json has all answers."
    return Section("Answers side by side", join(figures), lead)


def _cost(findings: Findings) -> Section:
    own = table(
        ("arm", *_COSTS),
        [(arm, *_cost_cells(effects)) for arm, effects in findings.effects.items()],
    )
    controls = table(
        ("random latent", "change of norm", f"that of {findings.choice.address}", *_COSTS),
        [
            (
                format_edit(control.match.edit),
                str(control.match.control_change),
                str(control.match.change),
                *_cost_cells(control.effects),
            )
            for control in findings.controls
        ],
    )
    lead = (
        "How far each edit moves the model on neutral text, and what is left of its answers to a "
        "small set of questions; below, the random latents that stand beside the chosen one at "
        f"{findings.choice.strength:g} times its maximum, and how far each moves activations. n is "
        "the number of passages, or of questions."
    )
    return Section("What it costs", join([own, controls]), lead)


def _cost_cells(effects: Effects) -> tuple[str, ...]:
    return (
        str(effects.kl),
        str(effects.perplexity_ratio),
        str(effects.capability),
        str(effects.capability_baseline),
    )


def _chosen(hits: Sequence[Hit], findings: Findings) -> Section:
    labels = {hit.id: hit.label for hit in hits}
    scores = {hit.id: f"{hit.score:.2f}" for hit in hits}
    rows = [
        (t.address, labels[t.address], scores[t.address], f"{t.strength:g}x", str(t.share))
        for t in findings.choice.trials
    ]
    headings = ("latent", "label", "match", "strength", "share of answers")
    lead = (
        f"What the search for '{findings.config.concept.query}' found, each tried on "
        f"{len(findings.config.choosing_prompts)} prompts that the verdicts do not rest on. Of the "
        "settings within one answer of the best, the weakest was taken."
    )
    return Section("How the latent was chosen", table(headings, rows), lead)


def _method(findings: Findings) -> Section:
    config = findings.config
    lines = (
        "An answer speaks of the concept if it holds one of these words, which were fixed before "
        f"any latent was looked at: {', '.join(config.concept.words)}; an answer of which more "
        "than half the words are repeats does not count.",
        "An edit sets the latent's activation to a multiple of the largest one seen in training "
        "text, at every token, and keeps what the dictionary does not explain.",
        f"The control sets one of {config.random_latents} random latents so that activations on "
        "neutral text move equally far.",
        f"Answers have up to {config.tokens} tokens, drawn at temperature {config.temperature:g}; "
        "a prompt's noise is the same in every arm.",
        "The demo's own concept, food, was picked when the demo was written: of ten tried on the "
        "prompts for choosing, it was one of the three that worked best.",
        "One latent, one set of words and one small model: this shows what an edit does here, not "
        "how the model represents the concept in general.",
    )
    items = join(Html(f"<li>{escape(line)}</li>") for line in lines)
    return Section("How this was measured", Html(f"<ul>{items}</ul>"))
