"""Candidates for detectors: directions and sparse probes, fitted on the texts of split ``train``.

1. Each text counts by the mean of its tokens, and once: a concept's texts as much as all others,
   and of these the ones that only look like it, the other concepts' and the neutral ones a share.
2. Difference of means: the weighted mean of its texts less that of the others.
3. Logistic probe: the weighted logistic regression on standardised means with an L2 penalty, for
   all concepts at once by L-BFGS. Fitted to single tokens it orders texts worse (docs/log.md).
4. Joint probe: the mean of the logistic probes of all hookpoints.
5. Sparse probe: a logistic one on the latents of a dictionary whose mean activation differs most,
   few enough to be read by a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from brainscan.dictionaries import Dictionary
from brainscan.monitoring.bank import Concept
from brainscan.monitoring.corpus import NEUTRAL, Corpus, Labels
from brainscan.monitoring.scores import JOINT
from brainscan.shapes import Bool, Float, Tensor
from brainscan.stats.logistic import logistic_fit

SPARSE = 16
"""Latents of a sparse probe."""

PENALTY = 0.1
"""Of the squared weights, beside the weighted log-loss."""

SHARES = {"near": 0.3, "texts": 0.3, "neutral": 0.2, "dialogue": 0.2}
"""What each kind of text that is not the concept's counts for among such. Benign answers are of all
sorts of subjects: they count for dangers alone."""

_SPARSE_PENALTY = 1e-3


class Candidate(NamedTuple):
    """A way to score tokens, for each concept."""

    hookpoint: str
    """Where it reads; the names of several are joined."""
    method: str
    weights: Float[Tensor, "concept d"]
    """Of the activation's components, or of the latents chosen."""
    bias: Float[Tensor, " concept"]
    latents: list[list[int]]
    """For each concept the latents that are read; empty where the activation is."""
    scores: Float[Tensor, "token concept"]
    """Raw scores of all the corpus' tokens."""


def token_weights(
    corpus: Corpus,
    concepts: Sequence[Concept],
    chosen: Bool[Tensor, " token"],
    labels: Labels,
) -> Float[Tensor, "token concept"]:
    """What each token counts for, for each concept: half in all for its texts, half for others.

    Args:
        corpus: the texts.
        concepts: the concepts.
        chosen: the tokens that count at all.
        labels: what samples are to each concept.
    """
    lengths = corpus.owners[chosen].bincount(minlength=len(corpus.samples)).float()
    there = lengths > 0
    kinds = {
        kind: torch.tensor([one.kind == kind for one in corpus.samples]) & there
        for kind in ("neutral", "dialogue")
    }
    bank = torch.tensor([one.concept != NEUTRAL for one in corpus.samples]) & there
    weights = torch.zeros(len(corpus.samples), len(concepts))
    for n, concept in enumerate(concepts):
        own, near = labels.own[:, n], labels.near[:, n]
        groups = {"near": near & there & ~own, "texts": bank & ~own & ~near, **kinds}
        if not concept.danger:
            groups.pop("dialogue")
        shares = {kind: SHARES[kind] for kind, group in groups.items() if (group & ~own).any()}
        for kind, share in shares.items():
            group = groups[kind] & ~own
            weights[group, n] = 0.5 * share / sum(shares.values()) / int(group.sum())
        weights[own & there, n] = 0.5 / max(int((own & there).sum()), 1)
    each = weights[corpus.owners] / lengths[corpus.owners].clamp_min(1)[:, None]
    return each * chosen[:, None]


def dense_candidates(
    corpus: Corpus,
    hookpoint: str,
    weights: Float[Tensor, "token c"],
    labels: Bool[Tensor, "sample c"],
) -> list[Candidate]:
    """A difference of means and a logistic probe at a hookpoint.

    Args:
        corpus: the texts.
        hookpoint: where.
        weights: what each token counts for; 0 for those that are not to be seen.
        labels: which samples are a concept's own.
    """
    everything = corpus.values[hookpoint].float()
    x, w, y = _texts(corpus, everything, weights, labels)
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    inside = (w * y).T @ x / (w * y).sum(0)[:, None]
    outside = (w * ~y).T @ x / (w * ~y).sum(0)[:, None]
    difference = inside - outside
    middle = -((inside + outside) / 2 * difference).sum(1)
    slopes, bias = logistic_fit((x - mean) / spread, y, w, PENALTY)
    slopes = slopes / spread
    return [
        Candidate(hookpoint, method, vectors, offset, [], everything @ vectors.T + offset)
        for method, vectors, offset in (
            ("logistic", slopes, bias - slopes @ mean),
            ("difference", difference, middle),
        )
    ]


