"""How much of the decision a dictionary explains: the twin's activation put in by parts.

At the decision's token, with x the harmful activation, y the twin's, D the dictionary:

    whole    x -> y
    code     x -> x + D(y) - D(x)             what the dictionary says of the difference
    error    x -> x + (y - D(y)) - (x - D(x)) what it does not
    chosen   x -> x + sum over the set of (b_i - a_i) W_dec[i]
    rest     code without chosen

That is insertion: a part put in alone. Removal is the whole without a part; for the error that is
code, so that chosen and rest are what is measured once more.

A layer's neurons have no error: whole is all of them, chosen the set's own, rest the others.

The share of the way from the harmful log-odds to the twin's that each restores. Parts need not add
up to the whole: what follows is not linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    own = moved @ dictionary.W_dec[index].float()
    found = Explained(
        dictionary=dictionary.name,
        whole=put.restored(y - x),
        code=put.restored(said),
        error=put.restored(y - x - said),
        cosine=float(F.cosine_similarity((y - x).mean(0), said.mean(0), dim=0)),
        fvu=_fvu(dictionary, sample),
    )
    return put.parts(found, own, said, y - x) if index else found


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
    found = Explained(hookpoint, put.restored(change))
    return put.parts(found, own, change, change) if index else found


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

    def parts(self, found: Explained, own: Tensor, said: Tensor, whole: Tensor) -> Explained:
        """What the chosen set and the rest restore alone, and the whole without either."""
        return replace(
            found,
            chosen=self.restored(own),
            rest=self.restored(said - own),
            without_chosen=self.restored(whole - own),
            without_rest=self.restored(whole - said + own),
        )

    def restored(self, change: Tensor) -> Estimate:
        """The share of the way to the twin's log-odds that a change of the activation goes."""
        patch = Patch(self.hookpoint, {-1: self.harmful + change})
        gone = self.before - log_odds(self.states.run([patch]), self.contexts)
        return restored_share(gone, self.gap, [one.unit for one in self.contexts])


def _fvu(dictionary: Dictionary, sample: TranscriptActivations) -> Estimate:
    """The fraction of the transcripts' variance that a dictionary does not explain."""
    x = sample.activations.float()
    return fvu_by_document(x - dictionary.reconstruct(x), x - x.mean(0), sample.transcripts)
