import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from brainscan.models.attention import (
    BlockedAttention,
    Prefix,
    attend_after_prefix,
    causal_attention,
    packed_attention,
)
from brainscan.models.kv_cache import make_cache
from brainscan.models.tiny import tiny


def operands(dtype, length=300, heads=6, key_heads=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, length, 16), (2, key_heads, length, 16), (2, key_heads, length, 16)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("length", [1, 5, 128, 300])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_it_is_torch_s_causal_attention(length, scale):
    query, key, value = operands(torch.float32, length)
    with torch.no_grad():
        ours = causal_attention(query, key, value, scale)
    keys, values = (x.repeat_interleave(3, dim=1) for x in (key, value))
    theirs = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scale)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_plain_causal_bf16_is_taken_over_to_within_rounding():
    query, key, value = operands(torch.bfloat16, key_heads=6)
    exact = scaled_dot_product_attention(*(x.float() for x in (query, key, value)), is_causal=True)
    with torch.no_grad(), BlockedAttention():
        ours = scaled_dot_product_attention(query, key, value, is_causal=True)
        expected = causal_attention(query, key, value)
    assert torch.equal(ours, expected)
    assert (ours.float() - exact).abs().max() < 0.03


@pytest.mark.parametrize(
    "change",
    [{"is_causal": False}, {"dtype": torch.float32}, {"mask": True}, {"grad": True}],
)
def test_any_other_call_passes_untouched(change):
    query, key, value = operands(change.get("dtype", torch.bfloat16), key_heads=6)
    mask = torch.ones(300, 300, dtype=torch.bool) if change.get("mask") else None
    causal = change.get("is_causal", mask is None)
    call = {"attn_mask": mask, "is_causal": causal}
    with torch.set_grad_enabled(change.get("grad", False)):
        before = scaled_dot_product_attention(query, key, value, **call)
        with BlockedAttention():
            after = scaled_dot_product_attention(query, key, value, **call)
    assert torch.equal(before, after)


@pytest.mark.parametrize(("past", "length"), [(3, 1), (200, 150), (128, 128)])
def test_queries_are_of_the_last_positions(past, length):
    query, key, value = operands(torch.float32, past + length)
    with torch.no_grad():
        ours = causal_attention(query[:, :, past:], key, value)
        whole = causal_attention(query, key, value)
    torch.testing.assert_close(ours, whole[:, :, past:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_after_a_prefix_is_attention_to_both(dtype, length):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    heads, key_heads, d, own = 6, 2, 16, 5
    prompts = [(draw(key_heads, n, d), draw(key_heads, n, d)) for n in (40, 17)]
    owner = [0, 1, 0, 0]
    query, key, value = (draw(4, n, m, d) for n, m in ((heads, length), *2 * [(key_heads, own)]))
    keys, values = (torch.zeros(2, key_heads, 40, d, dtype=dtype) for _ in range(2))
    padding = torch.zeros(2, 40, dtype=dtype)
    for number, (k, v) in enumerate(prompts):
        keys[number, :, : k.shape[1]], values[number, :, : k.shape[1]] = k, v
        padding[number, k.shape[1] :] = -torch.inf
    members = torch.tensor([[0, 2, 3], [1, 1, 1]])
    hidden = torch.zeros(4, own + 2)
    hidden[3, :2] = -torch.inf
    places = torch.tensor([0, 3, 1, 2])
    prefix = Prefix(keys.transpose(2, 3), values, padding, members, places, hidden.to(dtype))
    found = attend_after_prefix(query, key, value, prefix)
    for row, number in enumerate(owner):
        k, v = prompts[number]
        seen = torch.ones(length, k.shape[1] + own, dtype=torch.bool).tril(
            k.shape[1] + own - length
        )
        seen[:, k.shape[1] :] &= hidden[row, :own] == 0
        exact = scaled_dot_product_attention(
            query[row].float(),
            torch.cat([k, key[row]], 1).float().repeat_interleave(3, 0),
            torch.cat([v, value[row]], 1).float().repeat_interleave(3, 0),
            attn_mask=seen,
        )
        limit = 1e-5 if dtype == torch.float32 else 0.03
        assert (found[row].float() - exact).abs().max() < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_queries_packed_by_their_keys_change_nothing(family, dtype):
    lm = tiny(family)
    lm.model.to(dtype)
    ids = torch.randint(3, 250, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(20) >= torch.tensor([[0], [7]])).long()

    def run():
        cache = make_cache(lm.model.config, 20)
        for start, stop in ((0, 13), (13, 20)):
            out = lm.model(
                ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache
            ).logits
        return out

    before = lm.model.config._attn_implementation
    with torch.no_grad():
        expected = run()
        with packed_attention(lm.model):
            packed = run()
        with pytest.raises(KeyboardInterrupt), packed_attention(lm.model):
            raise KeyboardInterrupt
    assert lm.model.config._attn_implementation == before
    torch.testing.assert_close(
        packed, expected, rtol=1e-5, atol=1e-5 if dtype is torch.float32 else 0.02
    )
