"""Activations on disk: shards of safetensors, memory-mapped, read in order or shuffled.

1. A shard holds, for each token kept, the activation at each hookpoint in bf16, the token id, the
   running number of its document and its position; its header names the documents and counts the
   sinks.
2. `batches` shuffles in bounded memory: the store is parted in runs of 256 rows, the runs are
   permuted by the seed over the whole store, and each window of 256 runs is read and its rows
   permuted. The order depends on the seed and the batch size alone, so that reading can start at
   any batch without going through those before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save

from brainscan.artifacts import Manifest, open_artifact, write_file
from brainscan.errors import UsageError
from brainscan.shapes import Float, Int, Tensor

RUN = 256
"""Rows that stay together until their window is shuffled."""

WINDOW = 128
"""Runs of a window."""

_HEADER = "brainscan"
_ROWS = ("tokens", "documents", "positions")


@dataclass(frozen=True)
class Activations:
    """What some contexts gave, sinks left out; row i of each tensor is the same token."""

    values: Mapping[str, Float[Tensor, "n _"]]
    """By hookpoint: in the model's dtype as computed, in bf16 as stored."""
    tokens: Int[Tensor, " n"]
    """Token ids."""
    documents: Int[Tensor, " n"]
    """The running number of each token's document."""
    positions: Int[Tensor, " n"]
    """The place of each token in its context."""
    n_sinks: int
    """How many tokens were left out."""


class ShardInfo(NamedTuple):
    """What a shard's header says."""

    path: Path
    n_tokens: int
    n_sinks: int
    document_ids: dict[int, str]


class Run(NamedTuple):
    """Rows of one shard that are read together."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class ActivationStore:
    """An artifact of kind "activations", read without holding it."""

    manifest: Manifest
    """What it is and was made from."""
    shards: tuple[ShardInfo, ...]
    """Its shards in the order of the text."""

    @staticmethod
    def open(path: str | Path, verify: bool = True) -> ActivationStore:
        """Opens a store.

        Args:
            path: the artifact's folder.
            verify: hash its files first.
        """
        manifest = open_artifact(path, kind="activations", verify=verify)
        return ActivationStore(manifest, tuple(read_header(p) for p in list_shards(Path(path))))

    @property
    def hookpoints(self) -> tuple[str, ...]:
        """The hookpoints it holds."""
        return self.manifest.hookpoints

    @property
    def n_tokens(self) -> int:
        """Tokens kept."""
        return sum(shard.n_tokens for shard in self.shards)

    @property
    def n_sinks(self) -> int:
        """Tokens read and left out."""
        return sum(shard.n_sinks for shard in self.shards)

    def document_ids(self) -> dict[int, str]:
        """The id of each document by its running number."""
        return {n: name for shard in self.shards for n, name in shard.document_ids.items()}

    def read(self) -> Iterator[Activations]:
        """Everything in the order of the text, a shard at a time."""
        for shard in self.shards:
            with safe_open(shard.path, framework="pt") as file:
                values = {name: file.get_tensor(name) for name in self.hookpoints}
                rows = {name: file.get_tensor(name).long() for name in _ROWS}
            yield Activations(values, **rows, n_sinks=shard.n_sinks)

    def batches(
        self, hookpoint: str, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch d"]]:
        """One hookpoint's activations, each once, shuffled, in batches of one size.

        Args:
            hookpoint: one that the store holds.
            batch_size: rows of a batch; what is left over at the end is not given.
            seed: the order.
            start: the first batch given; those before are passed over unread.
        """
        self._check(hookpoint, batch_size)
        skip = start * batch_size
        held: list[Tensor] = []
        for number, runs in enumerate(self._windows(seed)):
            n_rows = sum(run.stop - run.start for run in runs)
            if skip >= n_rows:
                skip -= n_rows
                continue
            order = torch.randperm(n_rows, generator=_generator(seed, number + 1))[skip:]
            held.append(self._gather(hookpoint, runs)[order])
            skip = 0
            rows = torch.cat(held) if len(held) > 1 else held[0]
            n_whole = len(rows) // batch_size * batch_size
            held = [rows[n_whole:].clone()]
            yield from rows[:n_whole].split(batch_size) if n_whole else ()

    def _check(self, hookpoint: str, batch_size: int) -> None:
        if hookpoint not in self.hookpoints:
            raise UsageError(
                f"one of the store's hookpoints: {', '.join(self.hookpoints)}",
                f"'{hookpoint}'",
                "name one of these or harvest again",
            )
        if not 0 < batch_size <= self.n_tokens:
            raise UsageError(
                f"a batch of 1 to {self.n_tokens} tokens (all that the store holds)",
                f"{batch_size}",
                "ask for smaller batches or harvest more",
            )

    def _windows(self, seed: int) -> Iterator[list[Run]]:
        """The store's runs in the order of the seed, a window at a time."""
        runs = [
            Run(index, start, min(start + RUN, shard.n_tokens))
            for index, shard in enumerate(self.shards)
            for start in range(0, shard.n_tokens, RUN)
        ]
        order = torch.randperm(len(runs), generator=_generator(seed, 0)).tolist()
        for first in range(0, len(order), WINDOW):
            yield [runs[index] for index in order[first : first + WINDOW]]

    def _gather(self, hookpoint: str, runs: list[Run]) -> Float[Tensor, "n d"]:
        """The rows of runs; files are mapped only for as long as they are read."""
        parts: list[Tensor] = []
        for index in sorted({run.shard for run in runs}):
            with safe_open(self.shards[index].path, framework="pt") as file:
                rows = file.get_slice(hookpoint)
                parts += [rows[run.start : run.stop] for run in runs if run.shard == index]
        return torch.cat(parts)


def write_shard(
    folder: Path, number: int, parts: list[Activations], document_ids: Mapping[int, str]
) -> None:
    """Writes a shard, whole or not at all; activations in bf16, whatever the model's dtype.

    Args:
        folder: where shards are.
        number: its place in the text.
        parts: what is in it.
        document_ids: the ids of its documents by running number.
    """
    names = parts[0].values
    tensors = {
        name: torch.cat([part.values[name].bfloat16() for part in parts]).cpu() for name in names
    }
    for name in _ROWS:
        tensors[name] = torch.cat([getattr(part, name) for part in parts]).int().cpu()
    # One key, since safetensors writes several in no fixed order.
    header = {
        "n_sinks": sum(part.n_sinks for part in parts),
        "document_ids": [[number, name] for number, name in document_ids.items()],
    }
    data = save(tensors, metadata={_HEADER: json.dumps(header)})
    write_file(folder / f"shard-{number:05d}.safetensors", data)


def list_shards(folder: Path) -> list[Path]:
    """The whole shards in a folder, in the order of the text."""
    return sorted(folder.glob("shard-*.safetensors"))


def read_header(path: Path) -> ShardInfo:
    """What a shard's header says; nothing else is read."""
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()[_HEADER])
        n_tokens = file.get_slice("tokens").get_shape()[0]
    return ShardInfo(path, n_tokens, header["n_sinks"], dict(header["document_ids"]))


def _generator(seed: int, part: int) -> torch.Generator:
    """A generator for one part of the shuffle."""
    return torch.Generator().manual_seed(seed * 1_000_003 + part)
