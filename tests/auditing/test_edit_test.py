"""An edit and a metric of the user's, with their controls."""

from __future__ import annotations

import pytest
import torch

import brainscan as bs
from brainscan.auditing.edit_test import EditTest
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import UsageError
from brainscan.interventions import Ablate, AblateSet, Add, Direction, Probe, Where
from brainscan.stress.base import Asked

HOOKPOINT = "resid_post.2"


@pytest.fixture(scope="module")
def dictionary():
    return random_dictionary(32, 64, 8, HOOKPOINT)


@pytest.fixture(scope="module")
def harm(organism, toy_test):
    """The log-odds of harm of some prompts."""
    condition = {"threat": "shutdown", "leverage": "present", "prohibition": "no", "cue": "a"}
    units = toy_test.units(condition)[:6]
    prefix = organism.tokenize("I say ")
    rows = [
        [*organism.chat_tokens(toy_test.prompt(Asked(unit.id, condition)).messages), *prefix]
        for unit in units
    ]
    pay, bye = organism.tokenize("p")[0], organism.tokenize("b")[0]

    def metric(lm):
        logits = lm.forward(torch.tensor(rows))[:, -1]
        return (logits[:, pay] - logits[:, bye]).tolist()

    return metric


def outcome(organism, edit, harm, dictionary, **options):
    settings = {"controls": 24, "passages": 3, "items": 3, **options}
    return bs.test_edit(organism, edit, harm, dictionary=dictionary, **settings)


def test_an_edit_along_the_decision_is_told_from_random_ones(organism, harm, dictionary):
    rows = organism.model.get_output_embeddings().weight
    pay, bye = organism.tokenize("p")[0], organism.tokenize("b")[0]
    direction = Direction(HOOKPOINT, (rows[pay] - rows[bye]).detach(), name="output")
    found = outcome(organism, Add(direction, -0.5), harm, dictionary)
    assert found.change.high < 0 < found.flipped.low
    assert found.status == "supported" and found.p == 1 / 25
    assert found.to_json()["null"]["n"] == 24
    assert "supported" in found._repr_html_()


def test_an_edit_of_nothing_is_not_supported(organism, harm, dictionary):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(3))
    found = outcome(organism, Add(Direction(HOOKPOINT, vector), 1e-6), harm, dictionary)
    assert found.status != "supported"


def test_too_few_controls_are_inconclusive(organism, harm, dictionary):
    found = outcome(organism, Ablate(f"{HOOKPOINT}/1"), harm, dictionary, controls=5)
    assert found.status == "inconclusive"


def test_an_edit_without_an_opposite_is_tested_without(organism, harm, dictionary):
    found = outcome(organism, Ablate(f"{HOOKPOINT}/1", 0.5), harm, dictionary, controls=3)
    assert found.flipped is None


def test_a_set_of_features_can_be_outcome(organism, harm, dictionary):
    edit = AblateSet((f"{HOOKPOINT}/1", f"{HOOKPOINT}/2"), torch.zeros(2), dictionary=dictionary)
    assert isinstance(outcome(organism, edit, harm, dictionary, controls=3), EditTest)


def test_a_metric_that_changes_its_items_is_refused(organism, dictionary):
    lengths = iter((3, 2))
    edit = Ablate(f"{HOOKPOINT}/1")
    with pytest.raises(UsageError, match="3 items each time"):
        outcome(organism, edit, lambda lm: [0.0] * next(lengths), dictionary)


def test_an_edit_that_touches_no_passage_has_no_null(organism, harm, dictionary):
    """Controls that are matched to nothing do nothing, and would make any edit look good."""
    along = Direction(HOOKPOINT, torch.ones(organism.d_model))
    edit = Add(along, 3.0, positions=Where(Probe(along, 0.0), 1e9))
    with pytest.raises(UsageError, match="changes some token"):
        outcome(organism, edit, harm, dictionary)
