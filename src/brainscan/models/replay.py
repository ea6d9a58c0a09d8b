"""Rows that ran once, run again from a hookpoint on: their last tokens only, under other edits.

1. Every row runs once, untouched, in batches padded on the left. Kept are the keys and values of
   the layers from the hookpoint's on, the residual that enters those layers at the last ``tail``
   tokens, the hookpoint's activation there, and the logits of the last token.
2. A run feeds the tail's tokens, with the cache wound back to before them. The layers below do not
   run (`skipping`). At ``resid_post.L`` layer L is one of them: it returns what it returned at
   first, and hooks on its output get that.
3. The tail's keys and values are written over those of the run before, so nothing is copied. Where
   gradients are asked for, they go into new tensors behind the kept ones instead.
4. Where that cannot be done, whole rows run, and the edits still see the tail only: the results are
   the same. So it is where the cache holds more than each layer's own keys and values, where layers
   pass on more than the residual, where someone else's hooks are on the layers below, and where the
   first batch, run again without edits, does not come to its own logits.

Edits act within the tail alone: what they would do before it is not seen. A norm makes a token of
the prompt a sink (`interventions.sinks`) if it is large beside the tail's. ``tail=None`` is the
whole row.

Sums are rounded in another order than over whole rows: in fp32 logits agree within 1e-4, in bf16
within some hundredths of their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch.nn.functional import pad

from brainscan.errors import UsageError
from brainscan.memory import kept_memory
from brainscan.models.decoding import PromptBatch, evaluating, may_pad
from brainscan.models.families import order
from brainscan.models.hooks import Hook, Intervention, Site, capture, intervene
from brainscan.models.rows import Row, batches
from brainscan.models.skipping import KeptBatch, LayersBelow, agree, keep, may_rewind
from brainscan.shapes import Bool, Float, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel


@runtime_checkable
class RowWise(Protocol):
    """An intervention that is another for each row, such as a `Patch` or that of `per_row`."""

    @property
    def count(self) -> int:
        """How many rows it is for."""

    def for_rows(self, index: Sequence[int]) -> Intervention:
        """That of some of the rows, in this order."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Replaces the activation at single tokens, counted from the end of each row."""

    hookpoint: str
    """Where."""

    values: Mapping[int, Float[Tensor, "row d"]]
    """By token, -1 for the last: what each row gets there. Padding stays as it is."""

    def __post_init__(self) -> None:
        if any(token >= 0 for token in self.values):
            raise UsageError(
                "tokens counted from the end, -1 for the last",
                str([*self.values]),
                "subtract the number of tokens",
            )
        lengths = [len(value) for value in self.values.values()]
        if len(set(lengths)) > 1:
            raise UsageError("values for the same rows", f"{lengths} rows", "pass one per row")

    @property
    def count(self) -> int:
        """How many rows it is for."""
        return len(next(iter(self.values.values()), ()))

    def for_rows(self, index: Sequence[int]) -> Patch:
        """That of some of the rows, in this order."""
        values = {token: value[list(index)] for token, value in self.values.items()}
        return Patch(self.hookpoint, values)

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hook that replaces."""
        return [(self.hookpoint, self._replace)] if self.values else []

    def _replace(self, x: Float[Tensor, "row position d"], site: Site) -> Tensor:
        new = x.clone()
        for token, value in self.values.items():
            if value.shape != (len(x), x.shape[2]):
                raise UsageError(
                    f"values of shape {(len(x), x.shape[2])} at {self.hookpoint}",
                    f"{tuple(value.shape)}",
                    "pass a vector of the hookpoint's width for each row",
                )
            if -token <= x.shape[1]:
                real = (site.positions[:, token] >= 0)[:, None]
                new[:, token] = torch.where(real, value.to(x), x[:, token])
        return new


class Replay:
    """The states of rows, from which they run again under edits at a hookpoint or later ones."""

    tail: int
    """How many of each row's last tokens run again."""

    logits: Float[Tensor, "row vocab"]
    """After each row, untouched."""

    activations: Float[Tensor, "row tail d"]
    """The hookpoint's, untouched, the last token's last; zero where a row is shorter."""

    mask: Bool[Tensor, "row tail"]
    """Which of them are of tokens."""

    skips: bool
    """Whether what edits cannot change is skipped; else whole rows run."""

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[Sequence[int]],
        prompt_lengths: Sequence[int],
        hookpoint: str,
        tail: int | None,
        *,
        batch: int = 32,
    ) -> None:
        """Runs the rows once, with the model as it is at that moment.

        Args:
            lm: the model.
            rows: token ids, as the model is to see them; nothing is added.
            prompt_lengths: how many tokens of each row are prompt, for edits that ask.
            hookpoint: the earliest that will be edited or read.
            tail: how many of each row's last tokens edits may act on; None for all.
            batch: the most rows that run together.

        Raises:
            UsageError: for rows, prompt lengths or a tail that cannot be.
        """
        _check(lm, rows, prompt_lengths, tail)
        self.lm = lm
        self.hookpoint = lm.resolve(hookpoint)
        self.tail = max(map(len, rows)) if tail is None else tail
        self._below = LayersBelow(lm, self.hookpoint)
        self._parts: list[_Part] = []
        self.skips = may_rewind(lm) and not self._below.watched
        waiting = [Row(n, list(row), 0, (), 0) for n, row in enumerate(rows)]
        with evaluating(lm.model), torch.no_grad(), kept_memory():
            seen = [
                self._start(group, prompt_lengths)
                for group in batches(waiting, batch, padded=may_pad(lm))
            ]
        self._order = torch.tensor([n for part in self._parts for n in part.rows]).argsort()
        self.logits = self._in_order([one.logits for one in seen])
        self.activations = self._in_order([one.activations for one in seen])
        self.mask = self._in_order([one.mask for one in seen])

    @property
    def size(self) -> int:
        """Bytes held."""
        kept = sum(part.kept.size for part in self._parts if part.kept is not None)
        return kept + self.logits.nbytes + self.activations.nbytes + self.mask.nbytes

    def run(
        self, edits: Sequence[Intervention] = (), *, grad: bool = False
    ) -> Float[Tensor, "row vocab"]:
        """The logits after each row, with edits of its tail.

        Hooks of others on the layers that run see what runs.

        Args:
            edits: at the hookpoint or later; the same for all rows, save what is `RowWise`.
            grad: build the graph, to differentiate through.

        Raises:
            UsageError: for an edit that acts or reads before the hookpoint.
        """
        attached = [self._attached(edit) for edit in edits]
        short = self.skips and not self._below.watched
        with evaluating(self.lm.model), torch.set_grad_enabled(grad), kept_memory():
            return self._in_order([self._run(part, attached, short) for part in self._parts])

    def patched(
        self, values: Mapping[int, Float[Tensor, "row d"]], *, grad: bool = False
    ) -> Float[Tensor, "row vocab"]:
        """The logits after each row, with the hookpoint's activation replaced at some tokens.

        Args:
            values: by column of `activations`: what each row gets there.
            grad: build the graph, to differentiate through.
        """
        if not all(-self.tail <= column < self.tail for column in values):
            raise UsageError(
                f"columns of a tail of {self.tail} tokens", str([*values]), "count from 0"
            )
        by_token = {column % self.tail - self.tail: value for column, value in values.items()}
        return self.run([Patch(self.hookpoint, by_token)], grad=grad)

    def _start(self, group: Sequence[Row], prompt_lengths: Sequence[int]) -> _Seen:
        """Runs a batch for the first time."""
        tokens, rows = [row.prompt for row in group], [row.index for row in group]
        columns = min(self.tail, max(map(len, tokens)))
        part = _Part(rows, tokens, [prompt_lengths[n] for n in rows], columns)
        batch, entry = PromptBatch(self.lm, tokens, 0, share=False), self._below.entry
        names = [self.hookpoint] if entry is None else [self.hookpoint, entry]
        with self._below.examined(), capture(self.lm, names) as found:
            logits = batch.start()
        if self.skips:
            residual = None if entry is None else found[entry]
            part.kept = keep(self._below, batch, residual, columns)
            if not self._parts:
                self.skips = part.kept is not None and agree(self._run(part, (), True), logits)
                part.kept = part.kept if self.skips else None
        self._parts.append(part)
        real = batch.mask[:, -columns:].bool()
        there = _vectors(found[self.hookpoint], self.hookpoint)[:, -columns:]
        there = there.masked_fill(~real.to(there.device)[..., None], 0)
        before = self.tail - columns
        return _Seen(logits, pad(there, (0, 0, before, 0)), pad(real, (before, 0)))

    def _attached(self, edit: Intervention) -> Intervention:
        """An edit, if it lies where it may, with its hooks made once for all batches."""
        hooks = tuple(edit.attach(self.lm))
        for hookpoint, _ in hooks:
            if order(self.lm.resolve(hookpoint)) < order(self.hookpoint):
                raise UsageError(
                    f"edits that act and read at {self.hookpoint} or later",
                    f"one at {hookpoint}",
                    "keep the states at the earliest hookpoint",
                )
        if not isinstance(edit, RowWise):
            return _Attached(hooks)
        if hooks and edit.count != len(self.logits):
            raise UsageError(
                f"an edit of {len(self.logits)} rows", f"one of {edit.count}", "pass all rows"
            )
        return edit

    def _run(self, part: _Part, edits: Sequence[Intervention], short: bool) -> Tensor:
        own = [edit.for_rows(part.rows) if isinstance(edit, RowWise) else edit for edit in edits]
        if short and part.kept is not None:
            with intervene(self.lm, own, prompt_lengths=part.prompt_lengths):
                return part.kept.run()
        narrow = [_OnTail(edit, part.columns) for edit in own]
        with intervene(self.lm, narrow, prompt_lengths=part.prompt_lengths):
            return PromptBatch(self.lm, part.tokens, 0, share=False).start()

    def _in_order(self, parts: Sequence[Tensor]) -> Tensor:
        """What belongs to the rows, from batch by batch to the order they were given in."""
        return torch.cat(list(parts))[self._order]


