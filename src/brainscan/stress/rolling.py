"""Rows that are written together and come and go at any token.

1. A newcomer's prompt runs alone, or is held already (`models.prefixes`). From then on the row gets
   a token at each step beside the others, drawn by its own settings from its own noise.
2. A row that ends leaves at once. Its place in the batch stays empty until newcomers come or half
   of the places are empty; then the batch is laid out anew: the prompts beside each other, and
   behind them what each row has written so far, padded on the left.
3. Where an edit fails at a token, the rows that have it end; the others go on from where they
   were, and read that token again.
4. Edits are on the model only while rows run: between two steps all of them can be taken off
   (`pause`), and something else may run.
5. Models whose rows cannot share prompts, and those on which someone else's hooks are, get batches
   that begin together; newcomers wait for the next one, and an edit that fails ends all rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch

from brainscan.memory import kept_memory
from brainscan.models.decoding import PromptBatch, evaluating, is_watched, may_pad
from brainscan.models.generate import Generation, Run, Sampling, end_tokens
from brainscan.models.hooks import Intervention, intervene
from brainscan.models.prefixes import PromptState, PromptStore, SharedBatch, may_share
from brainscan.models.rows import Alternative, Row, edits_of, make_rows
from brainscan.shapes import Float, Tensor

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

GROWTH = 256
"""Tokens for which a batch is laid out at once."""

_PAUSE = 0.3
"""Seconds of newcomers' prompts after which the others get their next token."""


class Drawn(NamedTuple):
    """A token that a row just got."""

    token: int
    logprob: float
    """Under the model's own distribution (temperature 1, all tokens)."""
    alternatives: tuple[Alternative, ...]
    """The most probable tokens, if they were asked for."""
    last: bool
    """Whether the row ends with it."""


OnDrawn: TypeAlias = Callable[[Drawn], bool | None]
"""Called in the engine's thread with each token of a row; False ends the row. It must not raise."""

OnEnd: TypeAlias = Callable[[Generation | BaseException], None]
"""Called once with what a row wrote, or why it could not."""


@dataclass(frozen=True)
class Newcomer:
    """A row that is to be written."""

    prompt: tuple[int, ...]
    """The prompt's tokens."""
    sampling: Sampling
    """How tokens are drawn; its seed is not used."""
    seed: int
    """Of the row's noise."""
    edits: tuple[Intervention, ...]
    """What is changed meanwhile; they may see a token again, where another row's edit failed."""
    alternatives: int
    """How many of the most probable tokens are wanted at each step."""
    hold: bool
    """Whether its prompt is kept for others."""
    on_drawn: OnDrawn
    """Hears of each token."""
    on_end: OnEnd
    """Hears of the end."""


@dataclass(eq=False)
class _Live:
    """A row that is being written."""

    newcomer: Newcomer
    run: Run
    row: Row
    state: PromptState | None
    logits: Float[Tensor, " vocab"]
    """Of its next token."""

    @property
    def drawing(self) -> tuple[float, float, int]:
        """What rows must have in common to be drawn in one go."""
        how = self.run.sampling
        return how.temperature, how.top_p, how.top_k

    def accept(self, token: int) -> None:
        """Gives it its token, and tells of it."""
        row, run = self.row, self.run
        run.accept([row], self.logits[None], [token])
        others = tuple(row.alternatives[-1]) if run.alternatives else ()
        drawn = Drawn(token, row.logprobs[-1], others, row.stop_reason is not None)
        if self.newcomer.on_drawn(drawn) is False and row.stop_reason is None:
            row.stop_reason = "cancelled"

    def end(self) -> None:
        """Gives what it wrote to whoever waits for it."""
        try:
            result: Generation | BaseException = self.run.result(self.row)
        except Exception as error:  # whoever waits must hear of it
            result = error
        self.newcomer.on_end(result)


