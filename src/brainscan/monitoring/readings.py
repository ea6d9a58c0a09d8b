"""Activations of many rows of tokens at several hookpoints, a batch at a time.

Rows of like length go together, padded on the right: what stands behind a token does not change it.
Only the layers needed run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from brainscan.activations import find_sinks
from brainscan.activations.harvest import CPU_PASS, DEVICE_PASS
from brainscan.interventions.batches import padded
from brainscan.memory import kept_memory
from brainscan.models import LanguageModel, capture
from brainscan.models.attention import BlockedAttention
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Int, Tensor


class RowReading(NamedTuple):
    """What the hookpoints hold for one row."""

    row: int
    """Its number."""
    values: Mapping[str, Float[Tensor, "token _"]]
    """By hookpoint, as the model computes them."""
    sinks: Bool[Tensor, " token"]
    """Which tokens are attention sinks at any of the hookpoints."""
    logprobs: Float[Tensor, " token"] | None = None
    """Each token's log-probability; not a number for the first. None where it was not asked for."""


def read_rows(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    hookpoints: Sequence[str],
    label: str = "read",
    *,
    logprobs: bool = False,
) -> Iterator[RowReading]:
    """Reads rows, the longest first.

    Args:
        lm: the model.
        rows: each row's tokens; an empty one is left out.
        hookpoints: where to read, all in one pass.
        label: what the progress bar says.
        logprobs: also how probable each token was; then all layers run.
    """
    names = list(dict.fromkeys(lm.resolve(name) for name in hookpoints))
    with progress(label, sum(map(len, rows)), "tokens") as advance, kept_memory():
        for group in _groups(lm, rows):
            batch = padded([rows[row] for row in group], lm.device)
            with (
                torch.inference_mode(),
                BlockedAttention(),
                capture(lm, names, stop=not logprobs) as found,
            ):
                output = lm.model(input_ids=batch.ids, use_cache=False)
            scores = _logprobs(output.logits, batch.ids) if logprobs else None
            for slot, row in enumerate(group):
                values = {name: found[name][slot, : len(rows[row])] for name in names}
                sinks = torch.stack([find_sinks(own[None])[0].cpu() for own in values.values()])
                own = None if scores is None else scores[slot, : len(rows[row])]
                yield RowReading(row, values, sinks.any(0), own)
                advance(len(rows[row]))


def _logprobs(
    logits: Float[Tensor, "row token vocab"], ids: Int[Tensor, "row token"]
) -> Float[Tensor, "row token"]:
    """Each token's log-probability given those before it."""
    drawn = ids[:, 1:, None]
    scores = torch.full(ids.shape, torch.nan)
    for row, own in enumerate(logits[:, :-1]):  # a row at a time: logits are large
        scores[row, 1:] = own.float().log_softmax(-1).gather(1, drawn[row])[:, 0].cpu()
    return scores


def _groups(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Rows that go through the model together."""
    tokens = CPU_PASS if lm.device.type == "cpu" else DEVICE_PASS
    group: list[int] = []
    for row in sorted((n for n, row in enumerate(rows) if row), key=lambda n: -len(rows[n])):
        if group and (len(group) + 1) * len(rows[group[0]]) > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