def joint_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The mean of probes at several hookpoints.

    Args:
        candidates: a probe at each hookpoint, of one method, none of them sparse.
    """
    count = len(candidates)
    return Candidate(
        JOINT.join(one.hookpoint for one in candidates),
        candidates[0].method,
        torch.cat([one.weights for one in candidates], 1) / count,
        torch.stack([one.bias for one in candidates]).mean(0),
        [],
        torch.stack([one.scores for one in candidates]).mean(0),
    )


def sparse_candidate(
    corpus: Corpus,
    dictionary: Dictionary,
    weights: Float[Tensor, "token c"],
    labels: Bool[Tensor, "sample c"],
) -> Candidate:
    """A sparse probe on a dictionary's latents.

    Args:
        corpus: the texts, with activations at the dictionary's hookpoint.
        dictionary: the dictionary.
        weights: what each token counts for; 0 for those that are not to be seen.
        labels: which samples are a concept's own.
    """
    with torch.inference_mode():
        code = dictionary.encode(corpus.values[dictionary.hookpoint].float())
    indices, values = code.indices.cpu().clone(), code.values.float().cpu().clone()
    unit = dictionary.activation_max.float().cpu()
    known = unit > 0  # latents that never fired on the dictionary's text have no unit
    unit = torch.where(known, unit, 1.0)
    values = values / unit[indices] * known[indices]
    y = labels[corpus.owners]
    vectors, biases, chosen, scores = [], [], [], []
    for concept in range(weights.shape[1]):
        own = slice(concept, concept + 1)
        signed = weights[:, own] * torch.where(y[:, own], 1.0, -1.0)
        moved = torch.zeros(dictionary.n_latents).index_add_(
            0, indices.flatten(), (values * signed).flatten()
        )
        latents = moved.abs().topk(min(SPARSE, dictionary.n_latents)).indices
        places = torch.full((dictionary.n_latents,), len(latents))
        places[latents] = torch.arange(len(latents))
        read = torch.zeros(len(values), len(latents) + 1)  # the last column is all other latents'
        found = read.scatter_add_(1, places[indices], values)[:, :-1]
        means, w, label = _texts(corpus, found, weights[:, own], labels[:, own])
        fit, bias = logistic_fit(means, label, w, _SPARSE_PENALTY)
        scores.append(found @ fit[0] + bias)
        vectors.append(fit[0] / unit[latents])
        biases.append(bias[0])
        chosen.append(latents.tolist())
    return Candidate(
        dictionary.hookpoint,
        "latents",
        torch.stack(vectors),
        torch.stack(biases),
        chosen,
        torch.stack(scores, 1),
    )


def centred(corpus: Corpus, candidate: Candidate) -> Candidate:
    """The candidate with 0 for the mean score of neutral passages of ``train``.

    Args:
        corpus: the texts; without such passages all of ``train`` counts.
        candidate: the candidate.
    """
    neutral = torch.tensor([one.kind == "neutral" for one in corpus.samples])[corpus.owners]
    train = corpus.of("train")
    usual = candidate.scores[neutral & train if (neutral & train).any() else train].mean(0)
    return candidate._replace(bias=candidate.bias - usual, scores=candidate.scores - usual)


def _texts(
    corpus: Corpus,
    x: Float[Tensor, "token d"],
    weights: Float[Tensor, "token c"],
    labels: Bool[Tensor, "sample c"],
) -> tuple[Float[Tensor, "text d"], Float[Tensor, "text c"], Bool[Tensor, "text c"]]:
    """The mean of each text that counts, what it counts for, and its labels."""
    n = len(corpus.samples)
    lengths = corpus.owners.bincount(minlength=n).clamp_min(1)[:, None]
    means = torch.zeros(n, x.shape[1]).index_add_(0, corpus.owners, x) / lengths
    each = torch.zeros(n, weights.shape[1]).index_add_(0, corpus.owners, weights)
    seen = each.sum(1) > 0
    return means[seen], each[seen], labels[seen]


def shuffled_labels(labels: Labels, corpus: Corpus, seed: int) -> Labels:
    """Labels dealt anew among the samples of each split: a control that knows nothing.

    Args:
        labels: the labels.
        corpus: the texts.
        seed: deals.
    """
    draw = torch.Generator().manual_seed(seed)
    dealt = labels.own.clone()
    for split in dict.fromkeys(one.split for one in corpus.samples):
        own = torch.tensor(corpus.indices(split))
        dealt[own] = labels.own[own[torch.randperm(len(own), generator=draw)]]
    return Labels(dealt, labels.near & ~dealt)
