"""Writing continuations of many prompts at once.

1. Prompts are sorted by length and cut into batches; a batch is padded on the left. Models whose
   cache holds more than keys and values (recurrent states) get batches of equal length instead,
   so that nothing is padded.
2. Prefill: the prompts run once; a prompt that several rows have in common runs once for all of
   them, unless the rows differ in their edits or someone else's hooks watch the model. Only the
   last position's logits are computed.
3. Decoding: one token per row and step, drawn with noise that depends on the row's seed and on the
   index of the generated token alone (`noise`), so two arms with the same seeds differ only by
   their edits. A finished row stays in its batch, and what it would go on to write is thrown away:
   the shape of the batch is fixed until all rows are finished.

What a row gets is bit for bit the same for a fixed shape, whatever the other rows contain. The
shape is the number of rows, that of distinct prompts, and the longest prompt; in a mixture of
experts also how many tokens meet at each. Between shapes sums are rounded in another order. On the
CPU every row is padded, so hooks see at least one column of padding in prefill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from brainscan.errors import UsageError
from brainscan.memory import kept_memory
from brainscan.models.decoding import PromptBatch, context_window, evaluating, is_watched, may_pad
from brainscan.models.hooks import Intervention, intervene, per_row
from brainscan.models.noise import draw, row_seeds
from brainscan.shapes import Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

OnToken: TypeAlias = Callable[[int, int], bool | None]
"""Called with a row (the index of its prompt) and its new token; False ends that row."""

StopReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when a row ends."""

    max_new_tokens: int = 128
    """The most tokens a row gets; fewer where its context window ends."""

    temperature: float = 0.0
    """Logits are divided by it; 0 takes the most probable token."""

    top_p: float = 1.0
    """Only the most probable tokens that together have this probability are drawn from."""

    seed: int = 0
    """Of the noise: the first row's own, from which the others' are made (`noise.row_seeds`)."""

    stop: tuple[str, ...] = ()
    """A row ends when its text contains one of these; the text is cut before it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError("max_new_tokens of at least 1", str(self.max_new_tokens), "raise it")
        if not 0 <= self.temperature < math.inf:
            raise UsageError("a temperature of 0 or more", str(self.temperature), "use 0 or 1")
        if not 0 < self.top_p <= 1:
            raise UsageError("top_p above 0 and at most 1", str(self.top_p), "use 1 for all tokens")
        if "" in self.stop:  # a plain string contains it too
            raise UsageError("a tuple of non-empty stop strings", repr(self.stop), "leave it empty")


@dataclass(frozen=True)
class Generation:
    """What one row wrote."""

    prompt_tokens: list[int]
    """The prompt, as given."""

    tokens: list[int]
    """All tokens drawn, including the one that ended the row."""

    text: str
    """The tokens' text, without an end-of-sequence token and cut before a stop string."""

    stop_reason: StopReason
    """``stop``: an end-of-sequence token or stop string; ``length``; ``cancelled`` by on_token."""

    logprobs: list[float] | None
    """Of each token, under the model's own distribution (temperature 1, all tokens)."""


def generate(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    edits: Sequence[Sequence[Intervention]] | Sequence[Intervention] = (),
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    on_token: OnToken | None = None,
    logprobs: bool = False,
) -> list[Generation]:
    """Continues each prompt; results are in the prompts' order.

    Args:
        lm: the model.
        prompts: token ids, as the model is to see them; nothing is added.
        sampling: how to draw; greedy when left out.
        edits: for all rows, or one sequence of edits for each row.
        seeds: of each row's noise, instead of seeds made from ``sampling.seed``.
        batch_size: the most rows that run together; all of them when left out.
        on_token: called with (row, token) after each token; returning False ends that row.
        logprobs: also return each token's log-probability.
    """
    sampling = sampling or Sampling()
    rows = _rows(lm, prompts, sampling, edits, seeds)
    plain = may_pad(lm)
    run = _Run(lm, sampling, _end_tokens(lm), on_token, logprobs)
    with evaluating(lm.model), torch.no_grad(), kept_memory():
        for batch in _batches(rows, batch_size, padded=plain):
            run.decode(batch, may_share=plain and not is_watched(lm.model))
    return [run.result(row) for row in rows]


@dataclass
class _Row:
    """A row and what it has written so far."""

    index: int
    prompt: list[int]
    seed: int
    edits: tuple[Intervention, ...]
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None


