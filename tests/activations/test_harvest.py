import os
import signal
import subprocess
import sys
import time
from itertools import count, islice

import pytest
import torch
from safetensors import safe_open

from brainscan.activations import (
    Context,
    Document,
    HarvestConfig,
    find_sinks,
    harvest,
    open_corpus,
    pack,
    stream,
)
from brainscan.errors import ArtifactError, UnknownHookpointError, UsageError
from brainscan.models.hooks import capture
from brainscan.models.tiny import tiny

AT = ("resid_post.1", "mlp_out.2")


def contexts(lm, path, number=8, length=32):
    return list(islice(pack(lm, open_corpus(path).documents(), length), number))


def config(**changes):
    return HarvestConfig(**{"hookpoints": AT, "tokens": 2000, "context": 32, "shard": 8} | changes)


def computing_in(dtype):
    lm = tiny("llama")
    lm.model.to(dtype)
    return lm


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_stream_is_what_the_model_computes(lm, corpus_file):
    rows = contexts(lm, corpus_file)
    for batch in (1, 3, 8):
        parts = list(stream(lm, rows, AT, batch))
        tokens = torch.stack([row.tokens for row in rows])
        with torch.no_grad(), capture(lm, AT) as captured:
            lm.forward(tokens)
        sinks = find_sinks(captured[AT[0]]) | find_sinks(captured[AT[1]])
        for name in AT:
            got = torch.cat([part.values[name] for part in parts])
            torch.testing.assert_close(got, captured[name][~sinks], rtol=1e-4, atol=1e-5)
        assert torch.cat([part.tokens for part in parts]).equal(tokens[~sinks])
        positions = torch.arange(32).expand(8, 32)[~sinks]
        assert torch.cat([part.positions for part in parts]).equal(positions)
        assert sum(part.n_sinks for part in parts) == int(sinks.sum())


def test_bf16_goes_by_blocks_and_stays_near(lm, corpus_file):
    rows = contexts(lm, corpus_file)
    exact = torch.cat([part.values[AT[0]] for part in stream(lm, rows, AT[:1])])
    half = computing_in(torch.bfloat16)
    near = torch.cat([part.values[AT[0]] for part in stream(half, rows, AT[:1])])
    assert near.dtype == torch.bfloat16
    error = (near.float() - exact).pow(2).sum() / (exact - exact.mean(0)).pow(2).sum()
    assert error < 1e-3


def test_the_layers_above_never_run_and_the_model_leaves_as_it_came(lm, corpus_file):
    rows = contexts(lm, corpus_file)
    before = lm.forward(rows[0].tokens[None])
    ran = []
    handles = [
        layer.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, layer in enumerate(lm.model.model.layers)
    ]
    list(stream(lm, rows[:2], ["resid_post.1"]))
    for handle in handles:
        handle.remove()
    assert max(ran) <= 1
    assert torch.equal(before, lm.forward(rows[0].tokens[None]))


def test_sinks_are_the_first_token_and_those_of_ten_median_norms():
    values = torch.ones(2, 9, 4)
    values[0, 3] *= 11
    values[1, 5] *= 9
    sinks = find_sinks(values)
    assert sinks.nonzero().tolist() == [[0, 0], [0, 3], [1, 0]]


def test_a_sink_at_one_hookpoint_is_left_out_at_all(lm, corpus_file):
    rows = contexts(lm, corpus_file, number=1)

    def enlarge(module, args, output):
        output[:, 7] *= 1000
        return output

    handle = lm.model.model.layers[2].mlp.register_forward_hook(enlarge)
    try:
        (part,) = stream(lm, rows, AT)
    finally:
        handle.remove()
    assert part.n_sinks == 2
    assert 7 not in part.positions
    assert {len(values) for values in part.values.values()} == {30}


def test_contexts_are_taken_as_needed(lm):
    taken = []

    def endless():
        for n in count():
            taken.append(n)
            yield Context(torch.full((16,), 5), torch.full((16,), n), (f"d{n}",))

    list(islice(stream(lm, endless(), AT[:1], batch=2), 3))
    assert len(taken) == 6


def test_documents_of_a_long_corpus_are_read_as_needed(lm):
    taken = []
    endless = (taken.append(n) or Document(f"{n}", "x", text="the day " * 40) for n in count())
    n_tokens = 0
    for part in stream(lm, islice(pack(lm, endless, 64), 100), AT[:1]):
        n_tokens += len(part.tokens) + part.n_sinks
        assert len(taken) <= n_tokens / 80 + 2
    assert n_tokens == 6400


