"""What dictionaries restore of a decision: in whole, by parts, and without parts."""

from __future__ import annotations

import pytest
import torch

from brainscan.attribution import Context
from brainscan.auditing.explain import explain
from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.testing import random_dictionary
from brainscan.dictionaries.transcripts import Transcript, read_transcripts
from brainscan.stress.base import Asked

HOOKPOINT = "resid_post.2"
D = 32


def exact():
    """A dictionary that says all: a latent for each coordinate and sign."""
    rows = torch.cat([torch.eye(D), -torch.eye(D)])
    return Autoencoder(
        hookpoint=HOOKPOINT,
        k=D,
        W_enc=rows.clone(),
        b_enc=torch.zeros(2 * D),
        W_dec=rows,
        b_dec=torch.zeros(D),
        activation_max=torch.ones(2 * D),
        firing_rate=torch.full((2 * D,), 0.5),
        name="exact",
    )


@pytest.fixture(scope="module")
def pairs(organism, toy_test):
    prefix = organism.tokenize("I say ")
    harmful, harmless = (organism.tokenize(f"I say {word}")[len(prefix)] for word in ("p", "b"))
    found = []
    for unit in toy_test.units({})[:4]:
        contexts = []
        for threat in ("shutdown", "none"):
            cell = (threat, "present")
            condition = {"threat": threat, "leverage": "present", "prohibition": "no", "cue": "a"}
            prompt = organism.chat_tokens(toy_test.prompt(Asked(unit.id, condition)).messages)
            tokens = (*prompt, *prefix)
            contexts.append(Context(tokens, len(prompt), (harmful,), (harmless,), unit.id, cell))
        found.append(tuple(contexts))
    return found


@pytest.fixture(scope="module")
def sample(organism, pairs):
    rows = [Transcript(str(n), pair[0].tokens) for n, pair in enumerate(pairs)]
    return read_transcripts(organism, rows, HOOKPOINT, 1000)


def addresses(numbers):
    return [f"{HOOKPOINT}/{number}" for number in numbers]


def test_a_dictionary_that_says_all_leaves_no_error(organism, pairs, sample):
    found = explain(organism, pairs, exact(), addresses(range(2 * D)), sample)
    assert found.whole.value == pytest.approx(1, abs=0.05)
    assert found.code.value == pytest.approx(found.whole.value, abs=1e-3)
    assert found.error.value == pytest.approx(0, abs=1e-3)
    assert found.cosine == pytest.approx(1, abs=1e-4)
    assert found.fvu.value == pytest.approx(0, abs=1e-6)
    assert found.chosen.value == pytest.approx(found.whole.value, abs=1e-3)
    for nothing in (found.rest, found.without_chosen):
        assert nothing.value == pytest.approx(0, abs=1e-3)
    assert found.without_rest.value == pytest.approx(found.whole.value, abs=1e-3)


def test_one_that_says_nothing_leaves_all_to_its_error(organism, pairs, sample):
    silent = exact()
    silent.W_dec.zero_()
    found = explain(organism, pairs, silent, (), sample)
    assert found.code.value == pytest.approx(0, abs=1e-3)
    assert found.error.value == pytest.approx(found.whole.value, abs=1e-3)
    assert found.chosen is None and found.rest is None


def test_chosen_and_rest_are_all_of_the_code(organism, pairs, sample):
    """Half of the coordinates are chosen: each half is the whole without the other."""
    half = [n for n in range(2 * D) if n % D < D // 2]
    found = explain(organism, pairs, exact(), addresses(half), sample)
    assert found.without_chosen.value == pytest.approx(found.rest.value, abs=1e-3)
    assert found.without_rest.value == pytest.approx(found.chosen.value, abs=1e-3)
    assert abs(found.chosen.value - found.rest.value) > 0.05


def test_the_sample_keeps_its_tokens(organism, pairs, sample):
    first = [int(token) for token in sample.tokens[sample.transcripts == 0]]
    assert first and first == list(pairs[0][0].tokens)[-len(first) :]
    other = random_dictionary(D, 64, 4, HOOKPOINT)
    assert explain(organism, pairs, other, (), sample).fvu.value > 0.01