class RollingBatch:
    """The rows that are being written."""

    def __init__(self, lm: LanguageModel, store: PromptStore, size: int) -> None:
        """No row yet.

        Args:
            lm: the model.
            store: where prompts are held.
            size: rows at most.
        """
        self.lm = lm
        self.store = store
        self.size = size
        self.live: list[_Live] = []
        self.joins = may_share(lm) and not is_watched(lm.model)
        self._ends = end_tokens(lm)
        self._slots: list[_Live] = []
        self._batch: SharedBatch | PromptBatch | None = None
        self._room = 0
        self._hooks = ExitStack()
        self._hooked = False
        self._busy_until = float("inf")

    @contextmanager
    def running(self) -> Iterator[None]:
        """While entered, rows may be written; at the end those that are left are cancelled."""
        with evaluating(self.lm.model), torch.no_grad(), kept_memory():
            try:
                yield
            finally:
                self._clear()
                for live in self.live:
                    live.row.stop_reason = live.row.stop_reason or "cancelled"
                    live.end()

    def takes(self, newcomer: Newcomer) -> bool:
        """Whether a row may join now."""
        if len(self.live) >= self.size:
            return False
        if self.joins:
            return not self._slots or time.monotonic() < self._busy_until
        alike = all(len(live.row.prompt) == len(newcomer.prompt) for live in self.live)
        return self._batch is None and (alike or may_pad(self.lm))

    def admit(self, newcomer: Newcomer) -> None:
        """Takes a row in; where that fails, it alone hears of it.

        Args:
            newcomer: the row.
        """
        try:
            live = self._begin(newcomer)
        except Exception as error:  # whoever waits must hear of it
            newcomer.on_end(error)
            return
        self.live.append(live)

    def step(self) -> None:
        """A token for each row."""
        if not self.joins and self._batch is None:
            self._begin_together()
        self._draw()
        ended = [live for live in self.live if live.row.stop_reason is not None]
        self.live = [live for live in self.live if live.row.stop_reason is None]
        if not self.live:
            self._clear()  # who hears of the end finds the model as it was
        for live in ended:
            live.end()
        if not self.live:
            return
        self._advance(self._lay_out())
        self._busy_until = time.monotonic() + _PAUSE

    def pause(self) -> None:
        """Takes the rows' edits off the model until the next step."""
        self._hooks.close()
        self._hooked = False

    def fail(self, error: BaseException) -> None:
        """Tells all rows of an error, and forgets them.

        Args:
            error: what happened.
        """
        rows, self.live = self.live, []
        self._clear()
        for live in rows:
            live.newcomer.on_end(error)

    def _begin(self, new: Newcomer) -> _Live:
        run = Run(self.lm, new.sampling, self._ends, None, True, new.alternatives, ())
        (row,) = make_rows(self.lm, [new.prompt], new.sampling, [new.edits], [new.seed])
        self.pause()
        for edit in new.edits:
            edit.attach(self.lm)  # what is wrong with one is its own row's affair
        if not self.joins:
            return _Live(new, run, row, None, torch.empty(0))
        (state,) = run.states_of(self.store if new.hold else PromptStore(), [row])
        return _Live(new, run, row, state, state.logits)

    def _begin_together(self) -> None:
        """Lays out rows that cannot be joined later, and runs their prompts."""
        rows = [live.row for live in self.live]
        edits = edits_of(rows)
        share = edits is rows[0].edits and may_pad(self.lm) and not is_watched(self.lm.model)
        self._room = max(row.limit for row in rows)
        self._slots = list(self.live)
        batch = PromptBatch(self.lm, [row.prompt for row in rows], self._room, share=share)
        self._hook()
        for live, logits in zip(self._slots, batch.start(), strict=True):
            live.logits = logits
        self._batch = batch

    def _draw(self) -> None:
        groups: dict[tuple[float, float, int], list[_Live]] = {}
        for live in self.live:
            groups.setdefault(live.drawing, []).append(live)
        for group in groups.values():
            logits = torch.stack([live.logits for live in group])
            rows = [live.row for live in group]
            tokens = group[0].run.choose(logits, rows, [len(row.tokens) for row in rows])
            for live, token in zip(group, tokens, strict=True):
                live.accept(token)

    def _lay_out(self) -> SharedBatch | PromptBatch:
        """The batch of the rows that are left, laid out anew if they have become others."""
        old = [slot for slot, live in enumerate(self._slots) if live.row.stop_reason is None]
        new = [live for live in self.live if live not in self._slots]
        few = 2 * len(old) <= len(self._slots) or not self._room
        if self._batch is not None and not (self.joins and (new or few)):
            return self._batch
        self.pause()
        left = [self._slots[slot] for slot in old] + new
        self._room = min(GROWTH, max(live.row.limit - len(live.row.tokens) for live in left))
        states = [live.state for live in new if live.state is not None]
        if old and isinstance(self._batch, SharedBatch):
            own = [len(self._slots[slot].row.tokens) - 1 for slot in old]
            batch = self._batch.joined(old, own, states, self._room)
        else:
            batch = SharedBatch(self.lm, states, self._room)
        self._slots, self._batch = left, batch
        return batch

    def _advance(self, batch: SharedBatch | PromptBatch) -> None:
        """Reads each row's last token; what its edits make of it is its own affair."""
        self._hook()
        tokens = torch.tensor([live.row.tokens[-1] for live in self._slots])
        done = batch.done if isinstance(batch, SharedBatch) else 0
        try:
            logits = batch.advance(tokens)
        except Exception as error:
            if not isinstance(batch, SharedBatch):
                raise
            batch.done = done
            if (rest := self._without_failing(batch, error)) is not None:
                self._advance(rest)
            return
        self._room -= 1
        for live, own in zip(self._slots, logits, strict=True):
            live.logits = own

    def _without_failing(self, batch: SharedBatch, error: Exception) -> SharedBatch | None:
        """Ends the rows that fail by themselves, and lays out the others; None if none is left.

        Args:
            batch: the batch, as it was before the token at which it failed.
            error: what happened; raised if no row fails by itself.
        """
        self.pause()
        own = [len(live.row.tokens) - 1 for live in self._slots]
        groups: dict[tuple[int, ...], list[int]] = {}
        for slot, live in enumerate(self._slots):
            if live.row.stop_reason is None:
                groups.setdefault(tuple(map(id, live.row.edits)), []).append(slot)
        failed: dict[int, Exception] = {}
        for slots in groups.values():
            rows = [self._slots[slot].row for slot in slots]
            alone = batch.only(slots, [own[slot] for slot in slots], 1)
            try:
                with intervene(self.lm, edits_of(rows), prompt_lengths=_lengths(rows)):
                    alone.advance(torch.tensor([row.tokens[-1] for row in rows]))
            except Exception as found:
                failed |= dict.fromkeys(slots, found)
        if not failed:
            raise error
        left = [slot for slots in groups.values() for slot in slots if slot not in failed]
        rest = batch.only(left, [own[slot] for slot in left], self._room) if left else None
        ended = [(self._slots[slot].newcomer, why) for slot, why in failed.items()]
        self._slots, self._batch = [self._slots[slot] for slot in left], rest
        self.live = list(self._slots)
        for newcomer, why in ended:
            newcomer.on_end(why)
        return rest

    def _hook(self) -> None:
        """Puts the rows' edits on the model, if they are not there."""
        if self._hooked:
            return
        rows = [live.row for live in self._slots]
        lengths = _lengths(rows) if self.joins else None
        self._hooks.enter_context(intervene(self.lm, edits_of(rows), prompt_lengths=lengths))
        self._hooked = True

    def _clear(self) -> None:
        self.pause()
        self._slots, self._batch, self._room = [], None, 0


def _lengths(rows: Sequence[Row]) -> list[int]:
    return [len(row.prompt) for row in rows]
