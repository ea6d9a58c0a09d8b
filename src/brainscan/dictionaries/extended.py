"""Extended dictionaries: a general dictionary with latents added for what it misses in some text.

    x^ = D(x) + E(x)

D is the base and E an autoencoder that reads the activation x and gives D's error x - D(x); how E
is trained is in `extension`. The base's latents come first, so that an address means what it meant
before; the added ones follow.

Source: Koriagin et al. 2025, "Teach Old SAEs New Domain Tricks with Boosting" (arXiv:2507.12990).
Unlike there, E has an output bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from brainscan import artifacts
from brainscan.artifacts import Manifest, ModelRef
from brainscan.dictionaries.autoencoder import WEIGHTS, Autoencoder
from brainscan.dictionaries.base import KIND, Dictionary, SparseCode
from brainscan.errors import DictionaryMismatchError
from brainscan.shapes import Float, Tensor

_PARTS = ("base", "added")
_JOINED = ("W_enc", "b_enc", "W_dec", "activation_max", "firing_rate")


@dataclass
class Extended(Dictionary):
    """A base dictionary and the latents added to it, as one dictionary.

    ``activation_max`` and ``firing_rate`` of the added latents are those on the text that they were
    trained on.
    """

    base: Autoencoder
    """The dictionary that was extended."""
    added: Autoencoder
    """What was trained on its error: it reads activations and gives the error."""
    name: str = "unsaved"
    model: ModelRef | None = None
    manifest: Manifest | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained; goes into the manifest."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured in training; go into the manifest."""

    def __post_init__(self) -> None:
        """Joins the two.

        Raises:
            DictionaryMismatchError: they are of other hookpoints or widths.
        """
        base, added = self.base, self.added
        if (base.hookpoint, base.d) != (added.hookpoint, added.d):
            raise DictionaryMismatchError(
                f"added latents of {base.hookpoint}, of width {base.d}",
                f"some of {added.hookpoint}, of width {added.d}",
                "train them on the base's own hookpoint",
            )
        self.hookpoint = base.hookpoint
        self.k = base.k + added.k
        self.b_dec = base.b_dec + added.b_dec
        for name in _JOINED:
            setattr(self, name, torch.cat([getattr(base, name), getattr(added, name)]))

    @property
    def n_base(self) -> int:
        """How many latents are the base's: the number of the first added one."""
        return self.base.n_latents

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The active latents of each token: those of the base as it has them, then added ones."""
        base, added = self.base.encode(x), self.added.encode(x)
        indices = torch.cat([base.indices, added.indices + self.n_base], -1)
        return SparseCode(indices, torch.cat([base.values, added.values], -1))

    def to(self, device: str | torch.device) -> Extended:
        """The same dictionary on another device."""
        return replace(self, base=self.base.to(device), added=self.added.to(device))

    def save(self, path: str | Path) -> None:
        """Writes the dictionary as an artifact, the base's weights with it.

        Raises:
            DiskFullError: there is no space left.
        """
        from safetensors.torch import save_file

        parts = {"base": self.base, "added": self.added}
        settings = {**self.settings, "architecture": "extended"}
        settings |= {
            role: {"name": part.name, "k": part.k, "threshold": part.threshold}
            for role, part in parts.items()
        }
        with artifacts.create(
            path,
            kind=KIND,
            model=self.model,
            parents=self._parents(),
            hookpoints=(self.hookpoint,),
            settings=settings,
            seed=self.settings.get("seed"),
        ) as draft:
            tensors = {
                f"{role}.{name}": tensor
                for role, part in parts.items()
                for name, tensor in part.weights().items()
            }
            save_file(tensors, draft.path / WEIGHTS)
            draft.figures.update(self.figures)

    def _parents(self) -> Mapping[str, str]:
        """The base's digest; one that was read has it from its manifest."""
        if self.base.manifest is not None:
            return {"base": self.base.manifest.digest}
        return self.manifest.parents if self.manifest is not None else {}

    @classmethod
    def read(cls, path: Path, name: str, manifest: Manifest) -> Extended:
        """Reads a folder that ``save`` wrote.

        Args:
            path: the folder.
            name: what the dictionary is to be called.
            manifest: the folder's, checked.
        """
        from safetensors.torch import load_file

        parts: dict[str, dict[str, Any]] = {role: {} for role in _PARTS}
        for key, value in load_file(path / WEIGHTS).items():
            role, _, tensor = key.partition(".")
            parts[role][tensor] = value.float()
        at = manifest.hookpoints[0]
        return cls(
            **{role: Autoencoder(at, **manifest.settings[role], **parts[role]) for role in _PARTS},
            name=name,
            model=manifest.model,
            manifest=manifest,
            settings=manifest.settings,
            figures=manifest.figures,
        )
