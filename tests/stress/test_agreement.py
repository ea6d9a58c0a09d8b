"""Figures from labels: by hand where they can be, and by what their intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brainscan.stress.agreement import between_people, figures
from brainscan.stress.draws import allocation


def one_persona_each(rows):
    """[persona, stratum] of which every persona has an equal share."""
    return np.repeat(np.array(rows, dtype=float)[None], 10, axis=0)


def test_figures_count_each_stratum_by_its_size():
    # 100 judged harmful, of whom people confirm 8 of 10; 900 others with 2 of 20 missed.
    sizes = one_persona_each([10, 40, 50])
    harmful, harmless = np.zeros((10, 3)), np.zeros((10, 3))
    harmful[:8, 0], harmless[8:, 0] = 1, 1
    harmful[:2, 1], harmless[2:, 1] = 1, 1
    harmless[:, 2] = 1
    found = figures(sizes, harmful, harmless)
    hit, alarm, miss, calm = 80.0, 20.0, 80.0, 820.0
    assert found.judged.value == pytest.approx(0.1)
    assert found.sensitivity.value == pytest.approx(hit / (hit + miss))
    assert found.specificity.value == pytest.approx(calm / (calm + alarm))
    assert found.corrected.value == pytest.approx((hit + miss) / 1000)
    agree, chance = 0.9, 0.1 * 0.16 + 0.9 * 0.84
    assert found.kappa.value == pytest.approx((agree - chance) / (1 - chance))
    assert (found.kappa.n, found.sensitivity.n, found.specificity.n) == (30, 10, 20)
    for figure in found:
        assert figure.low <= figure.value <= figure.high
    assert found.problem == ""


def test_where_all_agree_the_interval_still_has_a_width():
    sizes, seen = one_persona_each([5, 0, 5]), one_persona_each([1, 0, 0])
    found = figures(sizes, seen, one_persona_each([0, 0, 1]))
    assert found.sensitivity.value == found.kappa.value == 1.0
    assert 0.5 < found.sensitivity.low < 0.95 and 0.3 < found.kappa.low < 0.95


@pytest.mark.parametrize(
    ("harmful", "harmless", "problem"),
    [
        ([1, 2, 1], [4, 2, 1], "not above 1"),
        ([0, 0, 0], [2, 2, 2], "none of the labelled answers harmful"),
        ([2, 2, 2], [0, 0, 0], "none of the labelled answers harmless"),
        ([0, 0, 0], [0, 0, 0], "no answer with a verdict"),
    ],
)
def test_a_rate_that_cannot_be_corrected(harmful, harmless, problem):
    sizes = one_persona_each([10, 10, 10])
    found = figures(sizes, one_persona_each(harmful), one_persona_each(harmless))
    assert problem in found.problem and math.isnan(found.corrected.value)
    assert (found.corrected.low, found.corrected.high) == (0.0, 1.0)


def test_a_stratum_that_nobody_could_label_leaves_figures_unknown():
    sizes = one_persona_each([10, 10, 10])
    found = figures(sizes, one_persona_each([1, 0, 0]), one_persona_each([1, 0, 1]))
    assert math.isnan(found.sensitivity.value) and found.problem


def test_two_people():
    sizes, pairs = one_persona_each([5, 5]), np.zeros((10, 2, 2, 2))
    pairs[:, 0, 0, 0], pairs[:, 1, 1, 1] = 1, 1
    same = between_people(sizes, pairs)
    assert same.value == 1.0 and same.n == 20 and same.low < 0.95
    pairs[:5, 0, 0] = [0, 1]
    assert between_people(sizes, pairs).value == pytest.approx(0.5)


TRUE = (0.7, 0.97, 0.2)
"""Sensitivity, specificity and rate of the world below."""


def world(random, personas=18, conditions=24):
    """A run whose judge misses 30% and alarms in 3%, and of which 60 answers are labelled."""
    truth = random.random((personas, conditions)) < 0.2
    judged = np.where(truth, random.random(truth.shape) < 0.7, random.random(truth.shape) < 0.03)
    noticed = random.random(truth.shape) < np.where(truth, 0.9, 0.3)
    stratum = np.where(judged, 0, np.where(noticed, 1, 2)).ravel()
    persona, truth = np.repeat(np.arange(personas), conditions), truth.ravel()
    sizes, yes, no = np.zeros((3, personas, 3))
    np.add.at(sizes, (persona, stratum), 1)
    shares = allocation({str(n): int((stratum == n).sum()) for n in range(3)}, 60)
    for n, share in enumerate(shares.values()):
        for row in random.choice(np.flatnonzero(stratum == n), share, replace=False):
            (yes if truth[row] else no)[persona[row], n] += 1
    return sizes, yes, no


def test_intervals_cover_what_is_true(monkeypatch):
    monkeypatch.setattr("brainscan.stress.agreement.RESAMPLES", 200)
    random = np.random.default_rng(3)
    covered, widths, runs = np.zeros(3), [], 60
    for _ in range(runs):
        found = figures(*world(random))
        kept = (found.sensitivity, found.specificity, found.corrected)
        covered += [one.low <= true <= one.high for one, true in zip(kept, TRUE, strict=True)]
        widths.append(found.corrected.high - found.corrected.low)
    assert (covered / runs >= 0.9).all()
    assert np.mean(widths) < 0.3


def test_strata_give_alike_as_long_as_they_have_any():
    sizes = {"harmful": 3, "noticed": 100, "other": 500, "unscored": 0}
    assert allocation(sizes, 43) == {"harmful": 3, "noticed": 20, "other": 20, "unscored": 0}
    assert allocation(sizes, 9999) == sizes
