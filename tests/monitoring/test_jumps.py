"""The statistics of jumps, on scores made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brainscan.errors import UsageError
from brainscan.monitoring.jumps import STATISTICS, JumpRule, Jumps, asked_for

RULE = JumpRule("cusum", 4.0, (0.0, 1.0), (1.0, 1.0), danger=(1,), kappa=0.5, clip=2.0)
NAMES = ("calm", "danger")


def run(asked, answer, rule=RULE):
    jumps = Jumps(rule, NAMES)
    for z in asked:
        assert np.isnan(jumps.step(np.array([9, z], np.float32), "user", 0))
    assert np.isnan(jumps.step(np.array([9, 9], np.float32), "", -1))
    track = [jumps.step(np.array([9, z], np.float32), "assistant", 1) for z in answer]
    return track, jumps


def test_the_sum_is_pages():
    answer = [3.0, 9.0, -7.0, 0.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    track, jumps = run([-1.0] * 5, answer)
    s, want = 0.0, []
    for z in answer:  # what is usual is 1, and less was asked for
        s = max(0.0, s + float(np.clip(z - 1, -2, 2)) - 0.5)
        want.append(s)
    np.testing.assert_allclose(track, want, rtol=1e-6)
    (alarm,) = jumps.alarms
    first = next(n for n, value in enumerate(want) if value > 4)
    assert alarm.token == 6 + first  # five tokens of the user and one of the template before
    assert alarm.concept == "danger"
    assert alarm.score == pytest.approx(want[first])
    zeros = [n for n in range(first) if want[n] == 0]
    assert alarm.onset == 6 + max(zeros) + 1


def test_danger_that_was_asked_about_is_no_jump():
    calm, loud = run([-1.0] * 20, [5.0] * 9), run([6.0] * 20, [5.0] * 9)
    assert calm[1].alarms
    assert not loud[1].alarms


def test_scores_count_in_units_of_their_spread():
    wide = replace(RULE, usual=(0.0, 10.0), spread=(1.0, 10.0))
    answer = [3.0, 9.0, -7.0, 0.0, 2.0]
    far = run([-10.0] * 5, [10 * z for z in answer], wide)
    np.testing.assert_allclose(far[0], run([-1.0] * 5, answer)[0], rtol=1e-6)


def test_what_was_asked_for_is_told_by_message_and_danger():
    loud, calm, none = (np.array([9, z], np.float32) for z in (6, -3, np.nan))
    z = [none, *[calm] * 500, *[loud] * 10, *[9 * loud] * 5]
    roles = ["", *["user"] * 510, *["assistant"] * 5]
    messages = [-1, *[0] * 500, *[1] * 10, *[2] * 5]
    assert asked_for(RULE, NAMES, z, roles, messages) == {"danger": pytest.approx(6)}
    assert asked_for(RULE, NAMES, z[-5:], roles[-5:], messages[-5:]) == {}


def test_what_a_tool_returns_was_not_asked_for_and_a_long_talk_hides_no_request():
    loud, calm = np.array([0, 6], np.float32), np.array([0, -3], np.float32)
    jumps = Jumps(RULE, NAMES)
    for _ in range(30):
        jumps.step(loud, "tool", 0)
    for _ in range(9):
        jumps.step(loud, "assistant", 1)
    assert jumps.alarms
    jumps = Jumps(RULE, NAMES)
    for _ in range(500):
        jumps.step(calm, "user", 0)
    for _ in range(10):
        jumps.step(loud, "user", 1)
    for _ in range(20):
        jumps.step(loud, "assistant", 2)
    assert not jumps.alarms


def test_each_danger_raises_its_own_alarm():
    jumps = Jumps(replace(RULE, danger=(0, 1)), NAMES)
    for _ in range(12):
        jumps.step(np.array([8, 9], np.float32), "assistant", 0)
    assert sorted(alarm.concept for alarm in jumps.alarms) == ["calm", "danger"]


def test_only_dangers_raise_alarms():
    jumps = Jumps(RULE, NAMES)
    for _ in range(30):
        jumps.step(np.array([9, -5], np.float32), "assistant", 0)
    assert not jumps.alarms


def test_an_answer_begins_at_zero_and_each_raises_its_own_alarm():
    jumps = Jumps(RULE, NAMES)
    loud = np.array([0, 9], np.float32)
    for _ in range(10):
        jumps.step(loud, "assistant", 0)
    assert len(jumps.alarms) == 1
    jumps.step(np.array([0, -9], np.float32), "user", 1)
    assert jumps.step(loud, "assistant", 2) == pytest.approx(1.5)
    for _ in range(10):
        jumps.step(loud, "assistant", 2)
    assert len(jumps.alarms) == 2


@pytest.mark.parametrize(
    ("statistic", "want"),
    [
        ("token", [1.0, 3.0, -1.0]),
        ("excess", [0.0, 2.0, -2.0]),
        ("mean", [1.0, 2.0, 1.0]),
        ("ema", [1.0, 1.4, 0.92]),
        ("difference", [0.0, 1.0, 0.0]),
    ],
)
def test_the_simpler_statistics(statistic, want):
    track, _ = run([2.0, 2.0], [2.0, 4.0, 0.0], replace(RULE, statistic=statistic))
    np.testing.assert_allclose(track, want, rtol=1e-5)


def test_the_statistics_are_all_tried_here():
    assert set(STATISTICS) == {"cusum", "token", "excess", "mean", "ema", "difference"}


def test_a_rule_for_no_danger():
    with pytest.raises(UsageError, match="danger"):
        replace(RULE, danger=())