class _Seen(NamedTuple):
    """What a batch came to when it first ran."""

    logits: Float[Tensor, "row vocab"]
    activations: Float[Tensor, "row tail d"]
    mask: Bool[Tensor, "row tail"]


@dataclass
class _Part:
    """Rows that run together."""

    rows: list[int]
    tokens: list[list[int]]
    prompt_lengths: list[int]
    columns: int
    """How many of the batch's last columns the tail has."""
    kept: KeptBatch | None = None
    """None where whole rows run."""


@dataclass(frozen=True)
class _Attached:
    """Hooks that were made already."""

    hooks: tuple[tuple[str, Hook], ...]

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        return self.hooks


@dataclass(frozen=True)
class _OnTail:
    """An intervention of whole rows that sees their last columns only."""

    intervention: Intervention
    columns: int

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        return [(name, self._narrow(hook)) for name, hook in self.intervention.attach(lm)]

    def _narrow(self, hook: Hook) -> Hook:
        def change(activation: Tensor, site: Site) -> Tensor:
            start = activation.shape[1] - self.columns
            tail = activation[:, start:]
            new = hook(tail, site.columns(slice(start, None)))
            if new is tail:
                return activation
            return torch.cat([activation[:, :start], new.to(activation.dtype)], dim=1)

        return change


def _check(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    tail: int | None,
) -> None:
    lengths, window = [len(row) for row in rows], lm.context_window
    if not lengths or not all(lengths):
        raise UsageError(
            "rows of at least one token each", f"rows of {lengths}", "leave empty ones out"
        )
    if window is not None and max(lengths) > window:
        raise UsageError(
            f"rows within the context window of {window} tokens",
            f"one of {max(lengths)}",
            "shorten it",
        )
    if len(prompt_lengths) != len(rows):
        raise UsageError(
            f"a prompt length for each of {len(rows)} rows",
            f"{len(prompt_lengths)}",
            "pass one per row",
        )
    if tail is not None and tail < 1:
        raise UsageError("a tail of at least one token", str(tail), "use None for whole rows")


def _vectors(activation: Tensor, hookpoint: str) -> Float[Tensor, "row column d"]:
    if activation.ndim != 3:
        raise UsageError(
            f"a vector for each token at {hookpoint}",
            f"the shape {tuple(activation.shape)}",
            "choose another hookpoint",
        )
    return activation
