"""A corpus: named sources of documents, mixed, split and shuffled the same way every time.

1. Each source's documents are filtered to the split asked for and freed of repeats.
2. With a seed, each is shuffled within a window; without one, it keeps its order.
3. The sources are interleaved by weight. Nothing is held beyond the windows, so that memory does
   not grow with the corpus.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainscan.activations.documents import Document, Split, distinct, interleaved, shuffled
from brainscan.activations.files import hash_path, hub_revision, read_hub, read_path
from brainscan.activations.sources import Source, builtin_source, builtin_sources
from brainscan.errors import CorpusError

SPLITS: tuple[Split, ...] = ("train", "select", "test")


@dataclass(frozen=True)
class Corpus:
    """Sources of documents, mixed by weight."""

    spec: str
    """What it was opened from."""
    sources: tuple[Source, ...]
    """Where its documents come from."""

    def documents(self, split: str | None = None, seed: int | None = None) -> Iterator[Document]:
        """Its documents, deterministic for a seed.

        Args:
            split: only those of this split; None for all.
            seed: orders files and shuffles documents; None keeps the order in which they lie.

        Raises:
            CorpusError: there is not one such document.
        """
        if split is not None and split not in SPLITS:
            raise CorpusError(f"one of {', '.join(SPLITS)}", f"'{split}'", "name a split")
        streams = [(s.weight, self._stream(s, split, seed)) for s in self.sources]
        count = 0
        for document in distinct(interleaved(streams)):
            count += 1
            yield document
        if count == 0:
            part = f"in the split '{split}' of" if split else "in"
            raise CorpusError(
                f"at least one document {part} {self.spec}",
                "none with text",
                "give more text, or take it whole (split=None)",
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What names this corpus in a manifest: its spec, and each source's weight and state."""
        sources = {s.name: {"weight": s.weight, "version": s.version()} for s in self.sources}
        return {"spec": self.spec, "sources": sources}

    def _stream(self, source: Source, split: str | None, seed: int | None) -> Iterator[Document]:
        rng = None if seed is None else random.Random(f"{seed}/{source.name}")
        documents: Iterable[Document] = (
            document for document in source.read(rng) if split is None or document.split == split
        )
        return iter(documents) if rng is None else shuffled(documents, rng)


def open_corpus(spec: str | Path = "builtin") -> Corpus:
    """Opens a corpus; its text is read when documents are asked for.

    Args:
        spec: `builtin`; `builtin:NAME` for one of its sources; a file of text, jsonl or parquet, or
            a folder of such; or `hf:NAME` for a dataset by its name.
    """
    text = str(spec)
    if text == "builtin":
        return Corpus(text, builtin_sources())
    kind, _, name = text.partition(":")
    if kind == "builtin":
        return Corpus(text, (builtin_source(name),))
    if kind == "hf":
        hub = Source(name, 1.0, lambda rng: read_hub(name), lambda: hub_revision(name) or "unknown")
        return Corpus(text, (hub,))
    path = Path(spec).expanduser()
    if not path.exists():
        raise CorpusError(
            "'builtin', 'builtin:NAME', 'hf:NAME', or a text file or folder",
            f"no such file: {path}",
            "check the path",
        )
    source = Source(path.name, 1.0, lambda rng: read_path(path, rng), lambda: hash_path(path))
    return Corpus(text, (source,))
