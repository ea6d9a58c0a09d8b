"""What a model has read when it decides, and the log-odds of its decision.

A context is a prompt and the answer up to the token at which harmful and harmless continuations
part. The decision's log-odds there are the log-probability of the tokens that begin a harmful
continuation less that of those that begin a harmless one: above 0 the model is about to do harm.
They need no sampling, so that hundreds of edits can be compared by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from brainscan.models import LanguageModel
from brainscan.models.replay import Replay
from brainscan.shapes import Float, Tensor


@dataclass(frozen=True)
class Context:
    """A prompt and an answer up to the decision."""

    tokens: tuple[int, ...]
    """The tokens; the decision is the one that follows."""
    prompt_length: int
    """How many of them are the prompt."""
    harmful: tuple[int, ...]
    """Tokens that begin a harmful continuation."""
    harmless: tuple[int, ...]
    """Tokens that begin a harmless one."""
    unit: str = ""
    """What it has in common with others: the persona-wording."""
    cell: tuple[str, ...] = ()
    """The levels of the factors that are crossed."""

    @property
    def answered(self) -> int:
        """How many tokens of the answer it holds."""
        return len(self.tokens) - self.prompt_length


def log_odds(
    logits: Float[Tensor, "row vocab"], contexts: Sequence[Context]
) -> Float[Tensor, " row"]:
    """The decision's log-odds of each context.

    Args:
        logits: those at each context's last token.
        contexts: the contexts.
    """
    return torch.stack(
        [
            row[list(one.harmful)].logsumexp(0) - row[list(one.harmless)].logsumexp(0)
            for row, one in zip(logits.float(), contexts, strict=True)
        ]
    )


def replay_of(
    lm: LanguageModel, contexts: Sequence[Context], hookpoint: str, tail: int | None = 1
) -> Replay:
    """The contexts' states at a hookpoint, for running them again under edits.

    Args:
        lm: the model.
        contexts: the contexts.
        hookpoint: where edits will act.
        tail: how many of the last tokens run again; None for all.
    """
    rows = [context.tokens for context in contexts]
    return Replay(lm, rows, [context.prompt_length for context in contexts], hookpoint, tail)
