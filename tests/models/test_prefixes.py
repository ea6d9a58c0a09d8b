"""Prompts held once: the same answers as without, whatever was held before and runs beside."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainscan.models import prefixes
from brainscan.models.generate import Sampling, generate
from brainscan.models.prefixes import (
    PASS,
    Prompt,
    PromptStore,
    may_share,
    passes,
    shared_passes,
)
from brainscan.models.tiny import FAMILIES, tiny

SHARING = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "olmo2", "phi3")


def prompt(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 250, (length,), generator=generator).tolist()


@given(st.integers(1, 5000))
def test_passes_follow_from_the_length_alone(length):
    edges = passes(length)
    sizes = [b - a for a, b in pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == length
    assert all(size == PASS for size in sizes[:-1])
    assert sizes[-1] < 2 * PASS and (len(sizes) == 1 or sizes[-1] >= PASS)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 3000))
def test_what_two_prompts_share_is_cut_alike_in_both(long, short, common):
    common = min(common, long, short)
    a = [1] * common + [2] * (long - common)
    b = [1] * common + [3] * (short - common)
    edge = shared_passes(a, b)
    assert edge == shared_passes(b, a) <= common
    assert edge in passes(long)[:-1] and edge in passes(short)[:-1]
    if common >= 2 * PASS:
        assert edge >= common - 2 * PASS


def test_which_families_share():
    assert {family for family in FAMILIES if may_share(tiny(family))} >= set(SHARING)
    for family in ("gemma2", "gemma3_text", "gpt_oss", "qwen3_next"):
        assert not may_share(tiny(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_and_unshared_agree(family, monkeypatch):
    lm = tiny(family)
    prompts = [prompt(30), prompt(12, 1), prompt(30), prompt(30), prompt(12, 1), prompt(7, 2)]
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    shared = generate(lm, prompts, sampling, logprobs=True)
    monkeypatch.setattr("brainscan.models.generate.may_share", lambda lm: False)
    plain = generate(lm, prompts, sampling, logprobs=True)
    assert [one.tokens for one in shared] == [one.tokens for one in plain]
    for ours, theirs in zip(shared, plain, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_a_held_prompt_changes_nothing_to_the_bit(monkeypatch):
    monkeypatch.setattr(prefixes, "PASS", 16)
    lm = tiny("llama")
    long, branch = prompt(80), prompt(80)[:60] + prompt(9, 1)
    sampling = Sampling(max_new_tokens=8, temperature=1.0)
    fresh = generate(lm, [branch], sampling, logprobs=True, store=PromptStore())
    assert fresh[0].cached == 0
    store = PromptStore()
    first = generate(lm, [long], sampling, store=store)
    after = generate(lm, [branch], sampling, logprobs=True, store=store)
    assert after[0].cached == 48
    assert after == fresh
    again = generate(lm, [long], sampling, store=store)
    assert again[0].cached == len(long)
    assert again == first


def test_edits_hold_prompts_of_their_own(at):
    lm = tiny("llama")
    push = at("resid_post.1", lambda x, site: x + 3 * site.is_prompt[..., None])
    tokens, sampling = prompt(20), Sampling(max_new_tokens=8)
    edits = [[], [push], [push], []]
    rows = generate(lm, [tokens] * 4, sampling, edits=edits, logprobs=True)
    assert [row.cached for row in rows] == [0, 0, 20, 20]
    assert rows[0] == rows[3] and rows[1] == rows[2] and rows[0] != rows[1]
    for row, own in zip(rows[:2], edits[:2], strict=True):
        alone = generate(lm, [tokens], sampling, edits=own, logprobs=True)[0]
        assert row.tokens == alone.tokens
        assert row.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_the_store_lets_go_of_what_was_used_longest_ago():
    lm = tiny("llama")
    store = PromptStore()
    size = store.run(lm, Prompt(tuple(prompt(20)))).size
    store.limit = int(2.5 * size)
    for seed in (1, 0, 2):
        store.run(lm, Prompt(tuple(prompt(20, seed))))
    assert [key[0] for key in store.states] == [tuple(prompt(20, seed)) for seed in (0, 2)]
    store.limit = 1
    store.run(lm, Prompt(tuple(prompt(20, 3))))
    assert len(store.states) == 1


def test_a_full_store_runs_no_prompt_of_a_call_twice(monkeypatch):
    lm, run = tiny("llama"), []
    real = prefixes._run
    monkeypatch.setattr(prefixes, "_run", lambda lm, *rest: run.append(1) or real(lm, *rest))
    prompts = [prompt(20, seed) for seed in (0, 1, 2, 0, 1, 2)]
    rows = generate(lm, prompts, Sampling(max_new_tokens=3), store=PromptStore(limit=1))
    assert len(run) == 3
    assert [row.cached for row in rows] == [0, 0, 0, 20, 20, 20]


def test_the_model_attends_as_before_afterwards():
    lm = tiny("llama")
    before = lm.model.config._attn_implementation

    def interrupt(row, token):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(lm, [prompt(5)] * 2, Sampling(max_new_tokens=3), on_token=interrupt)
    assert lm.model.config._attn_implementation == before
