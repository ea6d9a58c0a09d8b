"""Writing continuations of many prompts at once.

1. Prompts are sorted by length and cut into batches; a batch is padded on the left. Models whose
   cache holds more than keys and values (recurrent states) get batches of equal length instead,
   so that nothing is padded.
2. Prefill: the prompts run once; a prompt that several rows have in common runs once for all of
   them, unless the rows differ in their edits or someone else's hooks watch the model. Only the
   last position's logits are computed. Where most rows share their prompts, and always with a
   `PromptStore`, a prompt is also held once (`prefixes`), if the model's attention is plain.
3. Decoding: one token per row and step, drawn with noise that depends on the row's seed and on the
   index of the generated token alone (`noise`), so two arms with the same seeds differ only by
   their edits. A finished row stays in its batch, and what it would go on to write is thrown away:
   the shape of the batch is fixed until all rows are finished.
4. Rows that were given drafts, which must be what they write without their edits, begin by reading
   them (`drafts`), if the model's attention is plain and nothing but tokens is asked for. Their
   batch shrinks as rows end, so that its shape, and with it rounding, depends on what they write.

What a row gets is bit for bit the same for a fixed shape, whatever the other rows contain. The
shape is the number of rows, that of distinct prompts, and the longest prompt; in a mixture of
experts also how many tokens meet at each. Between shapes sums are rounded in another order. On the
CPU every row is padded, so hooks see at least one column of padding in prefill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from brainscan.errors import UsageError
from brainscan.memory import kept_memory
from brainscan.models.decoding import PromptBatch, evaluating, is_watched, may_pad
from brainscan.models.drafts import write_from_drafts
from brainscan.models.hooks import Intervention, capture, intervene
from brainscan.models.noise import draw
from brainscan.models.prefixes import (
    Prompt,
    PromptState,
    PromptStore,
    SharedBatch,
    may_share,
)
from brainscan.models.rows import Alternative, Row, StopReason, batches, edits_of, make_rows
from brainscan.shapes import Float, Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

OnToken: TypeAlias = Callable[[int, int], bool | None]
"""Called with a row (the index of its prompt) and its new token; False ends that row. What a row
takes over of a draft comes all at once, row after row."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when a row ends."""

    max_new_tokens: int = 128
    """The most tokens a row gets; fewer where its context window ends."""

    temperature: float = 0.0
    """Logits are divided by it; 0 takes the most probable token."""

    top_p: float = 1.0
    """Only the most probable tokens that together have this probability are drawn from."""

    top_k: int = 0
    """Only so many of the most probable tokens are drawn from; 0 for all."""

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
        if self.top_k < 0:
            raise UsageError("a top_k of 0 or more", str(self.top_k), "use 0 for all tokens")
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

    alternatives: list[list[Alternative]] | None = None
    """For each token the most probable ones, likewise, the most probable first."""

    activations: Mapping[str, Float[Tensor, "position _"]] = field(
        default_factory=dict, compare=False
    )
    """By hookpoint: of the prompt and of all tokens but the last, which never ran."""

    cached: int = field(default=0, compare=False)
    """How many of the prompt's tokens did not run for this row, since their states were held."""


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
    alternatives: int = 0,
    keep: Sequence[str] = (),
    store: PromptStore | None = None,
    drafts: Sequence[Sequence[int]] = (),
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
        alternatives: also return so many of the most probable tokens at each step.
        keep: hookpoints whose activations are also returned, with the edits' changes.
        store: prompts of earlier calls with this model; holds those of this one afterwards.
        drafts: the tokens that each row gets without its edits, all else being equal; empty where
            they are not known. They save time: a row begins with those that its edits leave.
    """
    sampling = sampling or Sampling()
    rows = make_rows(lm, prompts, sampling, edits, seeds, drafts)
    plain = may_pad(lm)
    kept = tuple(dict.fromkeys(lm.resolve(hookpoint) for hookpoint in keep))
    run = Run(lm, sampling, end_tokens(lm), on_token, logprobs, alternatives, kept)
    with evaluating(lm.model), torch.no_grad(), kept_memory():
        watched = is_watched(lm.model)
        may_draft = may_share(lm) and not (watched or keep or logprobs or alternatives)
        for batch in batches(rows, batch_size, padded=plain):
            if may_draft and any(row.draft for row in batch):
                states_of = partial(run.states_of, store or PromptStore())
                write_from_drafts(lm, batch, states_of, run.choose, run.take)
            elif not watched and _pays(lm, batch, store):
                run.decode_shared(batch, store or PromptStore())
            else:
                run.decode(batch, may_share=plain and not watched)
    return [run.result(row) for row in rows]


@dataclass(frozen=True)
class Run:
    """What all batches of a call have in common."""

    lm: LanguageModel
    sampling: Sampling
    ends: Collection[int]
    on_token: OnToken | None
    logprobs: bool
    alternatives: int
    keep: tuple[str, ...]

    def decode(self, rows: list[Row], may_share: bool) -> None:
        """Writes until every row of the batch has ended."""
        edits = edits_of(rows)
        same_edits = edits is rows[0].edits
        steps = max(row.limit for row in rows)
        prompts = [row.prompt for row in rows]
        batch = PromptBatch(self.lm, prompts, steps, share=may_share and same_edits)
        with intervene(self.lm, edits):
            self._write(rows, batch)

    def decode_shared(self, rows: list[Row], store: PromptStore) -> None:
        """The same, with each prompt held once."""
        states = self.states_of(store, rows)
        steps = max(row.limit for row in rows)
        lengths = [len(row.prompt) for row in rows]
        with intervene(self.lm, edits_of(rows), prompt_lengths=lengths):
            self._write(rows, SharedBatch(self.lm, states, steps))

    def states_of(self, store: PromptStore, rows: Sequence[Row]) -> list[PromptState]:
        """The states of rows' prompts, held in a store."""
        run: dict[Any, PromptState] = {}  # the store may let go of some before all have run
        states = []
        for row in rows:
            prompt = _prompt(row)
            known = prompt.key in run or store.holds(prompt, self.keep)
            if prompt.key not in run:
                run[prompt.key] = store.run(self.lm, prompt, self.keep)
            states.append(run[prompt.key])
            row.cached = len(row.prompt) if known else states[-1].reused
        return states

    def choose(self, logits: Tensor, rows: Sequence[Row], indices: Sequence[int]) -> list[int]:
        """Draws a token for each row, from its own noise at its own index."""
        seeds, how = [row.seed for row in rows], self.sampling
        return draw(logits, seeds, indices, how.temperature, how.top_p, how.top_k).tolist()

    def take(self, row: Row, token: int) -> None:
        """Gives a row its token, and ends it where that does."""
        row.tokens.append(token)
        row.stop_reason = self._ending(row)

    def _write(self, rows: list[Row], batch: PromptBatch | SharedBatch) -> None:
        steps: list[Mapping[str, Tensor]] = []
        with ExitStack() as stack:
            seen = stack.enter_context(capture(self.lm, self.keep)) if self.keep else {}
            logits = batch.start()
            prompts = batch.prompt_activations(seen) if self.keep else []
            for step in range(max(row.limit for row in rows)):
                tokens = self.choose(logits, rows, [step] * len(rows))
                self.accept(rows, logits, tokens)
                if all(row.stop_reason for row in rows):
                    break
                logits = batch.advance(torch.tensor(tokens))
                steps.append({name: seen[name][:, 0].clone() for name in self.keep})
        for slot, (row, prompt) in enumerate(zip(rows, prompts, strict=False)):
            own = steps[: len(row.tokens) - 1]
            row.activations = {
                name: torch.cat([prompt[name], *(step[name][slot, None] for step in own)])
                for name in self.keep
            }

    def accept(self, rows: list[Row], logits: Tensor, tokens: Sequence[int]) -> None:
        """Gives each unfinished row its token."""
        if self.logprobs or self.alternatives:
            all_scores = logits.float().log_softmax(-1)
            drawn = torch.tensor(tokens, device=logits.device)
            scores = all_scores.gather(1, drawn[:, None])[:, 0].tolist()
            best = [part.tolist() for part in all_scores.topk(max(1, self.alternatives))]
        for slot, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if row.stop_reason is None:
                if self.logprobs:
                    row.logprobs.append(scores[slot])
                if self.alternatives:
                    pairs = zip(best[1][slot], best[0][slot], strict=True)
                    row.alternatives.append([Alternative(*pair) for pair in pairs])
                self.take(row, token)

    def _ending(self, row: Row) -> StopReason | None:
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

    def result(self, row: Row) -> Generation:
        """The finished row."""
        ended = row.tokens[-1] in self.ends
        text = self.lm.decode(row.tokens[:-1] if ended else row.tokens)
        for stop in self.sampling.stop:
            text = text.partition(stop)[0]
        scores = row.logprobs if self.logprobs else None
        reason = row.stop_reason or "length"
        others = row.alternatives if self.alternatives else None
        return Generation(
            row.prompt, row.tokens, text, reason, scores, others, row.activations, row.cached
        )


def _pays(lm: LanguageModel, rows: Sequence[Row], store: PromptStore | None) -> bool:
    """Whether to hold prompts once: always with a store, else where most rows share theirs."""
    distinct = len({_prompt(row).key for row in rows})
    return (store is not None or 2 * distinct <= len(rows)) and may_share(lm)


def _prompt(row: Row) -> Prompt:
    """A row's prompt; edits that act on the answer alone make no other prompt of it."""
    acting = (edit for edit in row.edits if getattr(edit, "acts_on_prompt", True))
    return Prompt(tuple(row.prompt), tuple(acting))


def end_tokens(lm: LanguageModel) -> set[int]:
    """The tokens that end a text, by the model's generation settings and by its tokenizer."""
    settings = getattr(lm.model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    several = ends if isinstance(ends, list | tuple) else [ends]
    return {token for token in (*several, lm.tokenizer.eos_token_id) if token is not None}
