"""Rows of tokens of different lengths in batches, with logits only where they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from brainscan.errors import UsageError
from brainscan.models import LanguageModel
from brainscan.shapes import Bool, Float, Int, Tensor

_LOGITS_AT_ONCE = 2**26


class Batch(NamedTuple):
    """Rows of tokens, padded on the right where the mask is 0."""

    ids: Int[Tensor, "batch position"]
    mask: Int[Tensor, "batch position"]

    @property
    def positions(self) -> Int[Tensor, "batch position"]:
        """Each token's index in its own row; -1 is padding."""
        return torch.where(self.mask.bool(), self.mask.cumsum(1) - 1, -1)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """The rows as one batch.

    Args:
        rows: each row's tokens.
        device: where the batch goes.
    """
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return Batch(ids.to(device), mask.to(device))


def check_untouched(lm: LanguageModel, purpose: str) -> None:
    """Refuses a model that is being edited, where the untouched one is measured.

    Args:
        lm: the model.
        purpose: what it is needed for.

    Raises:
        UsageError: it is being edited.
    """
    if lm.model._forward_pre_hooks:
        raise UsageError(
            f"a model without edits, {purpose}",
            "a model that is being edited",
            "leave the block that edits it first",
        )


def by_length(lm: LanguageModel, lengths: Sequence[int], rows_at_once: int) -> Iterator[list[int]]:
    """Indices of rows to take together: of like length, longest first, their logits bounded.

    Args:
        lm: the model, whose vocabulary says how large the logits are.
        lengths: each row's length.
        rows_at_once: the most rows of a batch.
    """
    tokens_at_once = _LOGITS_AT_ONCE // lm.vocab_size
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        rows = len(group) + 1
        if group and (rows > rows_at_once or rows * lengths[group[0]] > tokens_at_once):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def logits_at(
    lm: LanguageModel, batch: Batch, kept: Bool[Tensor, "batch position"]
) -> Float[Tensor, "kept vocab"]:
    """The logits after the kept tokens, row by row; the output matrix sees no others.

    Args:
        lm: the model, with whatever edits are on it.
        batch: the tokens.
        kept: where logits are wanted.
    """

    def keep(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden[kept.to(hidden.device)][None], *args[1:])

    hook = lm.model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            output = lm.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    finally:
        hook.remove()
    logits: Tensor = output.logits[0]
    return logits
