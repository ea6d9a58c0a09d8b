"""Attribution, directions, sets and their null, on a toy organism."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.attribution import Context, dense_directions, log_odds, rank_latents, replay_of
from brainscan.attribution.decision import _read
from brainscan.attribution.directions import interaction
from brainscan.attribution.location import PROMPT, SLOTS, _groups, locate, residuals
from brainscan.attribution.predictors import WORDS, predictors
from brainscan.attribution.ranking import gradients, is_target, rank_neurons, rank_outputs
from brainscan.auditing.arms import (
    ANSWER,
    DECISION,
    GENERAL,
    PARTS,
    Candidate,
    Material,
    dense_arms,
    feature_sets,
    part_arms,
    random_sets,
)
from brainscan.auditing.screen import MOST, Screened, best, strengths
from brainscan.auditing.trials import detector_of
from brainscan.auditing.trying import _least, _Listed
from brainscan.dictionaries import Address
from brainscan.dictionaries.testing import random_dictionary
from brainscan.models import capture, intervene
from brainscan.models.replay import Patch
from brainscan.stats import Estimate
from brainscan.stress.base import Asked

TARGET = ("shutdown", "present")
HOOKPOINT = "resid_post.2"
SIZES = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def contexts(organism, toy_test):
    found = []
    prefix = organism.tokenize("I say ")
    after = [organism.tokenize("I say pay")[len(prefix) :], organism.tokenize("I say bye")]
    harmful, harmless = after[0][0], after[1][len(prefix)]
    for unit in toy_test.units({})[:6]:
        for cell in (TARGET, ("shutdown", "absent"), ("none", "present"), ("none", "absent")):
            condition = {"threat": cell[0], "leverage": cell[1], "prohibition": "no", "cue": "a"}
            prompt = organism.chat_tokens(toy_test.prompt(Asked(unit.id, condition)).messages)
            tokens = (*prompt, *prefix)
            found.append(Context(tokens, len(prompt), (harmful,), (harmless,), unit.id, cell))
    return found


@pytest.fixture(scope="module")
def found(organism, contexts):
    return gradients(organism, contexts, HOOKPOINT)


@pytest.fixture(scope="module")
def dictionary():
    return random_dictionary(32, 128, 8, HOOKPOINT)


@pytest.fixture(scope="module")
def material(organism, contexts, found):
    states = replay_of(organism, contexts, HOOKPOINT, 4)
    fires = detector_of(states, contexts, TARGET)
    return Material(HOOKPOINT, found.x, tuple(contexts), TARGET, fires)


def test_log_odds_say_who_is_about_to_do_harm(contexts, found):
    harm = is_target(contexts, TARGET)
    assert float(found.values[harm].min()) > 0 > float(found.values[~harm].max())


def test_gradient_is_that_of_the_log_odds(organism, contexts, found):
    step = 1e-3
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    states = replay_of(organism, contexts, HOOKPOINT)

    def at(sign):
        moved = found.x + sign * step * direction
        return log_odds(states.run([Patch(HOOKPOINT, {-1: moved})]), contexts)

    slope = (at(1) - at(-1)) / (2 * step)
    torch.testing.assert_close(found.of_log_odds @ direction, slope, rtol=0.05, atol=0.05)


def test_interaction_is_the_difference_in_differences(contexts):
    values = torch.tensor([[5.0 if one.cell == TARGET else 1.0] for one in contexts])
    assert float(interaction(values, contexts, TARGET)) == pytest.approx(4.0)
    topic = torch.tensor([[float(one.cell[0] == "shutdown")] for one in contexts])
    assert float(interaction(topic, contexts, TARGET)) == pytest.approx(0.0)
    assert interaction(topic, contexts, ("shutdown",)) is None


def test_directions_separate(organism, contexts, found):
    dense = dense_directions(organism, HOOKPOINT, found.x, contexts, TARGET)
    by_kind = {one.kind: one for one in dense}
    assert len(by_kind) == 5
    first = by_kind["difference of means"]
    assert first.harmful > first.harmless


def test_predictors_are_judged_where_they_were_not_made(organism, contexts, found):
    units = sorted({one.unit for one in contexts})
    first = torch.tensor([units.index(one.unit) % 2 == 0 for one in contexts])
    made, other = (
        [one for one, own in zip(contexts, kept.tolist(), strict=True) if own]
        for kept in (first, ~first)
    )
    dense = dense_directions(organism, HOOKPOINT, found.x[first], made, TARGET)
    judged = {
        one.kind: one.separates for one in predictors(dense, made, other, found.x[~first], TARGET)
    }
    assert set(judged) == {one.kind for one in dense} | {WORDS}
    assert judged["logistic probe"].value > 0.9
    assert judged[WORDS].value > 0.9  # a prompt says by its letters whether harm is due
    assert judged[WORDS].n == len(units) // 2
    noise = torch.randn(len(other), 32, generator=torch.Generator().manual_seed(0))
    blind = predictors(dense, made, other, noise, TARGET)
    assert all(abs(one.separates.value - 0.5) < 0.35 for one in blind if one.kind != WORDS)


def test_detector_fires_at_harmful_decisions_alone(organism, contexts, found, material):
    probe, harm = material.detector, is_target(contexts, TARGET)
    states = replay_of(organism, contexts, HOOKPOINT, 4)
    score = states.activations @ probe.direction.vector + probe.bias
    assert float(score[harm, -1].min()) > 0 > float(score[~harm, -1].max())
    assert float((score[:, :-1] > 0).float().mean()) < 0.05


def test_latents_are_ranked_by_what_hangs_on_them(contexts, found, dictionary):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    index = Address.parse(ranked[0].address).index
    code = dictionary.dense(dictionary.encode(found.x))
    harm = is_target(contexts, TARGET)
    slopes = found.of_log_odds @ dictionary.W_dec.T
    change = code[harm][:, index] - code[~harm][:, index].mean()
    assert ranked[0].effect == pytest.approx(float((slopes[harm][:, index] * change).mean()))


def test_neurons_are_ranked_too(organism, contexts):
    near = gradients(organism, contexts, "neurons.2")
    ranked = rank_neurons(near, contexts, TARGET, "neurons.2")
    assert ranked and ranked[0].address.startswith("neurons.2/")


def test_outputs_of_layers_are_ranked_by_gradient_times_difference(organism, contexts):
    ranked = rank_outputs(organism, contexts, TARGET)
    layers = range(organism.n_layers)
    assert {one.address for one in ranked} == {
        f"{o}.{n}" for o in ("attn_out", "mlp_out") for n in layers
    }
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0
    harm = is_target(contexts, TARGET)
    near = gradients(organism, contexts, ranked[0].address)
    change = near.x[harm] - near.x[~harm].mean(0)
    expected = float((near.of_log_odds[harm] * change).sum(1).mean())
    assert ranked[0].effect == pytest.approx(expected, rel=1e-3)


def test_sets_are_tried_at_two_places(contexts, found, dictionary, material):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    arms = feature_sets(material, ranked, dictionary, GENERAL, SIZES)
    assert {one.where for one in arms} == {ANSWER, DECISION}
    assert arms[0].size == 1 and arms[0].features == (ranked[0].address,)
    edit = arms[0].at(0.5)[0]
    assert edit.strength == 0.5 and not edit.acts_on_prompt


def test_sets_may_be_ablated_and_so_are_the_random_ones_beside_them(
    contexts, found, dictionary, material
):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    arms = feature_sets(material, ranked, dictionary, GENERAL, SIZES, ablated=True)
    ablated = [one for one in arms if one.ablated]
    assert len(ablated) == len(arms) / 2
    assert len({one.name for one in arms}) == len(arms)
    sets = random_sets(material, ablated[2], dictionary, 3, seed=0)
    for one in (*ablated, *sets):
        assert not one.at(1.0)[0].to.any()


def test_random_sets_match_in_size_activity_and_norm(contexts, found, dictionary, material):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    chosen = next(
        one for one in feature_sets(material, ranked, dictionary, GENERAL, SIZES) if one.size == 4
    )
    harmful = found.x[is_target(contexts, TARGET)]

    def change(candidate):
        edit = candidate.at(1.0)[0]
        indices = [Address.parse(name).index for name in edit.targets]
        old = dictionary.activations_of(harmful, indices)
        moved = edit.strength * (edit.to - old) @ dictionary.W_dec[indices]
        return float(moved.norm(dim=-1).mean())

    activity = dictionary.dense(dictionary.encode(found.x)).abs().mean(0)

    def activities(candidate):
        return activity[[Address.parse(name).index for name in candidate.features]]

    sets = random_sets(material, chosen, dictionary, 20, seed=0)
    own = set(chosen.features)
    for one in sets:
        assert one.size == 4 and not own & set(one.features)
        assert (activities(one) > 0).all()
        assert change(one) == pytest.approx(change(chosen), rel=1e-3)
    assert len({frozenset(one.features) for one in sets}) == len(sets) == 20
    assert all(one.at(1.0)[0].strength <= 3.0 for one in sets)
    again = random_sets(material, chosen, dictionary, 20, seed=0)
    assert [one.features for one in sets] == [one.features for one in again]


def test_strengths_follow_from_what_they_cost():
    assert strengths(0.04, (0.01, 0.09)) == [0.5, 1.0, 1.5]
    assert strengths(1e-9, (0.01,)) == [1.0, MOST]
    assert strengths(0.0, (0.01,)) == [1.0]


def test_best_is_within_the_budget_and_of_few_parts(material, found, contexts, dictionary):
    arms = feature_sets(
        material, rank_latents(found, contexts, TARGET, dictionary), dictionary, GENERAL, SIZES
    )

    def screened(arm, share, kl, harmless=0.0):
        value = Estimate(share, share, share, 5, "test")
        other = Estimate(harmless, harmless, harmless, 5, "test")
        return Screened(arm, 1.0, kl, value, other)

    small, large = arms[0], arms[-1]
    assert best([screened(small, 0.9, 0.5), screened(large, 0.5, 0.01)], 0.1).candidate is large
    assert best([screened(small, 0.92, 0.01), screened(large, 0.95, 0.01)], 0.1).candidate is small
    assert best([screened(small, 0.5, 0.01), screened(large, 0.95, 0.01)], 0.1).candidate is large
    breaks = screened(large, 0.95, 0.01, harmless=0.9)
    assert best([screened(small, 0.5, 0.01), breaks], 0.1).candidate is small
    assert best([screened(small, 0.9, 0.5)], 0.1) is None


def test_dense_arms_move_to_where_harmless_ones_lie(organism, contexts, found, material):
    dense = dense_directions(organism, HOOKPOINT, found.x, contexts, TARGET)
    arm = dense_arms(material, dense)[0]
    assert float(arm.at(1.0)[0].to) == pytest.approx(dense[0].harmless)


def test_parts_of_a_dictionarys_sum_are_moved_apart(organism, contexts, dictionary, material):
    arms = part_arms(material, dictionary, "features")
    assert {one.kind for one in arms} == {PARTS}
    assert len({one.name for one in arms}) == 4
    ids = torch.tensor([contexts[0].tokens])
    hookpoint, n = material.hookpoint, contexts[0].prompt_length
    with capture(organism, [hookpoint]) as before:
        organism.forward(ids)
    x = before[hookpoint][0, n:]
    mean = (material.harmless - dictionary.reconstruct(material.harmless)).mean(0)
    for arm, error in zip(arms[::2], (0 * mean, mean), strict=True):
        assert arm.where == ANSWER
        with (
            intervene(organism, arm.at(1.0), prompt_lengths=[n]),
            capture(organism, [hookpoint]) as after,
        ):
            organism.forward(ids)
        want = dictionary.reconstruct(x) + error
        torch.testing.assert_close(after[hookpoint][0, n:], want, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after[hookpoint][0, :n], before[hookpoint][0, :n])


def test_one_feature_has_as_many_different_stand_ins_as_are_active(
    contexts, found, dictionary, material
):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    chosen = feature_sets(material, ranked, dictionary, GENERAL, [1])[0]
    active = int((dictionary.dense(dictionary.encode(found.x)) > 0).any(0).sum())
    sets = random_sets(material, chosen, dictionary, 199, seed=0)
    assert len({one.features for one in sets}) == len(sets) < active


def test_large_sets_share_features_with_their_stand_ins(contexts, found, dictionary, material):
    ranked = rank_latents(found, contexts, TARGET, dictionary)
    chosen = feature_sets(material, ranked, dictionary, GENERAL, [len(ranked)])[0]
    active = int((dictionary.dense(dictionary.encode(found.x)) > 0).any(0).sum())
    assert active < 3 * chosen.size
    sets = random_sets(material, chosen, dictionary, 19, seed=0)
    own = set(chosen.features)
    assert len(sets) == 19
    assert all(one.size == chosen.size and set(one.features) != own for one in sets)
    assert any(own & set(one.features) for one in sets)


def test_no_sets_where_too_few_features_are_active(contexts, found, material):
    small = random_dictionary(32, 8, 8, HOOKPOINT)
    ranked = rank_latents(found, contexts, TARGET, small)
    chosen = feature_sets(material, ranked, small, GENERAL, [8])[0]
    active = (small.dense(small.encode(found.x)) > 0).any(0).nonzero()[:, 0].tolist()
    chosen = replace(chosen, features=tuple(f"{HOOKPOINT}/{n}" for n in active))
    assert random_sets(material, chosen, small, 19, seed=0) == []


def test_edits_before_anything_is_written_act_on_the_prompt(organism, contexts, found, material):
    bare = [replace(one, tokens=one.tokens[: one.prompt_length]) for one in contexts]
    dense = dense_directions(organism, HOOKPOINT, found.x, contexts, TARGET)
    early = Material(HOOKPOINT, found.x, tuple(bare), TARGET, material.detector)
    arms = dense_arms(early, dense)
    assert {one.where for one in arms} == {DECISION}
    assert arms[0].at(1.0)[0].acts_on_prompt


def test_a_twins_residual_restores_all_at_the_last_token_of_the_last_layer(organism, contexts):
    pairs = [(contexts[n], contexts[n + 1]) for n in range(0, 24, 4)]
    for prompt in (True, False):
        found = locate(organism, pairs, residuals(organism, 1), prompt=prompt)
        assert found.restored[-1][-1].value == pytest.approx(1.0, abs=0.01)
        assert 0 <= found.settled < 4
        assert found.columns[-1].startswith("-1")


def test_location_of_a_decision_at_the_first_token(organism, contexts):
    bare = [replace(one, tokens=one.tokens[: one.prompt_length]) for one in contexts]
    pairs = [(bare[n], bare[n + 1]) for n in range(0, 24, 4)]
    for prompt in (True, False):
        found = locate(organism, pairs, residuals(organism, 2), prompt=prompt)
        assert found.restored[-1][-1].value == pytest.approx(1.0, abs=0.01)


def test_prompts_of_other_lengths_are_aligned_at_their_ends(organism, contexts):
    """What both prompts end with is put in, place for place from the end; what differs is not."""
    harmful, twin = contexts[0], contexts[1]
    extra = twin.tokens[1:4]
    longer = replace(
        twin,
        tokens=(*twin.tokens[:1], *extra, *twin.tokens[1:]),
        prompt_length=twin.prompt_length + 3,
    )
    groups = _groups(harmful, longer, 2, prompt=True)
    assert SLOTS not in groups
    shared = groups[PROMPT]
    assert 0 < len(shared) < harmful.prompt_length
    assert all(other - place == 3 for place, other in shared.items())
    assert all(harmful.tokens[a] == longer.tokens[b] for a, b in shared.items())
    assert max(shared) < min(harmful.prompt_length, len(harmful.tokens) - 2)
    before = min(shared) - 1
    assert before < 0 or harmful.tokens[before] != longer.tokens[before + 3]
    whole = replace(
        harmful,
        tokens=(*extra, *harmful.tokens),
        prompt_length=harmful.prompt_length + 3,
    )
    every = _groups(harmful, whole, 2, prompt=True)[PROMPT]  # one prompt ends with all of the other
    assert min(every) == 0 and len(every) == min(harmful.prompt_length, len(harmful.tokens) - 2)
    found = locate(organism, [(harmful, longer)] * 2, residuals(organism, 2))
    assert PROMPT in found.columns and SLOTS not in found.columns
    assert found.restored[-1][-1].value == pytest.approx(1.0, abs=0.01)


def test_log_odds_of_many_contexts_are_those_of_each(organism, contexts):
    """Contexts that begin others share their pass, and several may end at one token."""
    several = []
    for one in contexts[:6]:
        several += [one, replace(one, harmful=one.harmless, harmless=one.harmful)]
        several.append(replace(one, tokens=one.tokens[:-1]))
    found = _read(organism, several)
    for one, value in zip(several, found, strict=True):
        logits = organism.forward(torch.tensor([one.tokens]))[:, -1]
        assert value == pytest.approx(float(log_odds(logits, [one])[0]), abs=1e-3)


def test_of_arms_that_few_answers_do_not_tell_apart_the_cheapest_is_taken():
    def listed(left, kl, merit=0.5, size=4):
        candidate = Candidate("an arm", GENERAL, ANSWER, size, lambda strength: ())
        share = Estimate(merit, merit, merit, 4, "test")
        still = Estimate(0.0, 0.0, 0.0, 4, "test")
        return _Listed(Screened(candidate, 1.0, kl, share, still), left)

    dear, cheap, worse = listed(0, 0.09), listed(1, 0.0), listed(2, 0.0)
    assert _least([dear, cheap, worse]) is cheap
    assert _least([dear, worse]) is dear
    assert _least([listed(1, 0.0), best := listed(0, 0.0)]) is best
    assert _least([]) is None
