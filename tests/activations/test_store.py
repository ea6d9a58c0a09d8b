import pytest
import torch

from brainscan.activations import ActivationStore, HarvestConfig, harvest, open_corpus
from brainscan.errors import ArtifactError, UsageError

AT = "resid_post.1"


@pytest.fixture
def folder(lm, corpus_file, tmp_path, monkeypatch):
    monkeypatch.setattr("brainscan.activations.store.RUN", 16)
    monkeypatch.setattr("brainscan.activations.store.WINDOW", 8)
    config = HarvestConfig(hookpoints=(AT,), tokens=3000, context=32, shard=8)
    harvest(lm, open_corpus(corpus_file), config, tmp_path / "store")
    return tmp_path / "store"


def ordered(rows):
    return sorted(map(tuple, rows.tolist()))


def test_batches_are_all_rows_once_in_the_seed_s_order(folder):
    store = ActivationStore.open(folder)
    first = list(store.batches(AT, 100, seed=0))
    rows = torch.cat(first)
    stored = torch.cat([part.values[AT] for part in store.read()])
    assert all(len(batch) == 100 for batch in first)
    assert len(rows) == store.n_tokens // 100 * 100
    left_over = len(stored) - len(rows)
    whole = ordered(stored)
    got = ordered(rows)
    assert len(set(whole) - set(got)) <= left_over
    assert set(got) <= set(whole)
    assert torch.equal(torch.cat(list(store.batches(AT, 100, seed=0))), rows)
    assert not torch.equal(torch.cat(list(store.batches(AT, 100, seed=1))), rows)


def test_the_shuffle_reaches_across_the_store(folder):
    store = ActivationStore.open(folder)
    stored = torch.cat([part.values[AT] for part in store.read()])
    place = {tuple(row): n for n, row in enumerate(stored.tolist())}
    batch = next(iter(store.batches(AT, 128, seed=0)))
    places = [place[tuple(row)] for row in batch.tolist()]
    assert max(places) - min(places) > len(stored) / 2


@pytest.mark.parametrize("start", [0, 1, 5, 11])
def test_reading_starts_at_any_batch(folder, start):
    store = ActivationStore.open(folder)
    whole = list(store.batches(AT, 70, seed=4))
    rest = list(store.batches(AT, 70, seed=4, start=start))
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_an_altered_shard_is_named(folder):
    shard = sorted(folder.glob("shard-*"))[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ArtifactError, match=shard.name):
        ActivationStore.open(folder)


def test_what_is_not_there_is_refused(folder):
    store = ActivationStore.open(folder)
    with pytest.raises(UsageError, match=AT):
        next(store.batches("resid_post.2", 10, seed=0))
    with pytest.raises(UsageError, match="smaller batches"):
        next(store.batches(AT, 10**6, seed=0))
