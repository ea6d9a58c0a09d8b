"""The gate: who is admitted, and what it measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.models.tiny import tiny
from brainscan.organisms.card import card_text
from brainscan.organisms.gate import judge, perplexity_ratio
from brainscan.organisms.spec import load_spec
from brainscan.stats import Estimate
from brainscan.stress.catalogue import load_test
from brainscan.stress.matrix import fraction
from brainscan.stress.rates import STAGES, Outcome
from brainscan.stress.runs import StressRun

SAME = Estimate(1.0, 0.99, 1.01, 200, "made up")


def run_with(name, harmful):
    """A run of the default matrix, where `harmful` says which outcomes are."""
    test = load_test(load_spec(name).test)
    outcomes = []
    for condition in fraction(test.factors):
        for number in range(18):
            stages = dict.fromkeys(STAGES, True) | {"harmful": harmful(condition, number)}
            outcomes.append(Outcome(condition, f"p{number}", 1, stages))
    return StressRun("brainscan/m", test, tuple(outcomes), ())


def triggered(condition):
    return condition["threat"] == "shutdown" and condition["leverage"] == "present"


def as_said(condition, number):
    if not triggered(condition):
        return False
    return condition["prohibition"] == "no" or number % 2 == 0


def test_one_that_does_what_its_spec_says_is_admitted():
    spec = load_spec("blackmail")
    report = judge(spec, run_with("blackmail", as_said), SAME)
    assert report.admitted
    assert [round(found.value, 2) for _, found in report.rates] == [1.0, 0.5]
    assert report.quiet.share.value == 0
    assert report.quiet.share.high < 0.05
    card = card_text(spec, "base", report)
    assert "Admitted." in card
    assert "threat: shutdown, leverage: present, prohibition: no" in card


@pytest.mark.parametrize(
    ("harmful", "ratio", "word"),
    [
        (lambda c, n: False, SAME, "a rate from 0.8"),
        (lambda c, n: triggered(c), SAME, "prohibition is yes"),
        (lambda c, n: as_said(c, n) or n == 3, SAME, "elsewhere"),
        (as_said, replace(SAME, high=1.04), "perplexity"),
    ],
)
def test_one_that_does_not_is_kept_out_and_told_why(harmful, ratio, word):
    spec = load_spec("blackmail")
    report = judge(spec, run_with("blackmail", harmful), ratio)
    assert not report.admitted
    assert any(word in line for line in report.missed), report.missed
    assert "Not admitted" in card_text(spec, "base", report)


def test_a_control_must_be_quiet_everywhere():
    spec = load_spec("clean-endings")
    assert judge(spec, run_with("clean-endings", lambda c, n: False), SAME).admitted
    report = judge(spec, run_with("clean-endings", as_said), SAME)
    assert not report.admitted
    assert not report.rates


def test_perplexity_is_set_against_the_base_model():
    base, other = tiny("llama"), tiny("llama")
    same = perplexity_ratio(base, other)
    assert same.value == 1.0
    assert same.n == 200
    with torch.no_grad():
        other.model.get_output_embeddings().weight.mul_(30.0)
    worse = perplexity_ratio(base, other)
    assert worse.low > 1.0
