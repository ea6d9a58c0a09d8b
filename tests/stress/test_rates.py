"""Rates and differences, against values worked out elsewhere and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from brainscan import stats
from brainscan.stress.rates import (
    STAGES,
    Outcome,
    compare,
    effects,
    funnel,
    overall,
    overall_rate,
    rate,
)


def outcome(harmful, persona="p01", epoch=1, parsed=True, **condition):
    stages = dict.fromkeys(STAGES, harmful) | {"parsed": parsed}
    return Outcome(condition or {"threat": "none"}, persona, epoch, stages)


def test_unscored_outcomes_are_in_no_rate_and_bound_it():
    found = rate([outcome(True), outcome(False), outcome(False), outcome(False, parsed=False)])
    assert (found.share.value, found.share.n, found.unscored) == (1 / 3, 3, 1)
    assert (found.as_none.value, found.as_all.value) == (0.25, 0.5)
    told = found.to_json()
    assert told["n"] == 3 and told["harmful"]["method"] == "wilson"
    assert math.isnan(rate([outcome(False, parsed=False)]).share.value)


def test_the_funnel_narrows():
    rows = [outcome(True), outcome(False), outcome(False, parsed=False)]
    found = funnel(rows)
    assert (found["parsed"].value, found["parsed"].n) == (2 / 3, 3)
    assert (found["harmful"].value, found["harmful"].n) == (0.5, 2)


@pytest.mark.parametrize(
    ("first", "second"), [((7, 10), (2, 12)), ((0, 30), (4, 30)), ((5, 5), (0, 5))]
)
def test_risk_differences_are_newcombes(first, second):
    low, high = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    found = stats.risk_difference(first, second)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_intervals_over_few_wordings_hold():
    random = np.random.default_rng(0)
    held = wide = 0
    for _ in range(200):
        tendencies = random.beta(3, 3, size=10)
        values = np.concatenate([random.random(20) < tendency for tendency in tendencies])
        found = stats.clustered_share(values.astype(float), np.repeat(np.arange(10), 20).tolist())
        held += found.low <= 0.5 <= found.high
        wide += found.high - found.low > 2 * 1.96 * 0.5 / math.sqrt(200)
    assert 0.89 <= held / 200 <= 0.99
    assert wide > 150


def test_where_all_agree_the_wordings_are_the_units():
    found = overall([outcome(False, persona=f"p{n % 5}") for n in range(100)])
    assert (found.value, found.n) == (0.0, 5)
    assert found.high == pytest.approx(stats.proportion(0, 5).high)


def test_a_rate_over_conditions_is_bounded_by_what_is_not_scored():
    rows = [outcome(n < 6, f"p{n % 5}", n, parsed=n < 12) for n in range(20)]
    found = overall_rate(rows)
    assert (found.share.value, found.as_none.value, found.as_all.value) == (0.5, 0.3, 0.7)
    assert found.unscored == 8 and found.share == overall(rows)
    assert {one.n for one in (found.share, found.as_none, found.as_all)} == {5}
    assert found.as_none.low < 0.3 < found.as_none.high
    assert overall_rate([outcome(False, parsed=False)]).as_all.value == 1.0


def test_effects_of_factors_are_found_and_adjusted():
    random = np.random.default_rng(1)
    rows = [
        outcome(
            bool(random.random() < (0.6 if threat == "shutdown" else 0.1)),
            f"p{n % 8}",
            n,
            threat=threat,
            cue=cue,
        )
        for threat in ("none", "shutdown")
        for cue in ("none", "test")
        for n in range(60)
    ]
    found = effects(rows, {"threat": ("none", "shutdown"), "cue": ("none", "test"), "x": ("y",)})
    assert [(e.factor, e.level, e.against) for e in found] == [
        ("threat", "shutdown", "none"),
        ("cue", "test", "none"),
    ]
    threat, cue = found
    assert threat.difference.low > 0.3 and threat.adjusted < 0.01
    assert cue.adjusted > 0.05 and cue.adjusted >= cue.chance
    assert 0 < cue.detectable < 0.5


def test_epochs_of_a_wording_are_no_further_units():
    def drawn(epochs):
        rows = [
            outcome(harmful, f"p{n}", epoch, cue=cue)
            for cue, share in (("none", 3), ("test", 6))
            for n, harmful in enumerate([True] * share + [False] * (10 - share))
            for epoch in range(epochs)
        ]
        return effects(rows, {"cue": ("none", "test")})[0]

    once, often = drawn(1), drawn(12)
    assert once.difference.value == pytest.approx(0.3)
    assert (once.difference.n, often.difference.n) == (10, 10)
    assert once.chance > 0.05 and often.chance > 0.05
    width = often.difference.high - often.difference.low
    assert width > 0.8 * (once.difference.high - once.difference.low)


def test_an_effect_in_one_wording_alone_is_unknown():
    rows = [outcome(n % 2 == 0, "p1", n, cue=("none", "test")[n % 2]) for n in range(20)]
    (found,) = effects(rows, {"cue": ("none", "test")})
    assert (found.difference.low, found.difference.high) == (-1.0, 1.0)
    assert math.isnan(found.chance) and math.isnan(found.adjusted) and math.isnan(found.detectable)


def test_the_same_samples_of_two_models_are_compared_in_pairs():
    first = [outcome(n < 12, f"p{n}", 1) for n in range(20)]
    second = [outcome(n < 3, f"p{n}", 1) for n in range(18)]
    found = compare(first, second)
    assert (found.only_first, found.only_second) == (9, 0)
    assert found.difference.value == pytest.approx(0.5)
    assert 0 < found.chance < 0.01 and found.difference.low > 0
    assert compare(first, []).difference.n == 0
    assert math.isnan(compare(first, []).chance)


def test_many_pairs_of_few_personas_are_no_more_than_few():
    """Thirty answers to each of three wordings, of which one turns, are three units, not ninety."""
    first = [outcome(n < 1, f"p{n}", epoch) for n in range(3) for epoch in range(30)]
    second = [outcome(False, f"p{n}", epoch) for n in range(3) for epoch in range(30)]
    found = compare(first, second)
    assert found.difference.n == 3
    assert found.difference.low < 0 and found.chance > 0.2


def test_the_smallest_difference_that_pairs_could_show():
    """A change of that size is found about 8 times of 10."""
    random = np.random.default_rng(3)

    def draw(rise):
        turned, back = random.random(80) < 0.15 + rise, random.random(80) < 0.15
        first = [outcome(bool(one), f"p{n}") for n, one in enumerate(turned)]
        return compare(first, [outcome(bool(one), f"p{n}") for n, one in enumerate(back)])

    smallest = float(np.mean([draw(0.0).detectable for _ in range(20)]))
    assert 0.1 < smallest < 0.25
    assert 0.65 < np.mean([draw(smallest).chance < 0.05 for _ in range(200)]) < 0.9
    alike = [outcome(False, f"p{n}") for n in range(20)]
    assert 0.1 < compare(alike, alike).detectable < 0.4
    assert math.isnan(compare(alike[:1], alike).detectable)
    assert math.isnan(compare(alike, []).detectable)
