"""The sparse products agree with dense ones, and their gradients with finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainscan.dictionaries.sparse import Support, selected_preactivations, sparse_decode
from brainscan.dictionaries.sparsifiers import batch_topk, largest, topk


def double(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.double, generator=generator).requires_grad_()


def mask_of(support: Support, latents: int) -> torch.Tensor:
    mask = torch.zeros(support.rows.numel() - 1, latents)
    owners = torch.repeat_interleave(torch.arange(len(mask)), support.rows.diff())
    mask[owners, support.latents] = 1
    return mask


def test_selected_preactivations_equal_the_dense_product() -> None:
    support = topk(torch.randn(6, 64), 4)
    x, weight, bias = torch.randn(6, 8), torch.randn(64, 8), torch.randn(64)
    dense = torch.addmm(bias, x, weight.T).gather(1, support.latents.view(6, 4))
    chosen = selected_preactivations(x, weight, bias, support)
    torch.testing.assert_close(chosen, dense.flatten())


def test_decoding_equals_the_dense_product() -> None:
    support = topk(torch.randn(6, 64), 4)
    values, weight = torch.randn(24), torch.randn(64, 8)
    dense = torch.zeros(6, 64).scatter_(1, support.latents.view(6, 4), values.view(6, 4))
    torch.testing.assert_close(sparse_decode(values, weight, support), dense @ weight)


def test_gradients_agree_with_finite_differences() -> None:
    support = topk(torch.randn(6, 64), 4)
    x, weight, bias = double(6, 8, seed=0), double(64, 8, seed=1), double(64, seed=2)
    values = double(24, seed=3)
    assert torch.autograd.gradcheck(
        lambda *args: selected_preactivations(*args, support), (x, weight, bias)
    )
    assert torch.autograd.gradcheck(lambda *args: sparse_decode(*args, support), (values, weight))


def test_the_centre_gets_the_gradient_that_went_through_x() -> None:
    support = topk(torch.randn(6, 64), 4)
    x, centre = double(6, 8, seed=0), double(8, seed=1)
    weight, bias = double(64, 8, seed=2), double(64, seed=3)
    through = selected_preactivations(x - centre, weight, bias, support).square().sum()
    apart = selected_preactivations((x - centre).detach(), weight, bias, support, centre)
    expected = torch.autograd.grad(through, [centre, weight, bias])
    found = torch.autograd.grad(apart.square().sum(), [centre, weight, bias])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", [0.0, -3.0, -9.0])
def test_largest_are_the_largest_also_where_most_are_negative(
    dtype: torch.dtype, shift: float
) -> None:
    pre = (torch.randn(50, 1024, generator=torch.Generator().manual_seed(0)) + shift).to(dtype)
    indices = largest(pre, 16)
    assert torch.equal(indices, indices.sort(1).values)
    assert all(len(set(row)) == 16 for row in indices.tolist())
    found = pre.gather(1, indices).sort(1, descending=True).values
    assert torch.equal(found, pre.topk(16).values)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 10_000))
def test_largest_are_those_of_a_full_sort(k: int, groups: int, seed: int) -> None:
    pre = torch.randn(5, groups * 16, generator=torch.Generator().manual_seed(seed))
    k = min(k, pre.shape[1])
    indices = largest(pre, k)
    assert torch.equal(indices, pre.topk(k).indices.sort(1).values)


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 10_000))
def test_batch_topk_keeps_k_per_token_on_average(k: int, tokens: int, seed: int) -> None:
    pre = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(seed))
    support = batch_topk(pre, k)
    assert support.latents.numel() == k * tokens
    kept = mask_of(support, 96).bool()
    within_row_limit = pre >= pre.topk(min(8 * k, 96), dim=1).values[:, -1:]
    assert pre[kept].min() >= pre[~kept & within_row_limit].max()
