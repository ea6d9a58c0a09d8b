"""What several sets of edits do to the same texts, beside the untouched model.

Neutral passages, batch by batch:

1. The untouched model runs; p are its probabilities at each position that predicts a token.
2. Each set of edits runs on the same batch. With z its logits and z0 the untouched ones,
   KL(p || q) = sum p (z0 - z) - logsumexp(z0) + logsumexp(z), in nats, and the change of the next
   token's negative log-likelihood is taken beside it.
3. Only sums per passage are kept; logits never outlive their batch.

Capability items, by summed log-probability of each choice's tokens, as the continuation of the
question after a space:

1. The choices of a question share its tokens, and a choice's last token is only predicted, never
   read. So of the contexts that need reading - the question with each choice but its last token -
   only those run that are not the beginning of another: one row where all choices are one token.
2. Each token's log-probability is looked up in the row that holds its context.
3. The choice with the largest sum is the answer; lengths are not normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from brainscan.errors import CorpusError
from brainscan.interventions.batches import by_length, check_untouched, logits_at, padded
from brainscan.interventions.texts import Item, Passage, Tokens, passage_tokens
from brainscan.models import Intervention, LanguageModel, intervene
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Int, Tensor

_TOKENS_AT_ONCE = 16  # so that intermediate results stay in the processor's cache


class PassageSums(NamedTuple):
    """Sums over each passage's predicted tokens."""

    kl: Float[Tensor, "arm passage"]
    nll_change: Float[Tensor, "arm passage"]
    tokens: Int[Tensor, " passage"]


class Contexts(NamedTuple):
    """The rows that an item needs, and where each choice's tokens are predicted."""

    rows: list[list[int]]
    shared: int
    """How many tokens the choices have in common: the question."""
    choices: list[tuple[int, list[int]]]
    """Of each choice the row that holds its context, and its tokens."""


def score_passages(
    lm: LanguageModel,
    edit_sets: Sequence[Sequence[Intervention]],
    passages: Sequence[Passage],
    batch: int,
) -> PassageSums:
    """KL and change of negative log-likelihood of each set of edits on each passage.

    Args:
        lm: the model.
        edit_sets: the sets of edits, each against the untouched model.
        passages: the passages.
        batch: the most passages at once.

    Raises:
        UsageError: the model is being edited already.
        CorpusError: a passage is too short.
    """
    check_untouched(lm, "to compare edits with")
    texts = [passage_tokens(lm, passage) for passage in passages]
    for passage, text in zip(passages, texts, strict=True):
        if len(text.ids) < 2:
            raise CorpusError(
                "a passage of at least two tokens", f"{passage.id!r}", "use longer passages"
            )
    kl = torch.zeros(len(edit_sets), len(texts), dtype=torch.float64)
    nll_change = torch.zeros_like(kl)
    lengths = [len(text.ids) for text in texts]
    with progress("neutral text", sum(lengths), "tokens") as advance:
        for group in by_length(lm, lengths, batch):
            rows = [texts[index] for index in group]
            for arm, (kl_sum, change) in enumerate(_compare(lm, edit_sets, rows)):
                kl[arm, group] = kl_sum
                nll_change[arm, group] = change
            advance(sum(lengths[index] for index in group))
    return PassageSums(kl, nll_change, torch.tensor(lengths) - 1)


def score_items(
    lm: LanguageModel,
    edit_sets: Sequence[Sequence[Intervention]],
    items: Sequence[Item],
    batch: int,
) -> Bool[Tensor, "arm item"]:
    """Whether each set of edits leaves the right choice the most probable, for each item.

    Args:
        lm: the model.
        edit_sets: the sets of edits; an empty one is the untouched model.
        items: the items.
        batch: the most items at once.

    Raises:
        UsageError: the model is being edited already.
    """
    check_untouched(lm, "to compare edits with")
    contexts = [item_contexts(lm, item) for item in items]
    correct = torch.zeros(len(edit_sets), len(items), dtype=torch.bool)
    lengths = [sum(map(len, context.rows)) for context in contexts]
    with progress("capability", len(items) * len(edit_sets), "items") as advance:
        for group in by_length(lm, lengths, batch):
            chosen = [contexts[index] for index in group]
            for arm, edits in enumerate(edit_sets):
                for index, sums in zip(group, _choice_sums(lm, edits, chosen), strict=True):
                    best = max(range(len(sums)), key=sums.__getitem__)
                    correct[arm, index] = best == items[index].answer
                advance(len(group))
    return correct


