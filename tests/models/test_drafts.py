"""Drafts: the same answers as without them, for fewer steps."""

from __future__ import annotations

import pytest
import torch

from brainscan.errors import UsageError
from brainscan.models.decoding import Forward
from brainscan.models.generate import Sampling, generate
from brainscan.models.prefixes import PromptStore
from brainscan.models.tiny import tiny

SHARING = ("llama", "qwen3", "gpt2", "gpt_neox", "phi3")
HOW = Sampling(max_new_tokens=40, temperature=1.0, seed=5)


def prompt(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 250, (length,), generator=generator).tolist()


@pytest.fixture
def push(at):
    """An edit of the answer's tokens from a position on."""

    def make(size, start=0):
        def add(x, site):
            late = (~site.is_prompt & (site.positions >= start))[..., None]
            return x + size * late * torch.linspace(-1, 1, x.shape[-1]).to(x)

        return at("resid_post.1", add)

    return make


@pytest.fixture
def steps(monkeypatch):
    """How many rows each decoding step had."""
    seen, forward = [], Forward.__call__

    def spy(self, ids, positions, mask=None):
        if ids.shape[1] == 1:
            seen.append(len(ids))
        return forward(self, ids, positions, mask)

    monkeypatch.setattr(Forward, "__call__", spy)
    return seen


def arms(push):
    """Prompts with the edits of their rows: some change nothing, some late, some at once."""
    prompts = [prompt(30), prompt(30), prompt(12, 1), prompt(30), prompt(12, 1), prompt(30)]
    edits = [[push(0.0)], [push(9.0, 45)], [push(9.0, 20)], [push(30.0)], [], [push(9.0, 64)]]
    return prompts, edits


@pytest.mark.parametrize("family", SHARING)
def test_drafts_change_no_token(family, push):
    lm = tiny(family)
    prompts, edits = arms(push)
    seeds = [7, 8, 7, 8, 9, 9]
    drafts = [row.tokens for row in generate(lm, prompts, HOW, seeds=seeds)]
    plain = generate(lm, prompts, HOW, seeds=seeds, edits=edits)
    drafted = generate(lm, prompts, HOW, seeds=seeds, edits=edits, drafts=drafts)
    assert drafted == plain
    assert drafted[0].tokens == drafts[0] and drafted[3].tokens != drafts[3]


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, 39])
def test_a_row_goes_on_where_its_draft_ends(cut, push):
    lm = tiny("llama")
    prompts, edits = arms(push)
    drafts = [row.tokens[:cut] for row in generate(lm, prompts, HOW)]
    drafts[1] = []
    plain = generate(lm, prompts, HOW, edits=edits)
    assert generate(lm, prompts, HOW, edits=edits, drafts=drafts) == plain


def test_what_edits_leave_is_read_and_the_batch_shrinks(push, steps):
    lm = tiny("llama")
    lm.model.generation_config.eos_token_id = lm.tokenizer.eos_token = None
    prompts, edits = [prompt(30)] * 8, [[push(0.0)]] * 4 + [[push(60.0, 40 + n)] for n in range(4)]
    drafts = [row.tokens for row in generate(lm, prompts, HOW)]
    steps.clear()
    drafted = generate(lm, prompts, HOW, edits=edits, drafts=drafts)
    assert [row.tokens for row in drafted[:4]] == drafts[:4]
    assert max(steps) <= 4 and len(steps) < 35


def test_an_edit_of_zero_keeps_the_draft_in_bfloat16(push, steps):
    lm = tiny("llama")
    lm.model.to(torch.bfloat16)
    how = Sampling(max_new_tokens=200, temperature=1.0)
    drafts = [row.tokens for row in generate(lm, [prompt(20)] * 6, how)]
    steps.clear()
    kept = generate(lm, [prompt(20)] * 6, how, edits=[push(0.0)], drafts=drafts)
    assert [row.tokens for row in kept] == drafts
    assert not steps


def test_edits_of_the_prompt_have_prompts_of_their_own(at):
    lm = tiny("llama")
    push = at("resid_post.1", lambda x, site: x + 3 * site.is_prompt[..., None])
    drafts = [row.tokens for row in generate(lm, [prompt(20)] * 2, HOW)]
    plain = generate(lm, [prompt(20)] * 2, HOW, edits=[[push], []])
    store = PromptStore()
    drafted = generate(lm, [prompt(20)] * 2, HOW, edits=[[push], []], drafts=drafts, store=store)
    assert drafted == plain
    assert len(store.states) == 2


def test_tokens_of_a_draft_are_called_and_can_end_a_row(push):
    lm = tiny("llama")
    drafts = [generate(lm, [prompt(20)], HOW)[0].tokens]
    seen = []

    def until_five(row, token):
        seen.append((row, token))
        return len(seen) < 5

    ended = generate(lm, [prompt(20)], HOW, edits=[push(0.0)], drafts=drafts, on_token=until_five)[
        0
    ]
    assert ended.stop_reason == "cancelled"
    assert seen == [(0, token) for token in drafts[0][:5]]


@pytest.mark.parametrize("extra", [{"logprobs": True}, {"keep": ["resid_post.1"]}])
def test_drafts_are_left_alone_where_more_than_tokens_is_asked(push, extra):
    lm = tiny("llama")
    drafts = [generate(lm, [prompt(20)], HOW)[0].tokens]
    found = generate(lm, [prompt(20)], HOW, edits=[push(0.0)], drafts=drafts, **extra)[0]
    assert found.tokens == drafts[0]
    assert found.logprobs or found.activations


def test_a_model_that_cannot_share_does_without(push):
    lm = tiny("gemma2")
    drafts = [[5, 6, 7]]
    edits = [push(9.0, 22)]
    plain = generate(lm, [prompt(20)], HOW, edits=edits)
    assert generate(lm, [prompt(20)], HOW, edits=edits, drafts=drafts) == plain


def test_an_interruption_leaves_the_model_clean(push):
    lm = tiny("llama")
    drafts = [generate(lm, [prompt(20)], HOW)[0].tokens]

    def interrupt(row, token):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(lm, [prompt(20)], HOW, edits=[push(1.0)], drafts=drafts, on_token=interrupt)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules()]
    assert not sum(hooks)


def test_a_draft_too_few_is_told():
    with pytest.raises(UsageError, match="a draft for each of 2 prompts"):
        generate(tiny("llama"), [prompt(5)] * 2, HOW, drafts=[[1]])
