"""The streaming choice among firings agrees with a choice made one by one."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainscan.features import masses
from brainscan.features.code_log import CodeLog
from brainscan.features.firings import Best, Firings, lottery, ranks
from brainscan.features.masses import Masses

LATENTS = 7


def firings(seed: int, size: int, values: int = 50) -> Firings:
    rng = np.random.default_rng(seed)
    pairs = np.sort(rng.choice(200 * LATENTS, size, replace=False))
    place = pairs // LATENTS
    value = rng.integers(1, values, size).astype(np.float32)
    return Firings(pairs % LATENTS, value, place, place // 10)


def batches(all_of_them: Firings, size: int):
    for start in range(0, len(all_of_them.latent), size):
        yield all_of_them.take(np.arange(start, min(start + size, len(all_of_them.latent))))


def one_by_one(entries: Firings, scores, limit: int, once: bool):
    chosen = []
    for latent in range(LATENTS):
        rows = [i for i in range(len(scores)) if entries.latent[i] == latent]
        rows.sort(key=lambda i: (-scores[i], entries.place[i]))
        documents: set[int] = set()
        kept = []
        for i in rows:
            if once and int(entries.document[i]) in documents:
                continue
            documents.add(int(entries.document[i]))
            kept.append((latent, int(entries.place[i])))
        chosen += kept[:limit]
    return chosen


@given(
    st.integers(0, 1000), st.integers(0, 400), st.integers(1, 60), st.integers(1, 6), st.booleans()
)
@settings(max_examples=60)
def test_best_is_what_sorting_gives_whatever_the_batches(seed, size, batch, limit, once):
    entries = firings(seed, size)
    scores = entries.value.astype(np.float64)
    with patch("brainscan.features.firings._FEW", 20):
        best = Best(LATENTS, limit, once_per_document=once)
        for part in batches(entries, batch):
            best.add(part, part.value.astype(np.float64))
        kept = best.firings()
    found = list(zip(kept.latent.tolist(), kept.place.tolist(), strict=True))
    assert found == one_by_one(entries, scores, limit, once)


def test_the_lottery_is_fair_seeded_and_blind_to_batches():
    entries = firings(3, 1000)
    numbers = lottery(entries, LATENTS, 0)
    assert np.array_equal(numbers, lottery(entries, LATENTS, 0))
    assert not np.array_equal(numbers, lottery(entries, LATENTS, 1))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.04
    assert abs(np.corrcoef(numbers, entries.place)[0, 1]) < 0.1


def test_ranks_count_within_groups():
    assert ranks(np.array([2, 2, 5, 7, 7, 7])).tolist() == [0, 1, 0, 0, 1, 2]
    assert ranks(np.zeros(0, np.int64)).tolist() == []


def test_masses_add_up_whatever_the_batches():
    entries = firings(5, 900)
    sums = Masses()
    for part in batches(entries, 77):
        sums.add(part.latent, part.place % 13, part.value)
    found = sums.sums()
    assert found.mass.sum() == pytest.approx(entries.value.sum())
    assert found.times.sum() == 900
    here = (entries.latent == 3) & (entries.place % 13 == 4)
    place = np.flatnonzero((found.latent == 3) & (found.key == 4))
    assert found.mass[place].tolist() == [entries.value[here].sum()]
    assert found.times[place].tolist() == [here.sum()]
    heaviest = found.heaviest(2)
    assert (np.bincount(heaviest.latent) <= 2).all()
    assert heaviest.mass[heaviest.latent == 3][0] == found.mass[found.latent == 3].max()


def test_beyond_the_limit_only_light_pairs_are_lost(monkeypatch):
    monkeypatch.setattr(masses, "LIMIT", 40)
    monkeypatch.setattr(masses, "HELD", 3)
    sums = Masses()
    for part in batches(firings(6, 900), 50):
        sums.add(part.latent, part.place, part.value)
        sums.add(np.array([0]), np.array([77777]), np.array([500.0], np.float32))
    found = sums.sums()
    assert found.key[0] == 77777
    assert found.mass[0] == 18 * 500


@given(st.integers(0, 100), st.integers(1, 300))
@settings(max_examples=20)
def test_the_log_gives_back_every_firing(tmp_path_factory, seed, batch):
    log = CodeLog(tmp_path_factory.mktemp("log") / "code", LATENTS)
    entries = firings(seed, 400)
    for part in batches(entries, batch):
        log.append(part, int(part.place[0]))
    dense = np.zeros((200, LATENTS), np.float32)
    whole = firings(seed, 400)
    dense[whole.place, whole.latent] = whole.value
    places, latents = np.divmod(np.arange(200 * LATENTS), LATENTS)
    if batch >= 400:
        assert np.array_equal(log.at(latents, places), dense.flatten())
    held = log.at(entries.latent, entries.place)
    starts = {int(part.place[0]) for part in batches(entries, batch)}
    inner = ~np.isin(entries.place, list(starts))
    assert np.array_equal(held[inner], entries.value[inner])
