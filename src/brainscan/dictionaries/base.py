"""What every dictionary has in common: addresses of latents, sparse codes, loading by name.

Shapes: ``d`` is the width of the hookpoint, ``latent`` the number of latents, ``k`` the number of
slots for active latents per token.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch

from brainscan.artifacts import Manifest, ModelRef, open_artifact
from brainscan.errors import (
    ArtifactError,
    DictionaryMismatchError,
    UnknownDictionaryError,
    UnknownFeatureError,
    UsageError,
)
from brainscan.models import families
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

KIND = "dictionary"
SHIPPED = Path(__file__).parent / "shipped"
DEFAULT_HOOKPOINT = "resid_post.15"

_ADDRESS = re.compile(r"(?P<hookpoint>[a-z_.\d]+)/(?P<index>\d+)(?P<sign>[+-]?)")
_warned: WeakKeyDictionary[LanguageModel, set[tuple[str, int]]] = WeakKeyDictionary()
_HOOKPOINT = re.compile(r"[a-z_]+\.\d+")


@dataclass(frozen=True, order=True)
class Address:
    """The address of a feature: ``resid_post.15/1234``; for a signed neuron ``neurons.12/345+``."""

    hookpoint: str
    index: int
    sign: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address; its hookpoint may be named as TransformerLens does.

        Raises:
            UsageError: the text is no address.
        """
        match = _ADDRESS.fullmatch(text.strip())
        named = match["hookpoint"] if match else ""
        # One that no model has is an address all the same: the model says what it has.
        hookpoint = families.canonical(named) or (named if _HOOKPOINT.fullmatch(named) else None)
        if match is None or hookpoint is None:
            raise UsageError(
                "a feature's address such as resid_post.15/1234 or neurons.12/345+",
                repr(text),
                "write HOOKPOINT/NUMBER; `brainscan atlas search` prints addresses",
            )
        return cls(hookpoint, int(match["index"]), match["sign"])

    def __str__(self) -> str:
        return f"{self.hookpoint}/{self.index}{self.sign}"


class SparseCode(NamedTuple):
    """The active latents of each token; a slot that is not used has the value 0."""

    indices: Int[Tensor, "*batch k"]
    values: Float[Tensor, "*batch k"]


