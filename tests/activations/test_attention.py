import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from brainscan.activations.attention import BlockedAttention, causal_attention


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
