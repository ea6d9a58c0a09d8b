"""Training dictionaries: one loop for every architecture and every source of activations.

1. Activations come in chunks, from a store or from a live harvest. A chunk is shuffled by a seed
   of its own and cut into batches of nearly equal size.
2. Every hookpoint's dictionary takes its steps on the chunk, so that several share one harvest.
3. After a chunk, when enough time has passed since the last one, a checkpoint is written. The same
   command goes on from it to the same result.
4. Each finished dictionary becomes an artifact of its own, and the checkpoint goes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from brainscan.activations.corpus import Corpus
from brainscan.activations.harvest import stream
from brainscan.activations.packing import DEFAULT_CONTEXT, pack
from brainscan.activations.store import ActivationStore
from brainscan.artifacts import ModelRef, write_file
from brainscan.artifacts.drafts import check_replaceable, claim
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.base import Dictionary
from brainscan.dictionaries.trainer import Trainer, TrainingConfig
from brainscan.errors import ArtifactError, CorpusError, UnknownHookpointError
from brainscan.models import LanguageModel, families
from brainscan.progress import Advance, progress
from brainscan.shapes import Float, Tensor

_CHECKPOINT_SECONDS = 60.0
_STORED_CHUNK = 65_536
_ENOUGH = 0.8

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


def train(source: Source, config: TrainingConfig, out: str | Path) -> list[Dictionary]:
    """Trains a dictionary for each of the source's hookpoints.

    Args:
        source: where activations come from.
        config: how to train.
        out: the dictionary's folder; with several hookpoints, a folder of one for each.
            Interrupted, the same call goes on from the last checkpoint.

    Raises:
        ArtifactError: an interrupted run with other settings is in the way.
        CorpusError: the source gave no activations.
        DiskFullError: there is no space left.
    """
    if source.tokens is not None and source.tokens < config.tokens:
        config = replace(config, tokens=source.tokens)
    run = _Run(source, config, Path(out))
    with run.claimed():
        trainers = run.restored()
        if trainers is None or _tokens(trainers) < config.tokens:
            trainers = _loop(source, config, run, trainers)
        return [run.finish(name, trainer) for name, trainer in trainers.items()]


def _loop(
    source: Source, config: TrainingConfig, run: _Run, trainers: dict[str, Trainer] | None
) -> dict[str, Trainer]:
    saved = time.monotonic()
    done = run.chunks_done
    with progress("train", config.tokens, "tokens") as advance:
        if trainers:
            advance(_tokens(trainers))
        for chunk in _filled(source.chunks(done)):
            if trainers is None:
                trainers = {name: Trainer.started(config, x) for name, x in chunk.items()}
            _train_on(chunk, done, trainers, config, advance)
            done += 1
            if _tokens(trainers) >= config.tokens:
                break
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                run.save(trainers, done)
                saved = time.monotonic()
    if trainers is None:
        raise CorpusError("text to train on", "no activations at all", "give a longer corpus")
    _check_length(_tokens(trainers), config.tokens)
    run.save(trainers, done)
    return trainers


def _filled(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks that hold a token; one of sinks alone holds none."""
    return (chunk for chunk in chunks if all(len(x) for x in chunk.values()))


def _tokens(trainers: Mapping[str, Trainer]) -> int:
    return min(trainer.tokens for trainer in trainers.values())


def _check_length(tokens: int, planned: int) -> None:
    """A run that ends early never had its small learning rates, and hardly any statistics."""
    if tokens < _ENOUGH * planned:
        raise CorpusError(
            f"a corpus of {planned:,} tokens, sinks apart",
            f"{tokens:,}",
            f"give more text, or ask for --tokens {tokens}",
        )
    if tokens < planned:
        warnings.warn(f"the corpus ended after {tokens:,} of {planned:,} tokens", stacklevel=3)


def _train_on(
    chunk: Chunk,
    number: int,
    trainers: Mapping[str, Trainer],
    config: TrainingConfig,
    advance: Advance,
) -> None:
    """Steps on one chunk, or on as much of it as completes the run."""
    rows = next(iter(chunk.values())).shape[0]
    seed = config.seed * 1_000_003 + number
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    for batch in order.tensor_split(max(1, round(rows / config.batch))):
        for name, trainer in trainers.items():
            trainer.step(chunk[name][batch])
        advance(batch.numel())
        if _tokens(trainers) >= config.tokens:
            return


class _Run:
    """The files of a run: the checkpoint beside the output, then the dictionaries."""

    def __init__(self, source: Source, config: TrainingConfig, out: Path) -> None:
        self.source = source
        self.config = config
        self.out = out
        self.checkpoint = out.with_name(out.name + ".checkpoint")
        self.settings = {**source.settings, **asdict(config), "peak_lr": config.peak_lr}
        self.chunks_done = 0
        for name in source.hookpoints:
            check_replaceable(self._place(name))

    def _place(self, hookpoint: str) -> Path:
        return self.out / hookpoint if len(self.source.hookpoints) > 1 else self.out

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps a second run of the same output away while the block runs."""
        lock = claim(self.checkpoint)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)
            if self.checkpoint.is_dir() and not any(self.checkpoint.glob("*.safetensors")):
                shutil.rmtree(self.checkpoint, ignore_errors=True)

    def _identity(self) -> dict[str, Any]:
        model = asdict(self.source.model) if self.source.model else None
        plain = {"model": model, "hookpoints": self.source.hookpoints, **self.settings}
        return dict(json.loads(json.dumps(plain)))

    def save(self, trainers: Mapping[str, Trainer], chunks_done: int) -> None:
        """Writes a checkpoint."""
        from safetensors.torch import save

        tensors = {
            f"{name}:{key}": value
            for name, trainer in trainers.items()
            for key, value in trainer.state().items()
        }
        note = {"identity": json.dumps(self._identity()), "chunks": str(chunks_done)}
        write_file(self.checkpoint / "state.safetensors", save(tensors, metadata=note))

    def restored(self) -> dict[str, Trainer] | None:
        """The trainers of an interrupted run, or None."""
        from safetensors import safe_open

        path = self.checkpoint / "state.safetensors"
        if not path.is_file():
            return None
        trainers = {}
        with safe_open(path, framework="pt") as file:
            note = file.metadata()
            found = json.loads(note["identity"])
            self._check_same(found)
            for name in self.source.hookpoints:
                prefix = f"{name}:"
                keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
                state = {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
                trainers[name] = Trainer.resumed(self.config, state, self.source.device)
        self.chunks_done = int(note["chunks"])
        return trainers

    def _check_same(self, found: Mapping[str, Any]) -> None:
        ours = self._identity()
        differ = [key for key in ours if found.get(key) != ours[key]]
        if differ:
            raise ArtifactError(
                f"the interrupted run in {self.checkpoint} to have the same settings",
                f"other {', '.join(differ)}",
                "repeat the first command to go on with it, or delete that folder",
            )

    def finish(self, name: str, trainer: Trainer) -> Dictionary:
        """Writes a dictionary; after the last one the checkpoint is deleted."""
        path = self._place(name)
        dictionary: Autoencoder = trainer.finish(name, self.source.model, self.settings)
        dictionary.figures = {"tokens": trainer.tokens, "fvu_in_training": trainer.fvu}
        dictionary.save(path)
        if name == self.source.hookpoints[-1]:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
        return Dictionary.load(path)
