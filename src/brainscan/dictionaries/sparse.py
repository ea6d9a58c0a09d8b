"""Sparse products over a support: the latents that are active for each token.

A dense code ``[token, latent]`` is never built in a training step. The support is kept in
compressed sparse rows, and each product touches only its ``k`` entries per token:

1. ``selected_preactivations``: W_enc x + b_enc at the support (a sampled dense-dense product);
2. ``sparse_decode``: the sum of the support's decoder rows, weighted by the values;
3. backward: the gradient of the values is a sampled product again, the gradients of the two
   weight matrices are products of a transposed sparse matrix with a dense one.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section on sparse kernels;
written here for PyTorch's own sparse CSR operations, which run on CPU and CUDA.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from brainscan.shapes import Float, Int, Tensor


class Support(NamedTuple):
    """The active latents of each token, in compressed sparse rows."""

    rows: Int[Tensor, " token_and_end"]
    """Where each token's entries begin; the last is their number."""
    latents: Int[Tensor, " entry"]
    """The latents, ascending within a token."""


@cache
def _announce_csr() -> None:
    """PyTorch warns once that CSR is in beta; let it do so unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = torch.ones(1)
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), one, (1, 1))


def _matrix(support: Support, values: Tensor, n_latents: int) -> Tensor:
    _announce_csr()
    size = (support.rows.numel() - 1, n_latents)
    return torch.sparse_csr_tensor(
        support.rows, support.latents, values, size, check_invariants=False
    )


def _sampled_product(support: Support, left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` at the support's entries only."""
    zeros = torch.zeros(support.latents.numel(), dtype=left.dtype, device=left.device)
    pattern = _matrix(support, zeros, right.shape[0])
    product: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
    return product.values()


def _transposed_product(support: Support, values: Tensor, dense: Tensor, n_latents: int) -> Tensor:
    """``code.T @ dense`` with the sparse code given by support and values."""
    return _matrix(support, values, n_latents).t().to_sparse_csr() @ dense


def _weighted_rows(support: Support, values: Tensor, table: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(
        support.latents,
        table,
        support.rows,
        per_sample_weights=values,
        mode="sum",
        include_last_offset=True,
    )


class _SelectedPreactivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, latents: Tensor
    ) -> Tensor:
        support = Support(rows, latents)
        ctx.save_for_backward(x, weight, rows, latents)
        return _sampled_product(support, x, weight) + bias[latents]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, rows, latents = ctx.saved_tensors
        support = Support(rows, latents)
        n_latents = weight.shape[0]
        grad_x = _weighted_rows(support, grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = _transposed_product(support, grad, x, n_latents)
        grad_bias = torch.zeros(n_latents, dtype=grad.dtype, device=grad.device)
        return grad_x, grad_weight, grad_bias.index_add_(0, latents, grad), None, None


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, rows: Tensor, latents: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight, rows, latents)
        return _weighted_rows(Support(rows, latents), values, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        values, weight, rows, latents = ctx.saved_tensors
        support = Support(rows, latents)
        grad_values = _sampled_product(support, grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = _transposed_product(support, values, grad, weight.shape[0])
        return grad_values, grad_weight, None, None


def selected_preactivations(
    x: Float[Tensor, "token d"],
    weight: Float[Tensor, "latent d"],
    bias: Float[Tensor, " latent"],
    support: Support,
) -> Float[Tensor, " entry"]:
    """The encoder's preactivations at the support, differentiable in all three tensors."""
    result: Tensor = _SelectedPreactivations.apply(x, weight, bias, *support)
    return result


def sparse_decode(
    values: Float[Tensor, " entry"], weight: Float[Tensor, "latent d"], support: Support
) -> Float[Tensor, "token d"]:
    """The sum of the support's rows of ``weight``, weighted by ``values``; differentiable."""
    result: Tensor = _SparseDecode.apply(values, weight, *support)
    return result
