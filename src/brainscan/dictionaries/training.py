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
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from brainscan.activations.corpus import Corpus
from brainscan.activations.harvest import stream
from brainscan.activations.packing import DEFAULT_CONTEXT, pack
from brainscan.activations.store import ActivationStore
from brainscan.artifacts import ModelRef, write_file
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.base import Dictionary
from brainscan.dictionaries.trainer import Trainer, TrainingConfig
from brainscan.errors import ArtifactError, CorpusError
from brainscan.models import LanguageModel
from brainscan.progress import Advance, progress
from brainscan.shapes import Float, Tensor

_CHECKPOINT_SECONDS = 60.0

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
    """Activations from a store."""

    store: ActivationStore
    """The store."""

    hookpoints: tuple[str, ...]
    """Which of its hookpoints to train on."""

    @property
    def model(self) -> ModelRef | None:
        """The reference of the model that was harvested."""
        return self.store.manifest.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names the source in a manifest."""
        return {"store": self.store.manifest.digest}

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Shards of the store, from the given one on."""
        for part in islice(self.store.read(), start, None):
            yield {name: part.values[name] for name in self.hookpoints}


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
    run = _Run(source, config, Path(out))
    trainers = run.restored()
    done = run.chunks_done
    if trainers is None or min(t.tokens for t in trainers.values()) < config.tokens:
        trainers = _loop(source, config, run, trainers, done)
    return [run.finish(name, trainer) for name, trainer in trainers.items()]


def _loop(
    source: Source,
    config: TrainingConfig,
    run: _Run,
    trainers: dict[str, Trainer] | None,
    done: int,
) -> dict[str, Trainer]:
    saved = time.monotonic()
    with progress("train", config.tokens, "tokens") as advance:
        if trainers:
            advance(next(iter(trainers.values())).tokens)
        for number, chunk in enumerate(source.chunks(done), start=done):
            if trainers is None:
                trainers = {
                    name: Trainer.started(config, chunk[name]) for name in source.hookpoints
                }
            finished = _train_on(chunk, number, trainers, config, advance)
            if finished:
                break
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                run.save(trainers, number + 1)
                saved = time.monotonic()
    if trainers is None:
        raise CorpusError("text to train on", "no activations at all", "give a longer corpus")
    return trainers


def _train_on(
    chunk: Chunk,
    number: int,
    trainers: Mapping[str, Trainer],
    config: TrainingConfig,
    advance: Advance,
) -> bool:
    """Steps on one chunk; whether the run's length is reached."""
    rows = next(iter(chunk.values())).shape[0]
    seed = config.seed * 1_000_003 + number
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    trainer = next(iter(trainers.values()))
    for batch in order.tensor_split(max(1, round(rows / config.batch))):
        for name, trainer in trainers.items():
            trainer.step(chunk[name][batch])
        advance(batch.numel())
        if trainer.tokens >= config.tokens:
            return True
    return False


class _Run:
    """The files of a run: the checkpoint beside the output, then the dictionaries."""

    def __init__(self, source: Source, config: TrainingConfig, out: Path) -> None:
        self.source = source
        self.config = config
        self.out = out
        self.checkpoint = out.with_name(out.name + ".checkpoint")
        self.settings = {**source.settings, **asdict(config), "peak_lr": config.peak_lr}
        self.chunks_done = 0

    def _identity(self) -> dict[str, Any]:
        model = asdict(self.source.model) if self.source.model else None
        plain = {"model": model, "hookpoints": self.source.hookpoints, **self.settings}
        return dict(json.loads(json.dumps(plain)))

    def save(self, trainers: Mapping[str, Trainer], chunks_done: int) -> None:
        """Writes a checkpoint."""
        from safetensors.torch import save

        self.checkpoint.mkdir(parents=True, exist_ok=True)
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
                trainers[name] = Trainer.resumed(self.config, state)
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
        several = len(self.source.hookpoints) > 1
        path = self.out / name if several else self.out
        dictionary: Autoencoder = trainer.finish(name, self.source.model, self.settings)
        dictionary.figures = {"tokens": trainer.tokens, "fvu_in_training": trainer.fvu}
        dictionary.save(path)
        if name == self.source.hookpoints[-1]:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
        return Dictionary.load(path)
