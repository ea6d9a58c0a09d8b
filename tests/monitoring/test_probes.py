"""Sparse probes: they find the latents that tell a concept, read nothing else, and serve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainscan import stats
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.testing import random_dictionary
from brainscan.models.tiny import D_MODEL
from brainscan.monitoring.cards import shuffled_scores
from brainscan.monitoring.choosing import choose
from brainscan.monitoring.corpus import Corpus, Labels, Sample
from brainscan.monitoring.probes import (
    SPARSE,
    dense_candidates,
    shuffled_labels,
    sparse_candidate,
    token_weights,
)
from brainscan.monitoring.scores import Detectors

AT = "resid_post.1"
OWN, NEVER = 5, 9
LENGTH = 6


@pytest.fixture
def dictionary(tmp_path):
    """A random dictionary; one latent never fired on its training text, some up to 4."""
    made = random_dictionary(D_MODEL, 48, 4, AT)
    most = torch.ones(48)
    most[20:30], most[NEVER] = 4.0, 0.0
    replace(made, activation_max=most).save(tmp_path / "d")
    return Dictionary.load(tmp_path / "d")  # its weights as they are kept


@pytest.fixture
def corpus(dictionary):
    """Texts of noise; those of the first concept also hold the rows of two latents."""
    noise = torch.Generator().manual_seed(0)
    samples, values = [], []
    for number in range(120):
        concept, split = number % 2, ("train", "select", "test")[number % 3]
        samples.append(Sample(f"text {number}", "user", concept, "texts", split))
        x = 0.3 * torch.randn(LENGTH, D_MODEL, generator=noise)
        if concept == 0:
            x += 3 * dictionary.W_dec[OWN] + 3 * dictionary.W_dec[NEVER]
        values.append(x)
    owners = torch.arange(len(samples)).repeat_interleave(LENGTH)
    return Corpus(tuple(samples), owners, {AT: torch.cat(values)})


@pytest.fixture
def labels(corpus):
    numbers = torch.tensor([one.concept for one in corpus.samples])
    own = numbers[:, None] == torch.arange(2)
    return Labels(own, torch.zeros_like(own))


def test_a_sparse_probe_reads_the_latent_that_tells_a_concept(corpus, labels, dictionary, concepts):
    weights = token_weights(corpus, concepts, corpus.of("train"), labels)
    found = sparse_candidate(corpus, dictionary, weights, labels.own)
    assert (found.hookpoint, found.method) == (AT, "latents")
    assert [len(set(own)) for own in found.latents] == [SPARSE, SPARSE]
    first = dict(zip(found.latents[0], found.weights[0].tolist(), strict=True))
    assert found.latents[0][0] == OWN == max(first, key=first.get)
    assert first.get(NEVER, 0.0) == 0  # one that never fired has no unit to be weighed in
    test = corpus.of("test")
    own = labels.own[corpus.owners[test], 0]
    scores = found.scores[test, 0]
    assert scores[own].min() > scores[~own].max()


def test_probes_of_shuffled_labels_know_nothing(corpus, labels, concepts):
    test = torch.tensor(corpus.indices("test"))

    def area(own):
        """How well a probe made of such labels orders the test texts by the true ones."""
        dealt = Labels(own, labels.near)
        weights = token_weights(corpus, concepts, corpus.of("train"), dealt)
        probe = dense_candidates(corpus, AT, weights, own)[0]
        scores = shuffled_scores(corpus, probe)[test.numpy(), 0]
        return stats.area(scores, labels.own[test, 0].numpy())

    assert area(labels.own) == 1
    dealt = [shuffled_labels(labels, corpus, seed).own for seed in range(24)]
    assert all((own.sum(0) == labels.own.sum(0)).all() for own in dealt)
    assert np.mean([area(own) for own in dealt]) == pytest.approx(0.5, abs=0.15)


def test_a_detector_of_latents_scores_as_its_probe_did(
    lm, corpus, labels, dictionary, concepts, tmp_path
):
    train, select = (
        token_weights(corpus, concepts, corpus.of(split), labels) for split in ("train", "select")
    )
    found = sparse_candidate(corpus, dictionary, train, labels.own)
    choices = choose(corpus, concepts, [found], labels, select)
    each = tuple(choice.detector for choice in choices)
    assert all(one.latents == tuple(own) for one, own in zip(each, found.latents, strict=True))
    raw = Detectors(lm.ref, each, {AT: str(tmp_path / "d")}).raw(corpus.values)
    np.testing.assert_allclose(raw, found.scores.numpy(), rtol=1e-3, atol=1e-3)
