"""What may be said, by rules written down before any run."""

from __future__ import annotations

import math

import pytest

from brainscan import stats
from brainscan.auditing.answers import Answered
from brainscan.auditing.design import Question
from brainscan.auditing.results import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    SUPPORTED,
    Behaviour,
    Costs,
    Explained,
    FrozenArm,
    Null,
)
from brainscan.auditing.verdicts import (
    beats,
    carries,
    costs_nothing,
    equivalent,
    no_behaviour,
    prevents,
)
from brainscan.interventions import Effects
from brainscan.stats import Estimate
from brainscan.stress.base import Asked


def answers(harmful, n, unscored=0):
    def one(number):
        stages = {"parsed": number >= unscored, "harmful": unscored <= number < unscored + harmful}
        asked = Asked(f"p{number}", {"threat": "shutdown"})
        return Answered(Question(asked, 1, ()), (1,), (2,), "", True, stages)

    return tuple(one(number) for number in range(n))


def estimate(value, low, high, n=100):
    return Estimate(float(value), float(low), float(high), n, "test")


def arm(harmful, n=50, *, change=None, adjusted=1.0, parsed=None, unscored=0, name="an arm"):
    costs = Costs(
        None, stats.proportion(n - unscored, n), None, parsed_change=parsed or estimate(0, 0, 0)
    )
    return FrozenArm(
        name, "kind", answers(harmful, n, unscored), None, costs, change, 0.0, adjusted
    )


UNTOUCHED = arm(45, name="untouched")
WORKS = arm(2, change=estimate(0.86, 0.7, 0.95), adjusted=1e-6)
NULL = Null("set", 0.9, (0.1,) * 99)


def behaviour(low, split="discovery"):
    cells = {("shutdown",): (9, 10), ("none",): (0, 10)}
    contrast = estimate(0.5, low, 0.9)
    return Behaviour(split, ("threat",), cells, 0, ("shutdown",), (("none",),), contrast)


def test_no_behaviour_on_either_split_ends_it():
    assert no_behaviour([behaviour(0.2), behaviour(0.1, "selection")]) is None
    found = no_behaviour([behaviour(0.2), behaviour(-0.1, "selection")])
    assert found.status == NOT_SUPPORTED and "on selection" in found.reason
    assert no_behaviour([behaviour(0.0)]).status == NOT_SUPPORTED


def test_unknown_contrast_is_no_behaviour():
    assert no_behaviour([behaviour(math.nan)]).status == NOT_SUPPORTED


def test_an_edit_that_works():
    assert prevents(WORKS, UNTOUCHED, "It").status == SUPPORTED


def test_harm_that_fell_because_the_model_broke():
    broken = arm(
        0,
        change=estimate(0.9, 0.8, 1),
        adjusted=1e-6,
        parsed=estimate(-0.6, -0.8, -0.4),
        unscored=30,
    )
    found = prevents(broken, UNTOUCHED, "It")
    assert found.status == NOT_SUPPORTED and "the model broke" in found.reason


def test_an_edit_that_does_nothing_is_told_from_one_nobody_knows_of():
    nothing = arm(45, change=estimate(0.0, -0.03, 0.03))
    unknown = arm(40, change=estimate(0.1, -0.05, 0.25), adjusted=0.2)
    assert prevents(nothing, UNTOUCHED, "It").status == NOT_SUPPORTED
    assert prevents(unknown, UNTOUCHED, "It").status == INCONCLUSIVE


def test_a_rise_does_not_prevent():
    worse = arm(50, change=estimate(-0.1, -0.2, -0.02), adjusted=0.01)
    assert prevents(worse, UNTOUCHED, "It").status == NOT_SUPPORTED


def test_features_carry_only_where_random_sets_do_not():
    works = prevents(WORKS, UNTOUCHED, "It")
    assert carries(works, NULL, None, None).status == SUPPORTED
    common = Null("set", 0.1, (0.2,) * 50 + (0.0,) * 49)
    assert common.rank == 51 and common.p == 0.51
    assert carries(works, common, None, None).status == NOT_SUPPORTED


def test_features_do_not_carry_if_their_opposite_works_too():
    works = prevents(WORKS, UNTOUCHED, "It")
    flipped = arm(5, change=estimate(0.8, 0.6, 0.9))
    found = carries(works, NULL, flipped, None)
    assert found.status == NOT_SUPPORTED and "sign-flipped" in found.reason


def test_no_features_to_test_is_inconclusive():
    works = prevents(WORKS, UNTOUCHED, "It")
    assert carries(works, None, None, None).status == INCONCLUSIVE


def test_what_they_explain_is_said():
    share = estimate(0.4, 0.3, 0.5)
    explained = Explained("d", share, share, share, share, 0.9, 0.2)
    found = carries(prevents(WORKS, UNTOUCHED, "It"), NULL, None, explained)
    assert "0.4" in found.reason


def test_features_must_do_better_than_a_direction():
    direction = arm(20)
    better = beats(WORKS, direction, estimate(0.4, 0.2, 0.5), 0.001)
    same = beats(WORKS, WORKS, estimate(0.0, -0.04, 0.04), 1.0)
    unknown = beats(WORKS, direction, estimate(0.1, -0.05, 0.3), 0.3)
    statuses = [better.status, same.status, unknown.status]
    assert statuses == [SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE]
    assert "as well or better" in same.reason


@pytest.mark.parametrize(
    ("low", "high", "even"), [(-0.04, 0.04, True), (-0.06, 0.01, False), (0.0, 0.05, False)]
)
def test_equivalence_needs_both_ends_within_the_margin(low, high, even):
    assert equivalent(estimate(0, low, high)) is even


def test_costs():
    def costed(change):
        effects = Effects(*[estimate(0.5, 0.4, 0.6)] * 4, capability_change=change)
        return FrozenArm("a", "k", answers(1, 10), None, Costs(effects, change, None, None, change))

    free = costs_nothing(costed(estimate(0, -0.02, 0.02)), "It")
    dear = costs_nothing(costed(estimate(-0.2, -0.3, -0.1)), "It")
    unknown = costs_nothing(costed(estimate(-0.02, -0.1, 0.06)), "It")
    assert [one.status for one in (free, dear, unknown)] == [
        SUPPORTED,
        NOT_SUPPORTED,
        INCONCLUSIVE,
    ]
    assert "KL" in free.reason
