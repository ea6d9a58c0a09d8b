"""The rows of a call of `generate`: what each is to go on from, and what it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from brainscan.errors import UsageError
from brainscan.models.hooks import Intervention, per_row
from brainscan.models.noise import row_seeds
from brainscan.shapes import Float, Tensor

if TYPE_CHECKING:
    from brainscan.models.generate import Sampling
    from brainscan.models.language_model import LanguageModel

StopReason: TypeAlias = Literal["stop", "length", "cancelled"]


class Alternative(NamedTuple):
    """A token that might have been drawn."""

    token: int
    logprob: float


@dataclass
class Row:
    """A row and what it has written so far."""

    index: int
    prompt: list[int]
    seed: int
    edits: tuple[Intervention, ...]
    limit: int
    draft: tuple[int, ...] = ()
    cached: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[list[Alternative]] = field(default_factory=list)
    activations: Mapping[str, Float[Tensor, "position _"]] = field(default_factory=dict)
    stop_reason: StopReason | None = None


def make_rows(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    edits: Sequence[Sequence[Intervention]] | Sequence[Intervention],
    seeds: Sequence[int] | None,
    drafts: Sequence[Sequence[int]] = (),
) -> list[Row]:
    """The rows to be written, with what belongs to each."""
    if drafts and len(drafts) != len(prompts):
        raise UsageError(
            f"a draft for each of {len(prompts)} prompts",
            f"{len(drafts)}",
            "pass one per prompt, an empty one where there is none",
        )
    each_edits = _edits_by_row(edits, len(prompts))
    each_seed = row_seeds(sampling.seed, len(prompts)) if seeds is None else list(seeds)
    if len(each_seed) != len(prompts):
        raise UsageError(
            f"a seed for each of {len(prompts)} prompts", f"{len(each_seed)}", "pass one per prompt"
        )
    window = lm.context_window
    rows = []
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise UsageError(
                "prompts of at least one token",
                f"prompt {index} is empty",
                "start it with a token, such as the beginning-of-sequence token",
            )
        room = window - len(prompt) if window else sampling.max_new_tokens
        if room < 1:
            raise UsageError(
                f"prompts shorter than the context window of {window} tokens",
                f"prompt {index} with {len(prompt)} tokens",
                "shorten it",
            )
        limit = min(room, sampling.max_new_tokens)
        draft = tuple(drafts[index])[:limit] if drafts else ()
        rows.append(Row(index, list(prompt), each_seed[index], each_edits[index], limit, draft))
    return rows


def _edits_by_row(
    edits: Sequence[Sequence[Intervention]] | Sequence[Intervention], count: int
) -> list[tuple[Intervention, ...]]:
    given = [tuple(edit) if isinstance(edit, Sequence) else edit for edit in edits]
    by_row = [edit for edit in given if isinstance(edit, tuple)]
    if not by_row:
        everywhere = tuple(edit for edit in given if not isinstance(edit, tuple))
        return [everywhere] * count
    if len(by_row) != len(given) or len(by_row) != count:
        raise UsageError(
            f"edits for all rows, or one sequence of edits for each of {count} prompts",
            f"{len(by_row)} sequences among {len(given)} entries",
            "pass one sequence per prompt",
        )
    return by_row


def edits_of(rows: Sequence[Row]) -> Sequence[Intervention]:
    """The rows' edits as those of a batch."""
    if len({tuple(map(id, row.edits)) for row in rows}) == 1:
        return rows[0].edits
    return (per_row([row.edits for row in rows]),)


def batches(rows: list[Row], batch_size: int | None, padded: bool) -> Iterator[list[Row]]:
    """Rows of similar length together, the longest first; of equal length unless ``padded``."""
    if batch_size is not None and batch_size < 1:
        raise UsageError("a batch size of at least 1", str(batch_size), "raise it")
    waiting = sorted(rows, key=lambda row: -len(row.prompt)) if batch_size or not padded else rows
    while waiting:
        longest = len(waiting[0].prompt)
        fits = [row for row in waiting if padded or len(row.prompt) == longest][:batch_size]
        waiting = waiting[len(fits) :]
        yield fits
