"""Sparse autoencoders: TopK and BatchTopK (Gao et al. 2024; Bussmann et al. 2024).

    pre  = W_enc x + b_enc
    code = relu(pre) where the sparsifier keeps it, else 0
    x^   = W_dec^T code + b_dec

Saved weights work on raw activations: the scaling to unit RMS and the subtraction of ``b_dec``
that training uses are folded into ``W_enc`` and the biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from brainscan import artifacts
from brainscan.artifacts import Manifest, ModelRef
from brainscan.dictionaries.base import KIND, Dictionary, SparseCode
from brainscan.dictionaries.sparse import Support, selected_preactivations
from brainscan.dictionaries.sparsifiers import largest
from brainscan.shapes import Float, Int, Tensor

WEIGHTS = "weights.safetensors"
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "activation_max", "firing_rate")
_FEW = 64
_SPARE = 8
_CHUNK = 4096


@dataclass
class Autoencoder(Dictionary):
    """A TopK autoencoder, or with a ``threshold`` a BatchTopK one."""

    hookpoint: str
    k: int
    W_enc: Float[Tensor, "latent d"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d"]
    b_dec: Float[Tensor, " d"]
    activation_max: Float[Tensor, " latent"]
    firing_rate: Float[Tensor, " latent"]
    threshold: float | None = None
    """BatchTopK: what a preactivation must exceed to stay active; None for TopK."""
    name: str = "unsaved"
    model: ModelRef | None = None
    manifest: Manifest | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained; goes into the manifest."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured in training; go into the manifest."""

    @cached_property
    def _half(self) -> tuple[Tensor, Tensor]:
        """The encoder in bf16, for choosing latents quickly where there are many tokens."""
        return self.W_enc.bfloat16(), self.b_enc.bfloat16()

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The active latents of each token.

        Few tokens are encoded in fp32. Many are encoded in chunks: a bf16 product names a few more
        candidates than needed, and their fp32 values decide.
        """
        flat = x.reshape(-1, self.d).to(self.device)
        if flat.shape[0] <= _FEW or torch.is_grad_enabled():
            code = self._encode_few(flat.float())
        else:
            code = _joined([self._encode_many(chunk) for chunk in flat.split(_CHUNK)])
        indices, values = (part.view(*x.shape[:-1], part.shape[-1]) for part in code)
        return SparseCode(indices, values)

    def _encode_few(self, x: Float[Tensor, "token d"]) -> SparseCode:
        pre = torch.addmm(self.b_enc, x, self.W_enc.T)
        indices = self._choose(pre.detach())
        return self._code(indices, pre.gather(1, indices))

    def _encode_many(self, x: Float[Tensor, "token d"]) -> SparseCode:
        weight, bias = self._half
        candidates = self._choose(torch.addmm(bias, x.bfloat16(), weight.T), spare=_SPARE)
        slots = candidates.shape[1]
        rows = torch.arange(0, candidates.numel() + 1, slots, device=x.device)
        support = Support(rows, candidates.flatten())
        pre = selected_preactivations(x.float(), self.W_enc, self.b_enc, support).view(-1, slots)
        best = pre.topk(slots if self.threshold is not None else self.k, sorted=False).indices
        best = best.sort(1).values
        return self._code(candidates.gather(1, best), pre.gather(1, best))

    def _choose(
        self, pre: Float[Tensor, "token latent"], spare: int = 0
    ) -> Int[Tensor, "token slot"]:
        slots = self.k
        if self.threshold is not None and len(pre):
            slots = int((pre > self.threshold).sum(1).max())
        return largest(pre, min(max(slots, 1) + spare, self.n_latents))

    def _code(
        self, indices: Int[Tensor, "token slot"], pre: Float[Tensor, "token slot"]
    ) -> SparseCode:
        if self.threshold is not None:
            pre = pre * (pre > self.threshold)
        return SparseCode(indices, pre.relu())

    def to(self, device: str | torch.device) -> Autoencoder:
        """The same dictionary on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved)

    def save(self, path: str | Path) -> None:
        """Writes the dictionary as an artifact; the two matrices in bf16.

        Raises:
            DiskFullError: there is no space left.
        """
        from safetensors.torch import save_file

        settings = {
            **self.settings,
            "architecture": "autoencoder",
            "k": self.k,
            "threshold": self.threshold,
        }
        with artifacts.create(
            path,
            kind=KIND,
            model=self.model,
            hookpoints=(self.hookpoint,),
            settings=settings,
            seed=self.settings.get("seed"),
        ) as draft:
            save_file(self.weights(), draft.path / WEIGHTS)
            draft.figures.update(self.figures)

    def weights(self) -> dict[str, Tensor]:
        """The tensors as they are saved: the two matrices in bf16."""
        tensors = {name: getattr(self, name).cpu().contiguous() for name in _TENSORS}
        for name in ("W_enc", "W_dec"):
            tensors[name] = tensors[name].bfloat16()
        return tensors

    @classmethod
    def read(cls, path: Path, name: str, manifest: Manifest) -> Autoencoder:
        """Reads a folder that ``save`` wrote.

        Args:
            path: the folder.
            name: what the dictionary is to be called.
            manifest: the folder's, checked.
        """
        from safetensors.torch import load_file

        tensors = {key: value.float() for key, value in load_file(path / WEIGHTS).items()}
        return cls(
            hookpoint=manifest.hookpoints[0],
            k=manifest.settings["k"],
            threshold=manifest.settings["threshold"],
            name=name,
            model=manifest.model,
            manifest=manifest,
            settings=manifest.settings,
            figures=manifest.figures,
            **tensors,
        )


def _joined(codes: list[SparseCode]) -> SparseCode:
    """Codes of consecutive tokens as one; with BatchTopK their numbers of slots may differ."""
    slots = max(code.indices.shape[1] for code in codes)
    padded = [
        [torch.nn.functional.pad(part, (0, slots - part.shape[1])) for part in code]
        for code in codes
    ]
    return SparseCode(*(torch.cat(parts) for parts in zip(*padded, strict=True)))
