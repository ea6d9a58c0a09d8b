"""Rows that begin like a draft, for as long as their edits change no token of it.

An edit that acts late, or seldom, leaves the beginning of an answer as it was, and reading tokens
is several times cheaper than writing them.

1. A draft is what a row would write without its edits, by the same noise. Rows read their drafts,
   in passes of 16 tokens, and beside them, for each draft, so does a row without edits.
2. At each token both draw from their own logits. Where they draw the same token, or the row draws
   the draft's, the edits change nothing, and the draft's token is taken: an edit of zero leaves the
   draft as it is, however sums are rounded.
3. At the first token that the edits change, the row takes its own, and goes on without a draft.
   Rows that have ended leave the batch as soon as a quarter of it has.

The drafts of speculative decoding (Leviathan et al. 2023, arXiv:2211.17192), which come from the
same model here, and are compared under common noise instead of being rejected at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from brainscan.models.hooks import intervene
from brainscan.models.prefixes import PromptState, SharedBatch
from brainscan.models.rows import Row, edits_of
from brainscan.shapes import Tensor

if TYPE_CHECKING:
    from brainscan.models.language_model import LanguageModel

PASS = 16
"""Tokens of a pass over drafts; fewer where their logits would be too many."""
_LOGITS = 2**27
_FULL = 0.75

Choose: TypeAlias = Callable[[Tensor, Sequence[Row], Sequence[int]], list[int]]
"""Draws a token for each row from logits ``[row, vocab]``, its index in each row given."""

Take: TypeAlias = Callable[[Row, int], None]
"""Gives a row its next token, and ends it where that does."""


def write_from_drafts(
    lm: LanguageModel,
    rows: Sequence[Row],
    states_of: Callable[[Sequence[Row]], Sequence[PromptState]],
    choose: Choose,
    take: Take,
) -> None:
    """Writes until every row has ended.

    Args:
        lm: the model.
        rows: the rows, with their drafts; one without any begins by itself.
        states_of: the prompts of rows.
        choose: draws tokens.
        take: gives tokens.
    """
    plain = {_key(row): _untouched(row) for row in rows if row.draft}
    everyone = [*rows, *plain.values()]
    place = {key: len(rows) + n for n, key in enumerate(plain)}
    references = [place.get(_key(row), n) for n, row in enumerate(everyone)]
    states = states_of(everyone)
    batch = SharedBatch(lm, states, max(len(row.draft) for row in rows))
    with intervene(lm, edits_of(everyone), prompt_lengths=[len(row.prompt) for row in everyone]):
        begun = _begun(batch, everyone, references, len(rows), choose)
    for row, tokens in zip(rows, begun, strict=False):
        for token in tokens:
            if row.stop_reason is None:
                take(row, token)
    _go_on(lm, batch, rows, choose, take)


def _begun(
    batch: SharedBatch,
    everyone: Sequence[Row],
    references: Sequence[int],
    n: int,
    choose: Choose,
) -> list[list[int]]:
    """What each of the first n rows begins with: as much of its draft as holds, and one token."""
    begun: list[list[int]] = [[] for _ in range(n)]
    following = set(range(n))
    longest = max(len(row.draft) for row in everyone)
    drafts = torch.tensor([[*row.draft] + [0] * (longest - len(row.draft)) for row in everyone])
    logits = batch.start()
    size = max(1, min(PASS, _LOGITS // logits.numel()))
    for start in range(0, longest, size):
        read = batch.read(drafts[:, start : start + size])
        for index in range(start, min(start + size, longest)):
            _compare(index, logits, everyone, references, following, begun, choose)
            logits = read[:, index - start]
        if not following:
            return begun
    _compare(longest, logits, everyone, references, following, begun, choose)
    return begun


def _compare(
    index: int,
    logits: Tensor,
    everyone: Sequence[Row],
    references: Sequence[int],
    following: set[int],
    begun: list[list[int]],
    choose: Choose,
) -> None:
    """Gives the rows that follow their drafts a token; those that part from them follow no more."""
    if not following:
        return
    asked = sorted(following | {references[row] for row in following})
    drawn = choose(logits[asked], [everyone[row] for row in asked], [index] * len(asked))
    own = dict(zip(asked, drawn, strict=True))
    for row in sorted(following):
        draft = everyone[row].draft
        if index < len(draft) and own[row] in (draft[index], own[references[row]]):
            begun[row].append(draft[index])
        else:
            begun[row].append(own[row])
            following.remove(row)


def _go_on(
    lm: LanguageModel, batch: SharedBatch, rows: Sequence[Row], choose: Choose, take: Take
) -> None:
    """Writes what is left of each row; the batch becomes smaller as rows end."""
    while waiting := [n for n, row in enumerate(rows) if row.stop_reason is None]:
        read = [len(rows[n].tokens) - 1 for n in waiting]
        rows = [rows[n] for n in waiting]
        batch = batch.only(waiting, read, max(row.limit - len(row.tokens) for row in rows))
        lengths, left = [len(row.prompt) for row in rows], len(rows)
        with intervene(lm, edits_of(rows), prompt_lengths=lengths):
            while left > _FULL * len(rows):
                logits = batch.advance(torch.tensor([row.tokens[-1] for row in rows]))
                drawn = choose(logits, rows, [len(row.tokens) for row in rows])
                for row, token in zip(rows, drawn, strict=True):
                    if row.stop_reason is None:
                        take(row, token)
                left = sum(row.stop_reason is None for row in rows)


def _key(row: Row) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    return tuple(row.prompt), row.seed, row.draft


def _untouched(row: Row) -> Row:
    return Row(row.index, row.prompt, row.seed, (), row.limit, row.draft)
