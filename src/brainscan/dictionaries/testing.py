"""A dictionary without training, for tests and as the random control."""

from __future__ import annotations

import torch

from brainscan.dictionaries.autoencoder import Autoencoder


def random_dictionary(
    d: int, n_latents: int = 64, k: int = 4, hookpoint: str = "resid_post.1", seed: int = 0
) -> Autoencoder:
    """An autoencoder with random unit decoder rows and the same rows as encoder."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(n_latents, d, generator=generator))
    return Autoencoder(
        hookpoint=hookpoint,
        k=k,
        W_enc=rows.clone(),
        b_enc=torch.zeros(n_latents),
        W_dec=rows,
        b_dec=torch.zeros(d),
        activation_max=torch.ones(n_latents),
        firing_rate=torch.full((n_latents,), k / n_latents),
        name="random",
    )
