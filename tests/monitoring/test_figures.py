"""Figures of detectors against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from brainscan.monitoring.figures import (
    auroc,
    auroc_lead,
    calibration_error,
    caught,
    per_10k,
    threshold_at,
)


def test_the_area_is_the_share_of_pairs_in_order():
    got = auroc([3.0, 1.0, 2.0], [0.0, 1.0])
    assert got.value == pytest.approx((1 + 1 + 0.5 + 1 + 1 + 1) / 6)
    assert got.low <= got.value <= got.high
    assert got.n == 5


def test_an_area_of_one_is_not_certain():
    few, many = auroc([2.0] * 3, [1.0] * 50), auroc([2.0] * 300, [1.0] * 500)
    assert few.value == many.value == 1
    assert few.low < 0.8 < many.low


def test_dialogues_of_one_text_are_drawn_together():
    draw = np.random.default_rng(1)
    high, low = draw.normal(1, 1, 40), draw.normal(0, 1, 60)
    alone = auroc(high, low)
    copies = auroc(np.repeat(high, 5), np.repeat(low, 5))
    texts = ([f"a{n}" for n in range(40)] * 5, [f"b{n}" for n in range(60)] * 5)
    together = auroc(np.tile(high, 5), np.tile(low, 5), texts)
    assert together.n == alone.n == 100
    assert together.value == pytest.approx(alone.value)
    assert copies.high - copies.low < 0.7 * (alone.high - alone.low)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.2)
    same = caught(np.tile(high, 5), np.tile(low, 5), 0.1, texts)
    assert same.n == 100
    assert same.low <= same.value <= same.high


def test_nothing_to_compare():
    assert np.isnan(auroc([], [1.0]).value)
    assert np.isnan(caught([1.0], [], 0.01).value)


def test_the_threshold_lets_through_what_it_should():
    negative = np.arange(1000.0)
    assert (negative > threshold_at(negative, 0.01)).sum() <= 10
    assert (negative > threshold_at(negative, 0.01)).sum() >= 8
    assert threshold_at(negative[:20], 0.01) == 19  # too few: the highest of all


def test_what_is_caught():
    got = caught([998.5, 5.0, 2000.0, 3000.0], np.arange(1000.0), 0.01)
    assert got.value == 0.75
    assert got.low < 0.75 < got.high


def test_log_odds_that_say_what_is():
    draw = np.random.default_rng(0)
    z = draw.normal(size=4000).astype(np.float32) * 2
    truth = draw.random(4000) < 1 / (1 + np.exp(-z))
    ones, texts = np.ones(4000), (np.arange(4000) // 20).tolist()
    good = calibration_error(z, truth, ones, texts)
    bad = calibration_error(z * 4, truth, ones, texts)
    assert good.value < 0.03 < 0.1 < bad.value
    assert good.n == 200


def test_false_alarms_are_never_known_to_be_none():
    none = per_10k([0, 0], [100, 200])
    assert none.value == 0
    assert none.high == 1e4  # the rule of three, by texts: two show nothing
    assert per_10k([1, 2], [100, 200]).value == pytest.approx(100)


def test_a_lead_is_of_pairs_and_nothing_over_oneself():
    random = np.random.default_rng(1)
    high, low = random.normal(1, 1, 40), random.normal(0, 1, 200)
    alike = auroc_lead(high, low, high, low)
    assert alike.value == 0 and -0.1 < alike.low < 0 < alike.high < 0.1  # of 40 texts
    far = auroc_lead([2.0] * 5, [1.0] * 20, [1.0] * 5, [2.0] * 20)
    assert far.value == far.high == 1 and 0.5 < far.low < 1
    worse = [x + random.normal(0, 3, len(x)) for x in (high, low)]
    found = auroc_lead(high, low, *worse)
    assert found.value == pytest.approx(auroc(high, low).value - auroc(*worse).value)
    assert 0 < found.low < found.value < found.high < 0.5
    turned = auroc_lead(*worse, high, low)
    assert turned.value == pytest.approx(-found.value) and turned.high < 0
