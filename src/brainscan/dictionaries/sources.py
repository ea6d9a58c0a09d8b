"""Where activations to train on come from: a live harvest or a store, in chunks.

A source gives the same chunks each time and can start at any of them, so that an interrupted run
goes on to the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch

from brainscan.activations.corpus import Corpus
from brainscan.activations.harvest import stream
from brainscan.activations.packing import DEFAULT_CONTEXT, pack
from brainscan.activations.store import ActivationStore
from brainscan.artifacts import ModelRef
from brainscan.errors import UnknownHookpointError
from brainscan.models import LanguageModel, families
from brainscan.shapes import Float, Tensor

_STORED_CHUNK = 65_536

Chunk = Mapping[str, Float[Tensor, "token d"]]
"""Activations by hookpoint; row i is the same token at each."""


@runtime_checkable
class Source(Protocol):
    """Where activations come from."""

    @property
    def hookpoints(self) -> tuple[str, ...]:
        """The hookpoints that it gives, as canonical names."""
        ...

    @property
    def model(self) -> ModelRef | None:
        """The model that the activations are of, if that is known."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names the source in a manifest."""
        ...

    @property
    def tokens(self) -> int | None:
        """How many tokens it gives, if that is known before."""
        ...

    @property
    def device(self) -> str | torch.device:
        """Where its chunks are."""
        ...

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Chunks from the given one on; the same ones each time."""
        ...


@dataclass(frozen=True)
class LiveHarvest:
    """Activations made as they are needed; nothing is kept on disk."""

    lm: LanguageModel
    """The model."""

    corpus: Corpus
    """The text; its train split is read."""

    hookpoints: tuple[str, ...]
    """Where to read, all in one pass."""

    context: int = DEFAULT_CONTEXT
    """Tokens of a context."""

    contexts_per_chunk: int = 128
    """Contexts that are shuffled together."""

    seed: int = 0
    """Order of the corpus."""

    @property
    def model(self) -> ModelRef:
        """The model's reference."""
        return self.lm.ref

    @property
    def tokens(self) -> None:
        """Unknown before the corpus is read."""
        return None

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.lm.device

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names the source in a manifest."""
        return {
            "corpus": dict(self.corpus.settings),
            "context": self.context,
            "contexts_per_chunk": self.contexts_per_chunk,
            "harvest_seed": self.seed,
            "dtype": str(self.lm.dtype).removeprefix("torch."),
        }

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Chunks from the given one on."""
        contexts = pack(self.lm, self.corpus.documents("train", self.seed), self.context)
        rest = islice(contexts, start * self.contexts_per_chunk, None)
        while group := list(islice(rest, self.contexts_per_chunk)):
            parts = list(stream(self.lm, group, self.hookpoints))
            yield {
                name: torch.cat([part.values[name] for part in parts]) for name in self.hookpoints
            }


@dataclass(frozen=True)
class StoredActivations:
    """Activations from a store, shuffled over the whole of it."""

    store: ActivationStore
    """The store."""

    hookpoints: tuple[str, ...]
    """Which of its hookpoints to train on."""

    seed: int = 0
    """Order of the store's tokens."""

    device: str | torch.device = "cpu"
    """Where to train."""

    def __post_init__(self) -> None:
        """Checks that the store holds the hookpoints.

        Raises:
            UnknownHookpointError: it doesn't.
        """
        names = tuple(families.canonical(name) or name for name in self.hookpoints)
        object.__setattr__(self, "hookpoints", names)
        for name in self.hookpoints:
            if name not in self.store.hookpoints:
                raise UnknownHookpointError(
                    f"one of the store's hookpoints: {', '.join(self.store.hookpoints)}",
                    repr(name),
                    "name one of these or harvest again",
                )

    @property
    def model(self) -> ModelRef | None:
        """The reference of the model that was harvested."""
        return self.store.manifest.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names the source in a manifest."""
        return {"store": self.store.manifest.digest, "store_seed": self.seed}

    @property
    def tokens(self) -> int:
        """How many tokens its chunks hold; a few at the end may be left over."""
        held = self.store.n_tokens
        return held // self._size * self._size

    @property
    def _size(self) -> int:
        held = self.store.n_tokens
        return max(1, held // -(-held // _STORED_CHUNK))

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Tokens of the shuffled store, from the given chunk on."""
        streams = [
            self.store.batches(name, self._size, self.seed, start) for name in self.hookpoints
        ]
        for parts in zip(*streams, strict=True):
            moved = [part.to(self.device) for part in parts]
            yield dict(zip(self.hookpoints, moved, strict=True))
