"""How much of the decision a dictionary explains: the twin's activation put in by parts.

At the decision's token, with x the harmful activation, y the twin's, D the dictionary:

    whole    x -> y
    code     x -> x + D(y) - D(x)             what the dictionary says of the difference
    error    x -> x + (y - D(y)) - (x - D(x)) what it does not
    chosen   x -> x + sum over the set of (b_i - a_i) W_dec[i]

A layer's neurons have no error: whole is all of them, chosen the set's own.

The share of the way from the harmful log-odds to the twin's that each restores. Parts need not add
up to the whole: what follows is not linear.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from brainscan.attribution import Context, log_odds, replay_of
from brainscan.attribution.location import restored_share
from brainscan.auditing.findings import Explained
from brainscan.dictionaries import Address, Dictionary
from brainscan.dictionaries.evaluation import fvu_by_document
from brainscan.dictionaries.transcripts import TranscriptActivations
from brainscan.models import LanguageModel
from brainscan.models.replay import Patch
from brainscan.shapes import Tensor
from brainscan.stats import Estimate


@torch.no_grad()
def explain(
    lm: LanguageModel,
    pairs: Sequence[tuple[Context, Context]],
    dictionary: Dictionary,
    chosen: Sequence[str],
    sample: TranscriptActivations,
) -> Explained:
    """Puts the twin's activation in by parts.

    Args:
        lm: the model, without edits.
        pairs: a harmful context and its twin's.
        dictionary: the dictionary.
        chosen: addresses of its latents.
        sample: activations of the transcripts, to say how well it fits them.
    """
    put = _Put(lm, pairs, dictionary.hookpoint)
    x, y = put.harmful, put.harmless
    code_x, code_y = dictionary.encode(x), dictionary.encode(y)
    said = dictionary.decode(code_y) - dictionary.decode(code_x)
    index = [Address.parse(name).index for name in chosen]
    moved = (dictionary.dense(code_y) - dictionary.dense(code_x))[:, index]
    return Explained(
        dictionary=dictionary.name,
        whole=put.restored(y - x),
        code=put.restored(said),
        error=put.restored(y - x - said),
        chosen=put.restored(moved @ dictionary.W_dec[index].float()) if index else None,
        cosine=float(F.cosine_similarity((y - x).mean(0), said.mean(0), dim=0)),
        fvu=_fvu(dictionary, sample),
    )


@torch.no_grad()
def explain_neurons(
    lm: LanguageModel,
    pairs: Sequence[tuple[Context, Context]],
    hookpoint: str,
    chosen: Sequence[str],
) -> Explained:
    """Puts the twin's neurons of one layer in.

    Args:
        lm: the model, without edits.
        pairs: a harmful context and its twin's.
        hookpoint: the neurons'.
        chosen: addresses of some.
    """
    put = _Put(lm, pairs, hookpoint)
    change = put.harmless - put.harmful
    own = torch.zeros_like(change)
    index = [Address.parse(name).index for name in chosen]
    own[:, index] = change[:, index]
    return Explained(hookpoint, put.restored(change), chosen=put.restored(own) if index else None)


class _Put:
    """Harmful contexts, into which their twins' activations are put at the decision."""

    def __init__(
        self, lm: LanguageModel, pairs: Sequence[tuple[Context, Context]], hookpoint: str
    ) -> None:
        self.contexts = [pair[0] for pair in pairs]
        self.hookpoint = hookpoint
        self.states = replay_of(lm, self.contexts, hookpoint)
        twins = replay_of(lm, [pair[1] for pair in pairs], hookpoint)
        self.harmful = self.states.activations[:, -1].float()
        self.harmless = twins.activations[:, -1].float()
        self.before = log_odds(self.states.logits, self.contexts)
        self.gap = self.before - log_odds(twins.logits, self.contexts)

    def restored(self, change: Tensor) -> Estimate:
        """The share of the way to the twin's log-odds that a change of the activation goes."""
        patch = Patch(self.hookpoint, {-1: self.harmful + change})
        gone = self.before - log_odds(self.states.run([patch]), self.contexts)
        return restored_share(gone, self.gap, [one.unit for one in self.contexts])


def _fvu(dictionary: Dictionary, sample: TranscriptActivations) -> Estimate:
    """The fraction of the transcripts' variance that a dictionary does not explain."""
    x = sample.activations.float()
    return fvu_by_document(x - dictionary.reconstruct(x), x - x.mean(0), sample.transcripts)
