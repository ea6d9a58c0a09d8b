"""Formulas of the training loss and of reconstruction quality; no loops, no state."""

from __future__ import annotations

from torch.linalg import vector_norm

from brainscan.shapes import Float, Tensor


def fraction_of_variance_unexplained(
    x: Float[Tensor, "token d"], x_hat: Float[Tensor, "token d"], mean: Float[Tensor, " d"]
) -> Float[Tensor, ""]:
    """Squared error over squared distance from the mean, both summed over tokens (FVU)."""
    # The norm's gradient takes one pass; that of a sum of squares takes three.
    fvu: Tensor = vector_norm(x - x_hat).square() / vector_norm(x - mean).square()
    return fvu


def dead_latent_loss(
    error: Float[Tensor, "token d"], error_hat: Float[Tensor, "token d"]
) -> Float[Tensor, ""]:
    """How much of the error dead latents fail to reconstruct (AuxK; Gao et al. 2024)."""
    return (error - error_hat).square().sum() / error.square().sum()