def item_contexts(lm: LanguageModel, item: Item) -> Contexts:
    """Which rows of tokens decide an item.

    Args:
        lm: the model, for its tokenizer.
        item: the item.
    """
    begin = list(lm.opening)
    wholes = [begin + lm.tokenize(f"{item.question} {choice}") for choice in item.choices]
    shared = _common(begin + lm.tokenize(item.question), *(whole[:-1] for whole in wholes))
    rows: list[list[int]] = []
    for whole in sorted(wholes, key=len, reverse=True):
        if not any(row[: len(whole) - 1] == whole[:-1] for row in rows):
            rows.append(whole[:-1])
    choices = [
        (next(n for n, row in enumerate(rows) if row[: len(whole) - 1] == whole[:-1]), whole)
        for whole in wholes
    ]
    return Contexts(rows, shared, [(row, whole[shared:]) for row, whole in choices])


def _common(*rows: Sequence[int]) -> int:
    """How many tokens all rows begin with."""
    for position, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return position
    return min(len(row) for row in rows)


def _compare(
    lm: LanguageModel, edit_sets: Sequence[Sequence[Intervention]], rows: Sequence[Tokens]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each arm's sums of KL and of NLL's change over each row."""
    batch = padded([row.ids for row in rows], lm.device)
    predicts = torch.zeros_like(batch.mask, dtype=torch.bool)
    predicts[:, :-1] = batch.mask[:, 1:].bool()
    row_of = predicts.nonzero()[:, 0].cpu()
    targets = batch.ids[:, 1:][predicts[:, :-1]]
    base = logits_at(lm, batch, predicts)
    for edits in edit_sets:
        with _edited(lm, edits, [row.prompt_length for row in rows]):
            edited = logits_at(lm, batch, predicts)
        kl, change = _divergence(base, edited, targets)
        sums = torch.zeros(2, len(rows), dtype=torch.float64)
        sums.index_add_(1, row_of, torch.stack([kl, change]).double().cpu())
        yield sums[0], sums[1]


def _divergence(
    base: Float[Tensor, "token vocab"],
    edited: Float[Tensor, "token vocab"],
    targets: Int[Tensor, " token"],
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """KL(base || edited) at each token, and the change of the target's NLL."""
    parts = []
    for start in range(0, len(targets), _TOKENS_AT_ONCE):
        part = slice(start, start + _TOKENS_AT_ONCE)
        z0, z = base[part].float(), edited[part].float()
        normaliser = z.logsumexp(-1) - z0.logsumexp(-1)
        moved = z0 - z
        kl = torch.einsum("tv,tv->t", z0.softmax(-1), moved) + normaliser
        target = targets[part].to(moved.device)[:, None]
        parts.append(torch.stack([kl, moved.gather(1, target)[:, 0] + normaliser]))
    both = torch.cat(parts, dim=1)
    return both[0], both[1]


def _choice_sums(
    lm: LanguageModel, edits: Sequence[Intervention], contexts: Sequence[Contexts]
) -> list[list[float]]:
    """The summed log-probability of each choice of each item."""
    rows = [row for context in contexts for row in context.rows]
    shared = [context.shared for context in contexts for _ in context.rows]
    batch = padded(rows, lm.device)
    at = torch.arange(batch.ids.shape[1], device=lm.device)
    kept = batch.mask.bool() & (at >= torch.tensor(shared, device=lm.device)[:, None] - 1)
    with _edited(lm, edits, shared):
        logprobs = logits_at(lm, batch, kept).float().log_softmax(-1)
    first_kept = [0, *kept.sum(1).cumsum(0).tolist()]
    sums, row = [], 0
    for context in contexts:
        lines = [
            range(first_kept[row + held], first_kept[row + held] + len(tokens))
            for held, tokens in context.choices
        ]
        sums.append(
            [
                float(logprobs[list(line), tokens].sum())
                for line, (_, tokens) in zip(lines, context.choices, strict=True)
            ]
        )
        row += len(context.rows)
    return sums


def _edited(
    lm: LanguageModel, edits: Sequence[Intervention], prompt_lengths: Sequence[int]
) -> AbstractContextManager[None]:
    return intervene(lm, edits, prompt_lengths=prompt_lengths)