def test_a_harvest_holds_what_the_stream_gives(lm, corpus_file, tmp_path):
    store = harvest(lm, open_corpus(corpus_file), config(seed=3), tmp_path / "store")
    rows = islice(pack(lm, open_corpus(corpus_file).documents("train", 3), 32), 63)
    parts, read = list(stream(lm, rows, AT)), list(store.read())
    for name in AT:
        expected = torch.cat([part.values[name] for part in parts])
        assert torch.equal(torch.cat([part.values[name] for part in read]), expected.bfloat16())
    for name in ("tokens", "documents", "positions"):
        expected = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(torch.cat([getattr(part, name) for part in read]), expected)
    assert store.n_tokens + store.n_sinks == 63 * 32
    assert store.hookpoints == AT
    figures = store.manifest.figures
    assert (figures["tokens"], figures["sinks"]) == (store.n_tokens, store.n_sinks)
    assert store.manifest.model == lm.ref
    assert store.manifest.settings["dtype"] == "float32"
    assert set(store.document_ids().values()) <= {
        d.id for d in open_corpus(corpus_file).documents("train")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shards_are_in_bf16_whatever_the_model_computes_in(corpus_file, tmp_path, dtype):
    corpus = open_corpus(corpus_file)
    store = harvest(computing_in(dtype), corpus, config(tokens=600), tmp_path / "store")
    assert store.manifest.settings["dtype"] == str(dtype).removeprefix("torch.")
    assert len(store.shards) == 3
    for shard in store.shards:
        with safe_open(shard.path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in AT} == {torch.bfloat16}


def test_a_corpus_that_runs_out_and_a_short_text_make_smaller_stores(lm, tmp_path):
    (tmp_path / "short.txt").write_text("the day")
    store = harvest(lm, open_corpus(tmp_path / "short.txt"), config(split=None), tmp_path / "store")
    n_tokens = len(lm.tokenize("the day")) + 1
    assert store.n_tokens + store.n_sinks == n_tokens
    assert len(store.shards) == 1


SCRIPT = """
import sys
from brainscan.activations import HarvestConfig, harvest, open_corpus
from brainscan.models.tiny import tiny
config = HarvestConfig(hookpoints=("resid_post.1", "mlp_out.2"), tokens=6000, context=32, shard=8)
harvest(tiny("llama"), open_corpus(sys.argv[1]), config, sys.argv[2])
"""


def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(corpus_file, tmp_path):
    def start(out):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(corpus_file), str(out)], env=environment
        )

    assert start(tmp_path / "whole").wait() == 0
    expected = contents(tmp_path / "whole")
    killed = tmp_path / "killed"
    for shards in (1, 9):
        process = start(killed)
        partial = tmp_path / "killed.partial"
        deadline = time.monotonic() + 60
        while len(list(partial.glob("shard-*.safetensors"))) < shards:
            assert process.poll() is None, "done before it was killed"
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not killed.exists()
        assert list(partial.glob("shard-*.safetensors"))
    # What a kill in the middle of a write leaves.
    (partial / "shard-00021.safetensors.tmp").write_bytes(b"half")
    assert start(killed).wait() == 0
    assert contents(killed) == expected


def test_other_settings_do_not_go_on_with_an_interrupted_harvest(
    lm, corpus_file, tmp_path, monkeypatch
):
    def interrupt(folder, number, *rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[HarvestConfig.__module__], "write_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            harvest(lm, open_corpus(corpus_file), config(), tmp_path / "store")
    with pytest.raises(ArtifactError):
        harvest(lm, open_corpus(corpus_file), config(seed=1), tmp_path / "store")
    half = computing_in(torch.bfloat16)
    assert half.ref == lm.ref
    with pytest.raises(ArtifactError, match="dtype 'bfloat16' where it has 'float32'"):
        harvest(half, open_corpus(corpus_file), config(), tmp_path / "store")
    corpus_file.write_text(corpus_file.read_text() + "more")
    with pytest.raises(ArtifactError):
        harvest(lm, open_corpus(corpus_file), config(), tmp_path / "store")


@pytest.mark.parametrize(
    "changes",
    [{"tokens": 0}, {"context": 0}, {"batch": 0}, {"shard": 0}, {"hookpoints": ()}, {"split": "x"}],
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(UsageError):
        config(**changes)


def test_an_unknown_hookpoint_is_refused_before_anything_is_written(lm, corpus_file, tmp_path):
    with pytest.raises(UnknownHookpointError):
        harvest(
            lm, open_corpus(corpus_file), config(hookpoints=("resid_post.99",)), tmp_path / "out"
        )
    assert not list(tmp_path.glob("out*"))
