"""Batched generation: right at any batch shape, coupled between arms, and it leaves no trace."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from brainscan.errors import UsageError
from brainscan.models.decoding import Forward
from brainscan.models.generate import Sampling, generate
from brainscan.models.hooks import Site, capture, intervene
from brainscan.models.kv_cache import BufferLayer
from brainscan.models.tiny import FAMILIES, tiny

HYBRIDS = ("qwen3_next", "qwen3_5_text")
WINDOW = 512


def _prompts(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 250, (n,), generator=generator).tolist() for n in lengths]


def _endless(lm):
    """Lets no token end a row."""
    lm.model.generation_config.eos_token_id = None
    lm.tokenizer.eos_token = None
    return lm


def _hook_count(lm):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@dataclass(frozen=True)
class Push:
    """Adds a fixed vector at a hookpoint."""

    size: float
    hookpoint: str = "resid_post.1"

    def attach(self, lm):
        def push(x, site):
            return x + self.size * torch.linspace(-1, 1, x.shape[-1])

        return [(self.hookpoint, push)]


@dataclass(frozen=True)
class Record:
    """Keeps the sites it meets."""

    sites: list[Site]

    def attach(self, lm):
        def look(x, site):
            self.sites.append(site)
            return x

        return [("resid_post.1", look)]


@pytest.fixture
def forwards(monkeypatch):
    """What the model is fed: the ids of each forward."""
    fed = []
    forward = Forward.__call__

    def spy(self, ids, positions, mask=None):
        fed.append(ids)
        return forward(self, ids, positions, mask)

    monkeypatch.setattr(Forward, "__call__", spy)
    return fed


# Right whatever the batch


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_agree_with_one_forward_over_the_whole_text(family):
    lm = tiny(family)
    prompts = _prompts(5, 23, 1, 40, 5)
    for result in generate(lm, prompts, Sampling(max_new_tokens=24), logprobs=True):
        start, tokens = len(result.prompt_tokens), torch.tensor(result.tokens)
        logits = lm.forward(torch.tensor([result.prompt_tokens + result.tokens]))
        scores = logits[0, start - 1 : -1].log_softmax(-1)
        expected = scores.gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(result.logprobs), expected, atol=1e-3, rtol=0)
        assert (scores.max(-1).values - expected < 1e-3).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "qwen3_next", "mixtral"])
def test_batch_size_changes_neither_results_nor_their_order(family):
    lm, prompts = tiny(family), _prompts(9, 2, 30, 2, 17)
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    whole = generate(lm, prompts, sampling)
    assert [result.prompt_tokens for result in whole] == prompts
    for batch_size in (1, 2):
        assert generate(lm, prompts, sampling, batch_size=batch_size) == whole


def test_rows_of_similar_length_run_together(lm, forwards):
    generate(lm, _prompts(3, 40, 4, 41), Sampling(max_new_tokens=1), batch_size=2)
    assert [tuple(ids.shape) for ids in forwards] == [(2, 42), (2, 5)]


@pytest.mark.parametrize("family", HYBRIDS)
def test_recurrent_states_never_meet_padding(family, forwards):
    lm = tiny(family)
    generate(lm, _prompts(7, 3, 7, 7), Sampling(max_new_tokens=1), batch_size=2)
    assert [tuple(ids.shape) for ids in forwards] == [(2, 7), (1, 7), (1, 3)]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_bit_for_bit_the_same_whatever_the_other_rows_contain(family):
    lm, sampling = _endless(tiny(family)), Sampling(max_new_tokens=10, temperature=1.0)
    first, second = _prompts(6, 20, 11), _prompts(6, 20, 3, seed=1)
    runs = [
        generate(lm, [first[0], *others], sampling, seeds=[4, 5, 6], logprobs=True)[0]
        for others in (first[1:], first[1:], second[1:])
    ]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize(("family", "rows"), [("llama", [1, 1, 4]), ("gemma2", [2, 4])])
def test_a_prompt_in_common_runs_once(family, rows, forwards):
    lm, (one, other) = tiny(family), _prompts(8, 5)
    sampling = Sampling(max_new_tokens=6, temperature=1.0)
    shared = generate(lm, [one, one, other, one], sampling, logprobs=True)
    assert [len(ids) for ids in forwards[: len(rows)]] == rows
    assert len({tuple(result.tokens) for result in shared}) == 4
    forwards.clear()
    with capture(lm, ["resid_post.0"]):
        plain = generate(lm, [one, one, other, one], sampling, logprobs=True)
    assert len(forwards[0]) == 4
    for left, right in zip(shared, plain, strict=True):
        assert left.tokens == right.tokens
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)


def test_rows_that_differ_in_their_edits_share_nothing(lm, forwards):
    (prompt,) = _prompts(8)
    generate(lm, [prompt] * 2, Sampling(max_new_tokens=1), edits=[[Push(1.0)], []])
    edit = Push(1.0)
    generate(lm, [prompt] * 2, Sampling(max_new_tokens=1), edits=[[edit], [edit]])
    assert [len(ids) for ids in forwards] == [2, 1]


# Noise and edits


def test_two_arms_with_one_seed_differ_by_their_edit_alone(lm):
    prompts, sampling = _prompts(4, 9, 13), Sampling(max_new_tokens=16, temperature=1.0, seed=3)
    base = generate(lm, prompts, sampling)
    assert generate(lm, prompts, sampling, edits=[Push(0.0)]) == base
    nudged = generate(lm, prompts, sampling, edits=[Push(1e-6)])
    assert [result.tokens for result in nudged] == [result.tokens for result in base]
    pushed = generate(lm, prompts, sampling, edits=[Push(30.0)])
    other = generate(lm, prompts, Sampling(max_new_tokens=16, temperature=1.0, seed=4))
    assert all(result.tokens != arm.tokens for result in base for arm in (*pushed, *other))


def test_a_row_with_its_own_edits_gets_what_it_gets_alone(lm):
    prompts, sampling = _prompts(4, 9, 13), Sampling(max_new_tokens=12, temperature=1.0)
    edits = [[Push(20.0)], [], [Push(-20.0), Push(5.0, "mlp_out.2")]]
    together = generate(lm, prompts, sampling, edits=edits, seeds=[1, 2, 3])
    for row, result in enumerate(together):
        alone = generate(lm, [prompts[row]], sampling, edits=edits[row], seeds=[row + 1])
        assert alone == [result]


def test_edits_around_the_call_count_as_well(lm):
    prompts = _prompts(4, 9)
    with intervene(lm, [Push(20.0)]):
        around = generate(lm, prompts, Sampling(max_new_tokens=8))
    within = generate(lm, prompts, Sampling(max_new_tokens=8), edits=[Push(20.0)])
    assert [result.tokens for result in around] == [result.tokens for result in within]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_next"])
def test_edits_know_prompt_from_response_and_each_position(family):
    lm, sites, prompts = _endless(tiny(family)), [], _prompts(6, 6, 6)
    if family not in HYBRIDS:
        prompts[1] = prompts[1][:3]
    results = generate(lm, prompts, Sampling(max_new_tokens=4), edits=[Record(sites)])
    assert len(sites) == 4
    for row, result in enumerate(results):
        seen = sites[0].positions[row] >= 0
        assert sites[0].positions[row][seen].tolist() == list(range(len(prompts[row])))
        assert sites[0].tokens[row][seen].tolist() == prompts[row]
        assert torch.equal(sites[0].is_prompt[row], seen)
        for step, site in enumerate(sites[1:]):
            assert site.positions[row].tolist() == [len(prompts[row]) + step]
            assert site.tokens[row].tolist() == [result.tokens[step]]
            assert not site.is_prompt.any()


def test_capture_sees_each_step(lm):
    prompt, widths = _prompts(6)[0], []
    with capture(lm, ["resid_post.2"]) as seen:
        result = generate(
            _endless(lm),
            [prompt, prompt[:2]],
            Sampling(max_new_tokens=4),
            on_token=lambda row, token: widths.append(tuple(seen["resid_post.2"].shape)),
        )[0]
    assert widths[::2] == [(2, 7, 32), (2, 1, 32), (2, 1, 32), (2, 1, 32)]
    with capture(lm, ["resid_post.2"]) as whole:
        lm.forward(torch.tensor([prompt + result.tokens]))
    last = whole["resid_post.2"][0, -2]
    torch.testing.assert_close(seen["resid_post.2"][0, -1], last, atol=1e-4, rtol=0)


# How rows end


def test_a_row_ends_at_each_kind_of_end_token(lm):
    prompts, sampling = _prompts(4, 9), Sampling(max_new_tokens=8)
    free = [result.tokens for result in generate(_endless(lm), prompts, sampling)]
    lm.model.generation_config.eos_token_id = [free[0][3], 1]
    lm.tokenizer.eos_token = lm.tokenizer.convert_ids_to_tokens(free[1][2])
    for result, tokens in zip(generate(lm, prompts, sampling), free, strict=True):
        end = min(tokens.index(end) for end in (free[0][3], free[1][2]) if end in tokens)
        assert result.tokens == tokens[: end + 1]
        assert result.text == lm.decode(tokens[:end])
        assert result.stop_reason == "stop"


def test_a_stop_string_ends_a_row_and_is_cut_off(lm):
    prompts = _prompts(4)
    tokens = generate(_endless(lm), prompts, Sampling(max_new_tokens=20))[0].tokens
    text = lm.decode(tokens)
    stop = text[6:9]
    result = generate(lm, prompts, Sampling(max_new_tokens=20, stop=("never", stop)))[0]
    assert result.stop_reason == "stop"
    assert result.text == text[: text.index(stop)]
    assert stop in lm.decode(result.tokens) and stop not in lm.decode(result.tokens[:-1])


def test_length_ends_a_row_and_logprobs_come_when_asked(lm):
    (result,) = generate(_endless(lm), _prompts(4), Sampling(max_new_tokens=5))
    assert (len(result.tokens), result.stop_reason, result.logprobs) == (5, "length", None)
    assert result.text == lm.decode(result.tokens)
    (scored,) = generate(lm, _prompts(4), Sampling(max_new_tokens=5), logprobs=True)
    assert len(scored.logprobs) == 5 and max(scored.logprobs) < 0


def test_on_token_sees_every_token_and_can_cancel_a_row(lm):
    prompts, seen = _prompts(3, 30, 12), {0: [], 1: [], 2: []}

    def watch(row, token):
        seen[row].append(token)
        return row != 1 or len(seen[1]) < 3

    sampling = Sampling(max_new_tokens=6)
    results = generate(_endless(lm), prompts, sampling, batch_size=2, on_token=watch)
    assert [result.tokens for result in results] == list(seen.values())
    assert [len(tokens) for tokens in seen.values()] == [6, 3, 6]
    assert [result.stop_reason for result in results] == ["length", "cancelled", "length"]


def test_decoding_ends_when_every_row_has(lm, forwards):
    generate(lm, _prompts(3, 5), Sampling(max_new_tokens=50), on_token=lambda row, token: False)
    assert len(forwards) == 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_row_ends_where_the_context_window_does(family):
    lm = _endless(tiny(family, max_position_embeddings=64))
    long, short = _prompts(60, 4)
    results = generate(lm, [long, short], Sampling(max_new_tokens=20))
    assert [len(result.tokens) for result in results] == [4, 20]
    assert generate(lm, [long], Sampling(max_new_tokens=20))[0].tokens == results[0].tokens


# Leaves the model as it came


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_model_clean(lm, error):
    ids = torch.tensor(_prompts(7))
    before = lm.forward(ids)
    lm.model.model.layers[1].train()

    def interrupt(row, token):
        raise error

    with pytest.raises(error):
        generate(lm, _prompts(4, 6), edits=[Push(3.0)], on_token=interrupt)
    assert _hook_count(lm) == 0
    assert lm.model.model.layers[1].mlp.training and not lm.model.training
    assert torch.is_grad_enabled()
    assert torch.equal(lm.forward(ids), before)


def test_dropout_is_off_while_generating():
    lm = tiny("gpt2", resid_pdrop=0.5)
    expected = generate(lm, _prompts(6))
    lm.model.train()
    assert generate(lm, _prompts(6)) == expected
    assert lm.model.training


# Bad input


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[5], []], {}, "prompt 1 is empty"),
        ([[5] * WINDOW], {}, f"context window of {WINDOW} tokens; got prompt 0 with {WINDOW}"),
        ([[5]], {"seeds": [1, 2]}, "a seed for each of 1 prompts"),
        ([[5]], {"edits": [[], []]}, "one sequence of edits for each of 1 prompts"),
        ([[5], [6]], {"edits": [[Push(1.0)], Push(1.0)]}, "one sequence of edits"),
        ([[5]], {"batch_size": 0}, "a batch size of at least 1"),
    ],
)
def test_bad_arguments_are_told(lm, prompts, options, message):
    with pytest.raises(UsageError, match=message):
        generate(lm, prompts, **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"stop": ("",)},
    ],
)
def test_bad_settings_are_told(settings):
    with pytest.raises(UsageError):
        Sampling(**settings)


def test_no_prompts_give_no_results(lm):
    assert generate(lm, []) == []


# The cache


@pytest.mark.parametrize("window", [None, 4])
def test_the_buffer_holds_what_the_growing_cache_holds(window):
    growing = DynamicLayer() if window is None else DynamicSlidingWindowLayer(window)
    buffer = BufferLayer(20, window)
    for length in (6, 1, 1, 3, 1):
        assert buffer.get_mask_sizes(length) == growing.get_mask_sizes(length)
        states = torch.randn(2, 2, 3, length, 5).unbind()
        for ours, theirs in zip(buffer.update(*states), growing.update(*states), strict=True):
            assert torch.equal(ours, theirs)
        assert buffer.get_seq_length() == growing.get_seq_length()


@pytest.mark.real
def test_the_default_model_answers():
    from brainscan.models import load

    lm = load("smollm2-135m-instruct")
    prompt = lm.chat_tokens("What is the capital of France?")
    greedy, drawn = generate(lm, [prompt, prompt], Sampling(max_new_tokens=24)), []
    generate(lm, [prompt], Sampling(8, 1.0), on_token=lambda row, token: drawn.append(token))
    assert "Paris" in greedy[0].text
    assert greedy[0] == greedy[1]
    assert len(drawn) <= 8
