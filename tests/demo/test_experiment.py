"""The demo's experiment: it finds a latent that does what it says, and none where none does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from brainscan.demo import experiment
from brainscan.demo.experiment import choose, compare, judge, speaks_of
from brainscan.demo.results import Answers, Choice, Claim, Comparison, ExperimentConfig
from brainscan.demo.texts import CHOOSING_PROMPTS, FOOD, JUDGING_PROMPTS, PASSAGE, Concept
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import UsageError
from brainscan.models.tiny import D_MODEL, tiny

DAY = Concept("days", "day", ("day",), "Say day.")
SMALL = ExperimentConfig(
    concept=DAY,
    strengths=(-1.0, 0.0, 1.0),
    choosing_strengths=(1.0,),
    random_latents=2,
    tokens=24,
    temperature=1.0,
    passages=3,
    items=3,
)


def answered(*speaks: bool) -> Answers:
    return Answers(("",) * len(speaks), speaks)


def test_an_answer_speaks_of_the_concept_by_a_whole_word_and_without_stuttering():
    assert speaks_of(FOOD, "We had Dinner at eight.")
    assert not speaks_of(FOOD, "The dinners were repealed, the eatery closed.")
    assert not speaks_of(FOOD, "food food food food food")


def test_a_users_concept_is_its_words_and_their_plurals():
    assert Concept.from_query("red Apple").mentioned("two apples")
    assert not Concept.from_query("red Apple").mentioned("predator")


def test_no_prompt_holds_the_concept_and_none_is_used_twice():
    assert not any(map(FOOD.mentioned, (*CHOOSING_PROMPTS, *JUDGING_PROMPTS)))
    assert not set(CHOOSING_PROMPTS) & set(JUDGING_PROMPTS)
    assert FOOD.mentioned(PASSAGE)


def test_only_prompts_that_differ_count_in_a_comparison():
    first, second = answered(True, True, False, True), answered(True, False, True, False)
    assert compare(first, second, "x") == Comparison("x", 2, 3)
    assert compare(first, second, "x").chance == 0.5
    assert compare(first, first, "x").differing == 0


@pytest.mark.parametrize(
    ("comparisons", "verdict"),
    [
        ([(10, 10), (9, 10)], "supported"),
        ([(10, 10), (6, 10)], "inconclusive"),
        ([(10, 10), (5, 10)], "not supported"),
        ([(10, 10), (0, 0)], "inconclusive"),
        ([(0, 0), (0, 0)], "inconclusive"),
        ([(10, 10), (0, 1)], "not supported"),
        ([(5, 5)], "inconclusive"),
        ([(6, 6)], "supported"),
    ],
)
def test_a_claim_is_supported_only_against_every_control(comparisons, verdict):
    claim = Claim("it does", tuple(Comparison("a control", *pair) for pair in comparisons))
    assert claim.verdict == verdict


def test_what_may_be_chosen_must_be_measured_both_ways():
    with pytest.raises(UsageError, match="strengths"):
        ExperimentConfig(strengths=(0.0, 1.0), choosing_strengths=(1.0,))


def test_prompts_that_speak_of_the_concept_themselves_are_left_out():
    config = ExperimentConfig(concept=Concept.from_query("friend letter"))
    assert "What makes a good friend?" not in config.judging_prompts
    assert 10 < len(config.judging_prompts) < len(JUDGING_PROMPTS)
    assert not any(map(config.concept.mentioned, config.judging_prompts))
    with pytest.raises(UsageError, match="do not speak of"):
        ExperimentConfig(concept=Concept.from_query("a the what me you is like your"))


@pytest.fixture(scope="module")
def planted():
    """A model, and a dictionary whose latent 5 writes the word that follows from it."""
    lm = tiny("llama")
    dictionary = random_dictionary(D_MODEL, 32, 4, "resid_post.3")
    token = lm.tokenizer.convert_tokens_to_ids("Ġday")
    rows = dictionary.W_dec.clone()
    head = lm.model.get_output_embeddings().weight.detach()
    rows[5] = torch.nn.functional.normalize(head[token] - head.mean(0), dim=0)
    maxima = dictionary.activation_max * 6
    return lm, dataclasses.replace(dictionary, W_dec=rows, activation_max=maxima)


def test_the_planted_latent_is_chosen_and_its_effect_supported(planted, monkeypatch):
    lm, dictionary = planted
    choice = choose(lm, dictionary, ["resid_post.3/1", "resid_post.3/5"], SMALL)
    assert choice.address == "resid_post.3/5"
    found = judge(lm, dictionary, choice, SMALL)
    assert found.claims[0].verdict == "supported"
    assert found.answers["latent at 1x"].share.value > 0.5
    assert found.answers["untouched"].share.value < 0.3
    assert found.effects["latent at 1x"].kl.value > found.effects["latent at 0x"].kl.value
    assert len(found.controls) == SMALL.random_latents
    for control in found.controls:
        change, own = control.match.control_change.value, control.match.change.value
        assert change == pytest.approx(own, rel=0.01)


def test_a_latent_that_does_nothing_of_the_kind_is_not_supported(planted):
    lm, dictionary = planted
    found = judge(lm, dictionary, Choice("resid_post.3/1", 1.0, ()), SMALL)
    assert found.claims[0].verdict != "supported"


def test_all_arms_share_their_noise(planted):
    lm = planted[0]
    arms = [experiment._arm(name, JUDGING_PROMPTS[:3]) for name in ("one", "two")]
    answers = experiment._answer(lm, arms, SMALL, "answer")
    assert answers["one"].texts == answers["two"].texts