class Dictionary(ABC):
    """A sparse code of a hookpoint's activations.

    Attributes:
        name: the name or folder that it was loaded from.
        hookpoint: where its activations come from, such as ``resid_post.15``.
        model: the model whose activations it was trained on, or None if not recorded.
        manifest: the artifact's manifest, or None for one that was never saved.
        W_enc: encoder rows, in units of activation per unit of input.
        b_enc: encoder bias.
        W_dec: decoder rows, of unit norm, so that an activation is a length in the residual.
        b_dec: decoder bias.
        activation_max: largest activation of each latent over the last part of its training text;
            0 where it never fired.
        firing_rate: share of those tokens where the latent is active.
    """

    name: str
    hookpoint: str
    k: int
    model: ModelRef | None
    manifest: Manifest | None
    W_enc: Float[Tensor, "latent d"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d"]
    b_dec: Float[Tensor, " d"]
    activation_max: Float[Tensor, " latent"]
    firing_rate: Float[Tensor, " latent"]

    @abstractmethod
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The active latents of each token."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Writes the dictionary as an artifact."""

    @property
    def d(self) -> int:
        """Width of the hookpoint."""
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    def decode(self, code: SparseCode) -> Float[Tensor, "*batch d"]:
        """The activations that a code stands for."""
        k = code.indices.shape[-1]
        rows = torch.nn.functional.embedding_bag(
            code.indices.reshape(-1, k),
            self.W_dec,
            per_sample_weights=code.values.reshape(-1, k),
            mode="sum",
        )
        return (rows + self.b_dec).view(*code.indices.shape[:-1], self.d)

    def reconstruct(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """``decode(encode(x))``, in fp32."""
        return self.decode(self.encode(x))

    def dense(self, code: SparseCode) -> Float[Tensor, "*batch latent"]:
        """The code with a place for each latent."""
        dense = code.values.new_zeros(*code.indices.shape[:-1], self.n_latents)
        return dense.scatter_add(-1, code.indices, code.values)

    def activations_of(
        self, x: Float[Tensor, "*batch d"], latents: Sequence[int]
    ) -> Float[Tensor, "*batch chosen"]:
        """Exact activations of the given latents, after the sparsifier.

        Raises:
            UnknownFeatureError: a latent is out of range.
        """
        wanted = torch.tensor([self.checked(latent) for latent in latents], device=x.device)
        code = self.encode(x)
        match = code.indices.unsqueeze(-2) == wanted.unsqueeze(-1)
        return (code.values.unsqueeze(-2) * match).sum(-1)

    def checked(self, latent: int) -> int:
        """The latent itself, if there is such a one.

        Raises:
            UnknownFeatureError: it is out of range.
        """
        if not 0 <= latent < self.n_latents:
            raise UnknownFeatureError(
                f"a latent from 0 to {self.n_latents - 1} of {self.name}",
                str(latent),
                "`brainscan atlas search` prints addresses",
            )
        return latent

    def check_model(self, lm: LanguageModel) -> None:
        """Checks that the dictionary fits the model; warns once where it was trained on others.

        Raises:
            DictionaryMismatchError: the hookpoint's width differs.
        """
        width = lm.width(self.hookpoint)
        if width != self.d:
            raise DictionaryMismatchError(
                f"a dictionary for {self.hookpoint} of {lm.name}, of width {width}",
                f"{self.name}, of width {self.d}",
                "train one: `brainscan dictionary train --model ... --at ...`",
            )
        if self.model is None or self.model.weights == lm.ref.weights:
            return
        known = _warned.setdefault(lm, set())
        if (own := (self.name, id(self.W_enc))) not in known:
            known.add(own)
            from brainscan.dictionaries.evaluation import quick_fvu

            warnings.warn(
                f"{self.name} was trained on {self.model.id}, not on {lm.name}; its FVU here is "
                f"{quick_fvu(lm, self)}; `brainscan dictionary evaluate` measures it well",
                stacklevel=2,
            )

    @classmethod
    def load(cls, name: str | Path, *, device: str | torch.device | None = None) -> Dictionary:
        """Loads a shipped dictionary by name, or one from a folder.

        Args:
            name: such as ``smollm2-135m-instruct/resid_post.15``, or a folder.
            device: where to put the weights; the CPU when left out.

        Raises:
            UnknownDictionaryError: there is none of that name.
            ArtifactError: the files are truncated or altered.
        """
        from brainscan.dictionaries.autoencoder import Autoencoder
        from brainscan.dictionaries.extended import Extended

        folder = locate(name)
        manifest = open_artifact(folder, kind=KIND)
        architecture = manifest.settings.get("architecture")
        readers: dict[str, type[Autoencoder | Extended]]
        readers = {"autoencoder": Autoencoder, "extended": Extended}
        if architecture not in readers:
            raise ArtifactError(
                f"a dictionary of architecture {' or '.join(map(repr, readers))}",
                f"{architecture!r} in {folder}",
                "use a newer brainscan",
            )
        return readers[architecture].read(folder, str(name), manifest).to(device or "cpu")

    @classmethod
    def for_model(cls, lm: LanguageModel, hookpoint: str | None = None) -> Dictionary:
        """The shipped dictionary for a model, at ``resid_post.15`` when no hookpoint is named.

        Raises:
            UnknownDictionaryError: none is shipped for this model and hookpoint.
        """
        dictionary = cls.load(shipped_name(lm.name, hookpoint), device=lm.device)
        dictionary.check_model(lm)
        return dictionary

    @abstractmethod
    def to(self, device: str | torch.device) -> Dictionary:
        """The same dictionary on another device."""


def shipped_name(model: str, hookpoint: str | None = None) -> str:
    """The name under which a dictionary of a model would be shipped; an adapter has its base's.

    Args:
        model: the model's name, with its adapter if it has one.
        hookpoint: ``resid_post.15`` when left out.
    """
    return f"{model.partition('+')[0]}/{hookpoint or DEFAULT_HOOKPOINT}"


def shipped_dictionaries() -> list[str]:
    """Names of the dictionaries that come with the package."""
    return sorted(
        str(manifest.parent.relative_to(SHIPPED)) for manifest in SHIPPED.glob("*/*/manifest.json")
    )


def locate(name: str | Path) -> Path:
    """The folder of a dictionary.

    Raises:
        UnknownDictionaryError: there is none of that name.
    """
    for folder in (SHIPPED / name, Path(name)):
        if (folder / "manifest.json").is_file():
            return folder
    if Path(name).is_dir():
        return Path(name)
    raise UnknownDictionaryError(
        "a dictionary's name or folder",
        repr(str(name)),
        f"shipped are {', '.join(shipped_dictionaries()) or 'none'}; "
        "`brainscan dictionary train` makes others",
    )
