"""Aggregates, standardising and calibration, token by token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.testing import random_dictionary
from brainscan.monitoring.choosing import aggregated, text_scores
from brainscan.monitoring.scores import (
    AGGREGATES,
    BEFORE,
    HALF_LIFE,
    JOINT,
    WINDOW,
    Aggregator,
    Follower,
)


def raw(n=30, seed=0, columns=3):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def test_a_score_halves_its_weight_in_a_half_life():
    aggregator = Aggregator(["ema"])
    first = aggregator.step(np.array([8.0], np.float32))
    for _ in range(int(HALF_LIFE)):
        last = aggregator.step(np.array([0.0], np.float32))
    assert first[0] == 8
    assert last[0] == pytest.approx(4, rel=1e-5)


def test_a_window_forgets_what_left_it():
    aggregator = Aggregator(["window"])
    aggregator.step(np.array([50.0], np.float32))
    values = [aggregator.step(np.array([1.0], np.float32))[0] for _ in range(WINDOW)]
    assert values[-2] > 40
    assert values[-1] == pytest.approx(1)


def test_a_mean_begins_at_what_is_usual_and_holds_all_tokens_so_far():
    aggregator = Aggregator(["mean"])
    values = [aggregator.step(np.array([3.0], np.float32))[0] for _ in range(1000)]
    assert values[0] == pytest.approx(3 / (1 + BEFORE))
    assert values[-1] == pytest.approx(3, rel=0.01)
    aggregator.restart()
    assert aggregator.step(np.array([3.0], np.float32))[0] == pytest.approx(values[0])


def test_kinds_do_not_mix():
    x = raw(columns=len(AGGREGATES))
    mixed = Aggregator(list(AGGREGATES))
    together = np.stack([mixed.step(row) for row in x])
    for column, kind in enumerate(AGGREGATES):
        alone = Aggregator([kind])
        own = np.stack([alone.step(row[column : column + 1]) for row in x])[:, 0]
        np.testing.assert_allclose(together[:, column], own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", AGGREGATES)
def test_texts_of_a_corpus_are_aggregated_as_messages_are(kind):
    x = raw(25)
    owners = torch.tensor([4] * 9 + [7] * 16)
    got = aggregated(torch.tensor(x), owners, kind)
    for part in (slice(0, 9), slice(9, 25)):
        aggregator = Aggregator([kind] * 3)
        np.testing.assert_allclose(
            got[part], np.stack([aggregator.step(row) for row in x[part]]), rtol=1e-5
        )
    assert np.isnan(text_scores(got, owners, 9)[5]).all()


def test_a_message_begins_anew_and_the_template_has_no_score(detectors):
    follower = Follower(detectors)
    x = raw(3)
    first = follower.step(x[0], "user", 0)
    assert np.isnan(follower.step(x[1], "", -1)).all()
    again = follower.step(x[0], "user", 1)
    np.testing.assert_array_equal(first, again)
    # (raw - mean) / spread, then slope and intercept
    assert first[0] == pytest.approx((x[0, 0] - 0.5) / 2 * 1.5 - 0.5, rel=1e-5)


def test_each_role_is_standardised_on_neutral_text_of_its_own(detectors):
    neutral = {"user": (0.5, 2.0), "assistant": (1.0, 4.0), "tool": (-1.0, 0.5)}
    each = tuple(replace(one, neutral=neutral) for one in detectors.each)
    follower, x = Follower(replace(detectors, each=each)), raw(1)[0]
    for message, (role, (mean, spread)) in enumerate(neutral.items()):
        z = follower.step(x, role, message)
        assert z[0] == pytest.approx((x[0] - mean) / spread * 1.5 - 0.5, rel=1e-5)


def test_another_role_counts_as_the_users(detectors):
    a, b = Follower(detectors), Follower(detectors)
    np.testing.assert_array_equal(a.step(raw()[0], "system"), b.step(raw()[0], "user"))


def test_sparse_and_dense_detectors_keep_their_order(lm, detectors, tmp_path):
    random_dictionary(lm.d_model, n_latents=48, k=4, hookpoint="resid_post.1").save(tmp_path / "d")
    dictionary = Dictionary.load(tmp_path / "d")
    sparse = replace(
        detectors.each[1], method="latents", latents=(3, 7), weights=(2.0, -1.0), bias=0.25
    )
    mixed = replace(
        detectors,
        each=(detectors.each[0], sparse, detectors.each[2]),
        dictionaries={"resid_post.1": str(tmp_path / "d")},
    )
    x = {name: torch.randn(5, lm.d_model) for name in mixed.hookpoints}
    got, plain = mixed.raw(x), detectors.raw(x)
    np.testing.assert_allclose(got[:, [0, 2]], plain[:, [0, 2]], rtol=1e-5)
    latents = dictionary.activations_of(x["resid_post.1"], [3, 7])
    np.testing.assert_allclose(
        got[:, 1], (2 * latents[:, 0] - latents[:, 1] + 0.25).numpy(), atol=1e-5
    )


def test_a_joint_detector_reads_several_hookpoints(detectors):
    one, two, three = detectors.each  # at layers 2, 1, 2
    both = replace(
        one,
        concept="both",
        hookpoint=JOINT.join((two.hookpoint, one.hookpoint)),
        weights=(*two.weights, *one.weights),
        bias=two.bias + one.bias,
    )
    found = replace(detectors, each=(three, both, two, one), rule=None)
    assert found.hookpoints == ("resid_post.2", "resid_post.1")
    draw = torch.Generator().manual_seed(0)
    x = {name: torch.randn(5, len(one.weights), generator=draw) for name in found.hookpoints}
    raw = found.raw(x)
    np.testing.assert_allclose(raw[:, 1], raw[:, 2] + raw[:, 3], rtol=1e-4, atol=1e-4)
