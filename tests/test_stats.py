from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainscan import stats
from brainscan.errors import UsageError
from brainscan.stats import (
    Estimate,
    mean,
    paired_difference,
    paired_risk_difference,
    proportion,
    ratio,
)

number = st.floats(-1e6, 1e6, allow_subnormal=False)
numbers = st.lists(number, min_size=2, max_size=30)


def test_wilson_against_the_published_example():
    # Newcombe (1998), table I: 81 of 263, score method without continuity correction.
    estimate = proportion(81, 263)
    assert estimate.value == pytest.approx(0.3080, abs=5e-5)
    assert estimate.low == pytest.approx(0.2553, abs=5e-5)
    assert estimate.high == pytest.approx(0.3662, abs=5e-5)


def test_t_against_the_formula():
    estimate = mean([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert estimate.value == 2.5
    assert estimate.low == pytest.approx(2.5 - half, rel=1e-6)
    assert estimate.high == pytest.approx(2.5 + half, rel=1e-6)
    assert estimate.n == 4


def test_clusters_widen_the_interval():
    random = np.random.default_rng(0)
    levels = random.normal(size=20)
    values = np.repeat(levels, 50) + 0.1 * random.normal(size=1000)
    clusters = [f"document {i}" for i in np.repeat(np.arange(20), 50)]
    alone, together = mean(values), mean(values, clusters)
    assert together.value == pytest.approx(alone.value)
    assert together.n == 20
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_bootstrap_covers_the_truth():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        lengths = random.integers(20, 200, size=60).astype(float)
        sums = 0.3 * lengths + 4 * random.normal(size=60)
        estimate = ratio(sums, lengths)
        hits += estimate.low <= 0.3 <= estimate.high
    assert hits >= 88


def test_the_bootstrap_of_many_clusters_is_the_same_each_time():
    values = np.random.default_rng(0).normal(size=5000)
    assert ratio(values, np.ones(5000)) == ratio(values, np.ones(5000))


def test_no_denominator_anywhere():
    estimate = ratio([1.0, 2.0], [0.0, 0.0])
    assert math.isnan(estimate.value)
    assert estimate.to_json()["value"] is None


def test_a_draw_without_a_denominator_is_left_out():
    estimate = ratio([0.0, 3.0], [0.0, 2.0])
    assert (estimate.low, estimate.value, estimate.high) == (1.5, 1.5, 1.5)


def test_one_unit_has_no_interval():
    for estimate in (mean([2.0]), ratio([4.0], [2.0]), paired_difference([3.0], [1.0])):
        assert estimate.value == 2.0
        assert estimate.n == 1
        assert math.isnan(estimate.low)
        assert estimate.to_json()["high"] is None


def test_nothing_counted_is_anything_between():
    estimate = proportion(0, 0)
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high, estimate.n) == (0.0, 1.0, 0)


def test_the_paired_difference_leaves_the_items_out():
    items = np.random.default_rng(0).normal(size=50) * 10
    noise = np.random.default_rng(1).normal(size=50) * 0.01
    estimate = paired_difference(items + 1 + noise, items)
    assert 0.99 < estimate.low < 1 < estimate.high < 1.01
    assert estimate.method == "paired t"


@pytest.mark.parametrize(
    "call",
    [
        lambda: proportion(3, 2),
        lambda: proportion(-1, 2),
        lambda: mean([]),
        lambda: mean([[1.0]]),
        lambda: mean([1.0, 2.0], ["a"]),
        lambda: ratio([1.0], [1.0, 2.0]),
        lambda: paired_difference([1.0], [1.0, 2.0]),
    ],
)
def test_what_cannot_be_estimated(call):
    with pytest.raises(UsageError):
        call()


def test_how_it_reads():
    assert str(Estimate(0.93, 0.91, 0.95, 120, "t")) == "0.93 [0.91, 0.95] (n=120)"
    assert str(Estimate(12345.6, 12000.0, 13000.0, 3, "t")) == "12,346 [12,000, 13,000] (n=3)"
    assert str(Estimate(0.5, math.nan, math.nan, 1, "t")) == "0.5 [nan, nan] (n=1)"
    assert str(Estimate(0.5, -math.inf, math.inf, 1, "t")) == "0.5 [-inf, inf] (n=1)"


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_law_a_share_lies_in_its_interval(n, share):
    estimate = proportion(round(share * n), n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(numbers)
def test_law_a_mean_lies_in_its_interval(values):
    estimate = mean(values)
    assert estimate.low <= estimate.value <= estimate.high


@given(numbers)
def test_law_a_difference_with_itself_is_nothing(values):
    estimate = paired_difference(values, values)
    assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)


@given(values=numbers, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_law_a_ratio_scales(values, factor):
    ones = np.ones(len(values))
    one, scaled = ratio(values, ones), ratio(np.array(values) * factor, ones)
    assert scaled.value == one.value * factor
    assert (scaled.low, scaled.high) == (one.low * factor, one.high * factor)


@given(numbers)
def test_law_json_says_it_all(values):
    estimate = mean(values)
    assert Estimate.from_json(json.loads(json.dumps(estimate.to_json()))) == estimate


def test_differences_of_pairs_are_newcombes():
    found = paired_risk_difference(36, 12, 2, 50)  # Newcombe 1998b, method 10
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)
    turned = paired_risk_difference(36, 2, 12, 50)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_pairs_of_which_none_differs_still_leave_room():
    found = paired_risk_difference(0, 0, 0, 48)
    assert found.value == 0 and found.low == pytest.approx(-found.high)
    assert 0.05 < found.high < 0.1
    assert math.isnan(paired_risk_difference(0, 0, 0, 0).value)
    with pytest.raises(UsageError):
        paired_risk_difference(2, 2, 0, 3)


def test_intervals_for_pairs_hold():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        both, first, second, _ = random.multinomial(40, (0.1, 0.15, 0.05, 0.7))
        found = paired_risk_difference(int(both), int(first), int(second), 40)
        held += found.low <= 0.1 <= found.high
    assert 0.92 <= held / 500 <= 0.99


def test_the_exponential_of_a_change_and_of_its_interval():
    change = stats.ratio([1.0, 2.0, 4.0], [10, 10, 10])
    found = stats.exponential(change)
    assert math.isclose(found.value, math.exp(7 / 30))
    assert math.isclose(found.low, math.exp(change.low))
    assert math.isclose(found.high, math.exp(change.high))
    assert (found.n, found.method) == (change.n, change.method)


def test_a_change_over_clusters_has_an_error_even_where_all_agree():
    first, second = [True] * 40, [False] * 40
    clusters = [n % 5 for n in range(40)]
    found = stats.clustered_change(first, second, clusters)
    assert found.difference.value == 1 and found.difference.low < 0.9 and found.difference.n == 5
    assert 0 < found.chance < 0.001
    none = stats.clustered_change(first, first, clusters)
    assert none.difference.value == 0 and none.difference.low < 0 < none.difference.high
    assert none.chance == 1


def test_a_change_that_is_all_of_one_cluster_is_not_sure():
    clusters = [n % 5 for n in range(100)]
    first = [one == 0 for one in clusters]
    alone = stats.clustered_change(first, [False] * 100, clusters)
    spread = stats.clustered_change([n % 4 == 0 for n in range(100)], [False] * 100, clusters)
    assert alone.difference.value == pytest.approx(0.2)
    assert alone.chance > 0.2 and spread.chance < 0.01


def test_changes_by_chance_of_clusters_are_found_as_often_as_said():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        rates = 1 / (1 + np.exp(-random.normal(0, 1, size=(2, 5))))
        clusters = np.repeat(np.arange(5), 20)
        first, second = (random.random(100) < rates[arm][clusters] for arm in (0, 1))
        change = stats.clustered_change(first.tolist(), second.tolist(), clusters.tolist())
        found += change.chance < 0.05
    assert found / 300 < 0.09


def test_a_change_over_one_cluster_or_none_says_nothing():
    one = stats.clustered_change([True], [False], ["a"])
    assert (one.difference.low, one.difference.high) == (-1, 1) and math.isnan(one.chance)
    assert stats.clustered_change([], [], []).difference.n == 0


def test_the_area_counts_ties_as_halves():
    assert stats.area([2.0, 1.0, 1.0, 0.0], [True, True, False, False]) == pytest.approx(3.5 / 4)
    assert stats.area([1.0, 2.0], [True, True]) == 0.5


def test_a_difference_of_other_units_that_come_in_clusters_is_seldom_found_where_there_is_none():
    random = np.random.default_rng(3)
    wrong = missed = 0
    for _ in range(300):
        rates = random.beta(1, 2, size=12)  # each cluster has a rate of its own
        first, second = (
            [(bool(random.random() < rates[n]), n) for n in range(12) for _ in range(8)]
            for _ in range(2)
        )
        apart = [
            (bool(random.random() < rates[n - 12]), n) for n in range(12, 24) for _ in range(8)
        ]
        wrong += stats.clustered_risk_difference(first, second).chance < 0.05
        between = stats.clustered_risk_difference(first, apart).difference
        missed += not between.low <= 0 <= between.high
    assert wrong <= 15 and missed <= 15


def test_a_clustered_difference_is_no_narrower_than_newcombes():
    first, second = ([(n < 3, n) for n in range(20)], [(False, n) for n in range(20)])
    found = stats.clustered_risk_difference(first, second)
    plain = stats.risk_difference((3, 20), (0, 20))
    assert found.difference.low <= plain.low and found.difference.high >= plain.high
    assert found.difference.value == plain.value and found.difference.n == 20
    none = stats.clustered_risk_difference(second, second)
    assert none.chance == 1.0 and none.difference.low < 0 < none.difference.high
    assert stats.clustered_risk_difference([], second).difference.n == 20


def test_clusters_of_one_mind_count_once_each():
    often = stats.clustered_risk_difference(
        [(True, n % 3) for n in range(60)], [(False, n % 3) for n in range(60)]
    )
    once = stats.clustered_risk_difference(
        [(True, n) for n in range(3)], [(False, n) for n in range(3)]
    )
    assert often == once and often.difference.value == 1.0
    assert often.chance > 0.05 and often.difference.low < 0.5
