"""Sparse products over a support: the latents that are active for each token.

A dense code ``[token, latent]`` is never built in a training step. The support is kept in
compressed sparse rows, and each product touches only its ``k`` entries per token:

1. ``selected_preactivations``: W_enc x + b_enc at the support (a sampled dense-dense product);
2. ``sparse_decode``: the sum of the support's decoder rows, weighted by the values;
3. backward: the gradient of the values is a sampled product again, the gradients of the two
   weight matrices are weighted sums of tokens' rows, the entries sorted by latent once for both.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section on sparse kernels;
written here for PyTorch's own sparse CSR operations, which run on CPU and CUDA.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from brainscan.shapes import Float, Int, Tensor


class ByLatent(NamedTuple):
    """A support's entries in the order of their latents."""

    latents: Int[Tensor, " entry"]
    """The latent of each, ascending."""
    tokens: Int[Tensor, " entry"]
    """The token of each."""
    places: Int[Tensor, " entry"]
    """Where each is in the support."""


@dataclass(frozen=True)
class Support:
    """The active latents of each token, in compressed sparse rows."""

    rows: Int[Tensor, " token_and_end"]
    """Where each token's entries begin; the last is their number."""
    latents: Int[Tensor, " entry"]
    """The latents, ascending within a token."""

    @cached_property
    def by_latent(self) -> ByLatent:
        """The entries by latent; sorted once, since both weights' gradients need it."""
        latents, places = self.latents.sort(stable=True)
        tokens = torch.arange(self.rows.numel() - 1, device=latents.device)
        owners = tokens.repeat_interleave(self.rows.diff(), output_size=latents.numel())
        return ByLatent(latents, owners[places], places)


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


def _weighted_rows(support: Support, values: Tensor, table: Tensor) -> Tensor:
    """``code @ table`` with the sparse code given by support and values."""
    return _bags(support.latents, table, support.rows, values)


def _transposed_product(support: Support, values: Tensor, dense: Tensor, n_latents: int) -> Tensor:
    """``code.T @ dense``."""
    entries = support.by_latent
    edges = torch.arange(n_latents + 1, device=values.device)
    starts = torch.searchsorted(entries.latents, edges)
    return _bags(entries.tokens, dense, starts, values[entries.places])


def _bags(indices: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(
        indices,
        table,
        starts,
        per_sample_weights=weights,
        mode="sum",
        include_last_offset=True,
    )


class _SelectedPreactivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, centre: Tensor | None, weight: Tensor, bias: Tensor, support: Support
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.support = support
        return _sampled_product(support, x, weight) + bias[support.latents]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x, weight), support = ctx.saved_tensors, ctx.support
        n_latents = weight.shape[0]
        grad_x = _weighted_rows(support, grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = _transposed_product(support, grad, x, n_latents)
        grad_bias = torch.zeros(n_latents, dtype=grad.dtype, device=grad.device)
        grad_bias.index_add_(0, support.latents, grad)
        grad_centre = -(grad_bias @ weight) if ctx.needs_input_grad[1] else None
        return grad_x, grad_centre, grad_weight, grad_bias, None


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, support: Support) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.support = support
        return _weighted_rows(support, values, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (values, weight), support = ctx.saved_tensors, ctx.support
        grad_values = _sampled_product(support, grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = _transposed_product(support, values, grad, weight.shape[0])
        return grad_values, grad_weight, None


def selected_preactivations(
    x: Float[Tensor, "token d"],
    weight: Float[Tensor, "latent d"],
    bias: Float[Tensor, " latent"],
    support: Support,
    centre: Float[Tensor, " d"] | None = None,
) -> Float[Tensor, " entry"]:
    """The encoder's preactivations at the support, differentiable in all its tensors.

    Args:
        x: the encoder's input.
        weight: its rows.
        bias: its bias.
        support: where preactivations are wanted.
        centre: what was subtracted to get ``x``, if its gradient is wanted: that takes one product
            with the bias' gradient, where going through ``x`` would take one for each token.
    """
    result: Tensor = _SelectedPreactivations.apply(x, centre, weight, bias, support)
    return result


def sparse_decode(
    values: Float[Tensor, " entry"], weight: Float[Tensor, "latent d"], support: Support
) -> Float[Tensor, "token d"]:
    """The sum of the support's rows of ``weight``, weighted by ``values``; differentiable."""
    result: Tensor = _SparseDecode.apply(values, weight, support)
    return result
