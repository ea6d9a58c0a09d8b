"""Activations of a model over text, as a stream or as a store on disk.

1. Contexts go through the model `batch` at a time, all of one length, without padding, mask or
   cache, and only up to the last layer that is asked for. On a processor a pass takes 2,048
   tokens: what goes from one operation to the next in a larger one falls out of the cache.
2. At each hookpoint a token is a sink if its norm exceeds ten times the context's median norm; the
   first token of every context is one too, since models park attention there. A token that is a
   sink at any of the hookpoints asked for is left out at all of them, and counted.
3. `harvest` writes what `stream` gives into shards of a fixed number of contexts, each under a
   temporary name and renamed when whole. Contexts, batches and shards depend on the settings
   alone, so that a run killed at any moment goes on after its last whole shard and ends with the
   same bytes.

Sinks: Sun et al. 2024, "Massive Activations in Large Language Models" (arXiv:2402.17762).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from brainscan.activations.corpus import SPLITS, Corpus
from brainscan.activations.packing import DEFAULT_CONTEXT, Context, pack
from brainscan.activations.store import (
    Activations,
    ActivationStore,
    list_shards,
    read_header,
    write_shard,
)
from brainscan.artifacts import create
from brainscan.errors import UsageError
from brainscan.memory import kept_memory
from brainscan.models.attention import BlockedAttention
from brainscan.models.hooks import capture
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

SINK_RATIO = 10.0
"""A norm beyond this many times the median makes a sink."""

CPU_PASS, DEVICE_PASS = 2048, 8192
"""Tokens of a forward pass on a processor, and on anything else."""


@dataclass(frozen=True)
class HarvestConfig:
    """What to harvest."""

    hookpoints: tuple[str, ...]
    """Where to read; several are read in one pass."""
    tokens: int
    """Tokens to read, rounded up to whole contexts; sinks count as read."""
    context: int = DEFAULT_CONTEXT
    """Tokens of a context."""
    batch: int | None = None
    """Contexts in a forward pass; None for what suits the device."""
    shard: int = 32
    """Contexts in a shard: what is redone at most after an interruption, and held in memory."""
    seed: int = 0
    """Orders the corpus."""
    split: str | None = "train"
    """The split to read; None for all of the corpus."""

    def __post_init__(self) -> None:
        for name in ("tokens", "context", "batch", "shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} of at least 1", f"{value}", "raise it")
        if not self.hookpoints:
            raise UsageError("at least one hookpoint", "none", "name one, such as resid_post.15")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(f"a split of {', '.join(SPLITS)}", f"'{self.split}'", "name one")

    @property
    def contexts(self) -> int:
        """Contexts to read."""
        return -(-self.tokens // self.context)


def find_sinks(values: Float[Tensor, "batch position d"]) -> Bool[Tensor, "batch position"]:
    """Which tokens are sinks: the first of each row, and those over ten times its median."""
    norms = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float32)
    sinks: Tensor = norms > SINK_RATIO * norms.median(dim=1, keepdim=True).values
    sinks[:, 0] = True
    return sinks


def stream(
    lm: LanguageModel,
    contexts: Iterable[Context],
    hookpoints: Sequence[str],
    batch: int | None = None,
) -> Iterator[Activations]:
    """The activations of contexts, a batch at a time, with only the layers needed run.

    Args:
        lm: the model, used as it is.
        contexts: what is read, all of one length; taken as needed.
        hookpoints: where to read, all in one pass.
        batch: contexts in a forward pass; None for what suits the device.
    """
    names = list(dict.fromkeys(lm.resolve(hookpoint) for hookpoint in hookpoints))
    rows = iter(contexts)
    tokens = CPU_PASS if lm.device.type == "cpu" else DEVICE_PASS
    with kept_memory():
        while group := list(islice(rows, 1)):
            size = batch or max(1, tokens // len(group[0].tokens))
            group += islice(rows, size - 1)
            yield _read(lm, group, names)


def harvest(
    lm: LanguageModel, corpus: Corpus, config: HarvestConfig, out: str | Path
) -> ActivationStore:
    """Writes the activations of a corpus as an artifact of kind "activations".

    Args:
        lm: the model.
        corpus: the text.
        config: what to read.
        out: the artifact's folder. Interrupted, the same call goes on where it was.
    """
    names = tuple(dict.fromkeys(lm.resolve(hookpoint) for hookpoint in config.hookpoints))
    settings = {
        "corpus": corpus.settings,
        **asdict(config),
        "hookpoints": names,
        "dtype": str(lm.dtype).removeprefix("torch."),  # the same text in another gives other bytes
    }
    with create(
        out,
        kind="activations",
        model=lm.ref,
        hookpoints=names,
        settings=settings,
        seed=config.seed,
        resumable=True,
    ) as draft:
        contexts = pack(lm, corpus.documents(config.split, config.seed), config.context)
        rows = islice(contexts, config.contexts)
        done = len(list_shards(draft.path))
        with progress("harvest", config.contexts * config.context, "tokens") as advance:
            for number in range(-(-config.contexts // config.shard)):
                group = list(islice(rows, config.shard))
                if group and number >= done:
                    parts = list(stream(lm, group, names, config.batch))
                    write_shard(draft.path, number, parts, _document_ids(group))
                advance(len(group) * config.context)
        draft.figures.update(_figures(draft.path))
    return ActivationStore.open(out, verify=False)


def _read(lm: LanguageModel, contexts: Sequence[Context], names: Sequence[str]) -> Activations:
    """One forward pass, and what it gives without the sinks."""
    tokens = torch.stack([context.tokens for context in contexts])
    with torch.inference_mode(), BlockedAttention(), capture(lm, names, stop=True) as captured:
        lm.model(input_ids=tokens.to(lm.device), use_cache=False)
    sinks = torch.stack([find_sinks(captured[name]) for name in names]).any(dim=0)
    kept = sinks.logical_not().flatten().nonzero()[:, 0]
    values = {name: captured[name].flatten(0, 1).index_select(0, kept) for name in names}
    kept = kept.cpu()
    return Activations(
        values=values,
        tokens=tokens.flatten()[kept],
        documents=torch.cat([context.documents for context in contexts])[kept],
        positions=torch.arange(tokens.shape[1]).repeat(len(contexts))[kept],
        n_sinks=tokens.numel() - len(kept),
    )


def _document_ids(contexts: Sequence[Context]) -> dict[int, str]:
    """The ids of the contexts' documents by running number."""
    return {
        int(context.documents[0]) + place: name
        for context in contexts
        for place, name in enumerate(context.document_ids)
    }


def _figures(folder: Path) -> dict[str, int]:
    """What a harvest gave, from its shards' headers."""
    headers = [read_header(path) for path in list_shards(folder)]
    return {
        "tokens": sum(header.n_tokens for header in headers),
        "sinks": sum(header.n_sinks for header in headers),
        "documents": len({number for header in headers for number in header.document_ids}),
    }