@dataclass(frozen=True)
class _Run:
    """What all batches of a call have in common."""

    lm: LanguageModel
    sampling: Sampling
    ends: Collection[int]
    on_token: OnToken | None
    logprobs: bool

    def decode(self, rows: list[_Row], may_share: bool) -> None:
        """Writes until every row of the batch has ended."""
        same_edits = len({tuple(map(id, row.edits)) for row in rows}) == 1
        edits = rows[0].edits if same_edits else (per_row([row.edits for row in rows]),)
        seeds = [row.seed for row in rows]
        steps = max(row.limit for row in rows)
        with intervene(self.lm, edits):
            prompts = [row.prompt for row in rows]
            batch = PromptBatch(self.lm, prompts, steps, share=may_share and same_edits)
            logits = batch.start()
            for step in range(steps):
                tokens = draw(logits, seeds, step, self.sampling.temperature, self.sampling.top_p)
                self._accept(rows, logits, tokens)
                if all(row.stop_reason for row in rows):
                    return
                logits = batch.advance(tokens)

    def _accept(self, rows: list[_Row], logits: Tensor, tokens: Tensor) -> None:
        """Gives each unfinished row its token."""
        if self.logprobs:
            chosen = logits.gather(1, tokens[:, None])[:, 0].float()
            scores = (chosen - logits.float().logsumexp(-1)).tolist()
        for slot, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if row.stop_reason is None:
                row.tokens.append(token)
                if self.logprobs:
                    row.logprobs.append(scores[slot])
                row.stop_reason = self._ending(row)

    def _ending(self, row: _Row) -> StopReason | None:
        """Why a row ends with the token it just got, if it does."""
        cancelled = self.on_token is not None and self.on_token(row.index, row.tokens[-1]) is False
        if row.tokens[-1] in self.ends or self._has_stop_string(row.tokens):
            return "stop"
        if cancelled:
            return "cancelled"
        return "length" if len(row.tokens) >= row.limit else None

    def _has_stop_string(self, tokens: list[int]) -> bool:
        if not self.sampling.stop:
            return False
        reach = max(len(stop.encode()) for stop in self.sampling.stop) + 8
        tail = self.lm.decode(tokens[-reach:])
        if not any(stop in tail for stop in self.sampling.stop):
            return False
        text = self.lm.decode(tokens)
        return any(stop in text for stop in self.sampling.stop)

    def result(self, row: _Row) -> Generation:
        """The finished row."""
        ended = row.tokens[-1] in self.ends
        text = self.lm.decode(row.tokens[:-1] if ended else row.tokens)
        for stop in self.sampling.stop:
            text = text.partition(stop)[0]
        scores = row.logprobs if self.logprobs else None
        return Generation(row.prompt, row.tokens, text, row.stop_reason or "length", scores)


def _rows(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    edits: Sequence[Sequence[Intervention]] | Sequence[Intervention],
    seeds: Sequence[int] | None,
) -> list[_Row]:
    """The rows to be written, with what belongs to each."""
    each_edits = _edits_by_row(edits, len(prompts))
    each_seed = row_seeds(sampling.seed, len(prompts)) if seeds is None else list(seeds)
    if len(each_seed) != len(prompts):
        raise UsageError(
            f"a seed for each of {len(prompts)} prompts", f"{len(each_seed)}", "pass one per prompt"
        )
    window = context_window(lm)
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
        rows.append(_Row(index, list(prompt), each_seed[index], each_edits[index], limit))
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


def _batches(rows: list[_Row], batch_size: int | None, padded: bool) -> Iterator[list[_Row]]:
    """Rows of similar length together, the longest first; of equal length unless ``padded``."""
    if batch_size is not None and batch_size < 1:
        raise UsageError("a batch size of at least 1", str(batch_size), "raise it")
    waiting = sorted(rows, key=lambda row: -len(row.prompt)) if batch_size or not padded else rows
    while waiting:
        longest = len(waiting[0].prompt)
        fits = [row for row in waiting if padded or len(row.prompt) == longest][:batch_size]
        waiting = waiting[len(fits) :]
        yield fits


def _end_tokens(lm: LanguageModel) -> set[int]:
    """The tokens that end a text, by the model's generation settings and by its tokenizer."""
    settings = getattr(lm.model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    several = ends if isinstance(ends, list | tuple) else [ends]
    return {token for token in (*several, lm.tokenizer.eos_token_id) if token is not None}
