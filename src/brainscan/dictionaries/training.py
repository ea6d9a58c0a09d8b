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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from brainscan.artifacts import write_file
from brainscan.artifacts.drafts import check_replaceable, claim
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.base import Dictionary
from brainscan.dictionaries.sources import Chunk, Source
from brainscan.dictionaries.trainer import Trainer, TrainingConfig
from brainscan.errors import ArtifactError, CorpusError
from brainscan.memory import kept_memory
from brainscan.progress import Advance, progress

_CHECKPOINT_SECONDS = 60.0
_ENOUGH = 0.8


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
    with kept_memory(), progress("train", config.tokens, "tokens") as advance:
        if trainers:
            advance(_tokens(trainers))
        for chunk in _filled(source.chunks(done)):
            if trainers is None:
                trainers = {name: Trainer.started(config, x) for name, x in chunk.items()}
            train_on(chunk, done, trainers, config, advance)
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


def train_on(
    chunk: Chunk,
    number: int,
    trainers: Mapping[str, Trainer],
    config: TrainingConfig,
    advance: Advance,
    targets: Chunk | None = None,
) -> None:
    """Steps on one chunk, or on as much of it as completes the run.

    Args:
        chunk: the activations.
        number: the chunk's number, which with the seed gives its order.
        trainers: one for each hookpoint.
        config: the run's length, batch and seed.
        advance: is told of every token done.
        targets: what is to be reconstructed from the activations; None for themselves.
    """
    rows = next(iter(chunk.values())).shape[0]
    seed = config.seed * 1_000_003 + number
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    for batch in order.tensor_split(max(1, round(rows / config.batch))):
        for name, trainer in trainers.items():
            trainer.step(chunk[name][batch], None if targets is None else targets[name][batch])
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
