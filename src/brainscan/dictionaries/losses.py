"""Formulas of the training loss and of reconstruction quality; no loops, no state."""

from __future__ import annotations

from brainscan.shapes import Float, Tensor


def fraction_of_variance_unexplained(
    x: Float[Tensor, "token d"], x_hat: Float[Tensor, "token d"], mean: Float[Tensor, " d"]
) -> Float[Tensor, ""]:
    """Squared error over squared distance from the mean, both summed over tokens (FVU)."""
    return (x - x_hat).square().sum() / (x - mean).square().sum()


def dead_latent_loss(
    error: Float[Tensor, "token d"], error_hat: Float[Tensor, "token d"]
) -> Float[Tensor, ""]:
    """How much of the error dead latents fail to reconstruct (AuxK; Gao et al. 2024)."""
    return (error - error_hat).square().sum() / error.square().sum()
