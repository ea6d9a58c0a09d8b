from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.dictionaries.autoencoder import Autoencoder
from brainscan.dictionaries.testing import random_dictionary
from brainscan.interventions import (
    Ablate,
    AblateSet,
    Direction,
    Span,
    Swap,
    Where,
    format_edit,
    sign_flipped,
    targets_of,
    with_dictionary,
)
from brainscan.models import capture, intervene, per_row
from brainscan.models.generate import Sampling
from brainscan.models.tiny import tiny

HOOK = "resid_post.1"


def _index(address):
    return int(address.split("/")[1])


def _vector(seed, d=32):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed))


def _slanted(n=4, means=False):
    """Directions far from orthogonal: each leans towards the first."""
    return tuple(
        Direction(HOOK, _vector(seed) + 2 * _vector(0), f"d{seed}", _vector(90 + seed) * means)
        for seed in range(n)
    )


def _units(directions):
    return torch.stack([one.vector / one.vector.norm() for one in directions])


A, B = _slanted(2)


@pytest.fixture
def run(run):
    """Edits of all tokens, sinks among them."""

    def everywhere(hookpoint, *edits, **options):
        return run(hookpoint, *(replace(edit, sinks=True) for edit in edits), **options)

    return everywhere


@pytest.fixture
def chosen(active):
    """Three latents that fire in the text, and one that need not."""
    return (*active[:3], f"{HOOK}/11")


@pytest.fixture
def to():
    return torch.tensor([0.4, 0.0, 1.5, 0.2])


@pytest.mark.parametrize("strength", [1.0, 0.3, -1.0, 2.0])
def test_latents_move_by_the_strength_and_the_error_term_stays(
    run, dictionary, chosen, to, strength
):
    x = run(HOOK)
    indices = [_index(target) for target in chosen]
    old = dictionary.activations_of(x, indices)
    assert ((old > 0).any(0)).sum() >= 3
    edited = run(HOOK, AblateSet(chosen, to, strength, dictionary=dictionary))
    expected = x + strength * (to - old) @ dictionary.W_dec[indices]
    torch.testing.assert_close(edited, expected)


def test_latents_move_as_the_sum_of_single_edits_of_the_same_vector(run, dictionary, chosen, to):
    x = run(HOOK)
    singles = [
        run(HOOK, Ablate(target, float(value), dictionary=dictionary)) - x
        for target, value in zip(chosen, to, strict=True)
    ]
    edited = run(HOOK, AblateSet(chosen, to, dictionary=dictionary))
    torch.testing.assert_close(edited - x, sum(singles), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["latent", "neuron", "signed neuron", "direction"])
def test_a_set_of_one_is_the_single_edit(run, dictionary, active, kind):
    target = {
        "latent": active[0],
        "neuron": "neurons.2/5",
        "signed neuron": "neurons.2/5-",
        "direction": _slanted(1, means=True)[0],
    }[kind]
    at = "neurons.2" if "neuron" in kind else HOOK
    one = run(at, Ablate(target, 0.3, dictionary=dictionary))
    of_one = run(at, AblateSet((target,), torch.tensor([0.3]), dictionary=dictionary))
    assert not torch.equal(one, run(at))
    if kind == "direction":
        torch.testing.assert_close(of_one, one, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(of_one, one)


def test_neurons_are_written_exactly_as_one_after_the_other(run):
    targets = ("neurons.2/5", "neurons.2/7+", "neurons.2/0-", "neurons.2/11+", "neurons.2/30-")
    to = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.0])
    singles = [Ablate(target, float(value)) for target, value in zip(targets, to, strict=True)]
    x, edited = run("neurons.2"), run("neurons.2", AblateSet(targets, to))
    assert torch.equal(edited, run("neurons.2", *singles))
    others = [neuron for neuron in range(x.shape[1]) if neuron not in (5, 7, 0, 11, 30)]
    assert torch.equal(edited[:, others], x[:, others])
    assert (x[:, 11] < 0).any()
    assert torch.equal(edited[:, 11], x[:, 11].clamp_max(0))
    half = run("neurons.2", AblateSet(targets, to, 0.5))
    torch.testing.assert_close(half[:, 5], (x[:, 5] + 0.3) / 2)
    torch.testing.assert_close(half[:, 30], torch.where(x[:, 30] < 0, x[:, 30] / 2, x[:, 30]))


@pytest.mark.parametrize("means", [False, True])
def test_directions_that_are_not_orthogonal_reach_their_values(run, to, means):
    directions = _slanted(means=means)
    units = _units(directions)
    cosines = units @ units.T - torch.eye(4)
    assert cosines.max() > 0.5
    points = torch.stack([one.mean for one in directions])

    def components(x):
        return torch.stack([(x - m) @ u for m, u in zip(points, units, strict=True)], 1)

    x = run(HOOK)
    for strength in (1.0, 0.5, -1.0):
        edited = run(HOOK, AblateSet(directions, to, strength))
        wanted = components(x) + strength * (to - components(x))
        torch.testing.assert_close(components(edited), wanted, atol=1e-4, rtol=1e-4)
        others = torch.eye(32) - torch.linalg.pinv(units) @ units
        torch.testing.assert_close(edited @ others, x @ others, atol=1e-5, rtol=1e-4)


def test_dependent_directions_come_as_near_as_they_can(run):
    a, b = _slanted(2)
    between = Direction(HOOK, a.vector - 3 * b.vector, "between")
    x, units = run(HOOK), _units((a, b, between))
    edited = run(HOOK, AblateSet((a, b, between), torch.zeros(3)))
    torch.testing.assert_close(edited @ units.T, torch.zeros(len(x), 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        edited, run(HOOK, AblateSet((a, b), torch.zeros(2))), atol=1e-4, rtol=0
    )
    against = Direction(HOOK, 2 * a.vector, "the same, longer")
    split = run(HOOK, AblateSet((a, against), torch.tensor([1.0, 2.0])))
    torch.testing.assert_close(split @ units[0], torch.full((len(x),), 1.5), atol=1e-4, rtol=0)


def test_the_dictionary_encodes_once(lm, site, dictionary, monkeypatch):
    calls = []
    encode = Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: calls.append(x) or encode(self, x))
    targets = tuple(f"{HOOK}/{latent}" for latent in range(40))
    ((_, hook),) = AblateSet(targets, torch.zeros(40), dictionary=dictionary).attach(lm)
    hook(torch.randn(2, 5, 32), site(2, 5))
    assert len(calls) == 1


def test_at_strength_0_the_logits_are_bit_identical(lm, ids, dictionary, chosen, to, site):
    before = lm.forward(ids)
    for targets, strength in ((chosen, 0.0), (_slanted(), torch.tensor(0.0))):
        edit = AblateSet(targets, to, strength, dictionary=dictionary)
        with lm.edit(edit):
            assert torch.equal(lm.forward(ids), before)
        x = torch.randn(1, 4, 32)
        for _, hook in edit.attach(lm):
            assert hook(x, site(1, 4)) is x
    with lm.edit(replace(edit, strength=1.0)):
        assert not torch.equal(lm.forward(ids), before)
    assert torch.equal(lm.forward(ids), before)


@pytest.mark.parametrize("kind", ["latent", "neuron", "direction"])
def test_gradients_are_those_of_finite_differences(lm, site, dictionary, kind):
    hookpoint, d = ("neurons.1", 48) if kind == "neuron" else (HOOK, 32)
    targets = {
        "latent": tuple(f"{HOOK}/{latent}" for latent in (3, 8, 20)),
        "neuron": ("neurons.1/3", "neurons.1/8+", "neurons.1/20-"),
        "direction": _slanted(3, means=True),
    }[kind]
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 4, d, generator=generator).requires_grad_()
    weight = torch.randn(1, 4, d, generator=generator)
    to = torch.tensor([0.5, 0.2, 0.9], requires_grad=True)
    strength = torch.tensor(0.7, requires_grad=True)
    spot = site(1, 4, hookpoint)

    def score(x, to, strength):
        edit = AblateSet(targets, to, strength, dictionary=dictionary, sinks=True)
        ((_, hook),) = edit.attach(lm)
        return (hook(x, spot) * weight).sum()

    found = torch.autograd.grad(score(x, to, strength), (x, to, strength))
    inputs = [part.detach() for part in (x, to, strength)]
    for number, gradient in enumerate(found):
        step = torch.randn(gradient.shape, generator=generator)
        high, low = list(inputs), list(inputs)
        high[number] = inputs[number] + 1e-2 * step
        low[number] = inputs[number] - 1e-2 * step
        measured = (score(*high) - score(*low)) / 2e-2
        torch.testing.assert_close(measured, (gradient * step).sum(), rtol=5e-3, atol=5e-3)


def test_gradients_reach_the_vectors_of_directions(lm, site):
    vectors = [_vector(seed).requires_grad_() for seed in range(3)]
    directions = tuple(Direction(HOOK, vector, str(n)) for n, vector in enumerate(vectors))
    ((_, hook),) = AblateSet(directions, torch.ones(3)).attach(lm)
    for _ in range(2):  # a second time, through the same hook
        hook(torch.randn(1, 4, 32), site(1, 4)).square().sum().backward()
    assert all((vector.grad.abs() > 0).all() for vector in vectors)


def test_a_pass_in_inference_mode_leaves_the_set_fit_for_gradients(lm, site):
    ((_, hook),) = AblateSet(_slanted(), torch.ones(4), sinks=True).attach(lm)
    x = torch.randn(1, 4, 32, requires_grad=True)
    with torch.inference_mode():
        hook(x, site(1, 4))
    hook(x, site(1, 4)).square().sum().backward()
    assert (x.grad.abs() > 0).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_small_edit_changes_the_logit_as_its_gradient_predicts(family):
    """Predict, intervene, compare."""
    model = tiny(family)
    tokens = torch.tensor([model.tokenize("the day that you was with one")])
    dictionary = random_dictionary(model.d_model, hookpoint=HOOK)
    indices = [7, 12, 30]
    targets, to = tuple(f"{HOOK}/{index}" for index in indices), torch.tensor([0.6, 1.0, 0.3])
    with capture(model, [HOOK], grad=True) as seen:
        logit = model.forward(tokens, grad=True)[0, -1, 17]
    x = seen[HOOK]
    (gradient,) = torch.autograd.grad(logit, x)
    moved = (to - dictionary.activations_of(x.detach(), indices)) @ dictionary.W_dec[indices]
    step = 0.02
    logits = []
    for strength in (step, -step):
        with model.edit(AblateSet(targets, to, strength, sinks=True, dictionary=dictionary)):
            logits.append(model.forward(tokens)[0, -1, 17])
    predicted = float((gradient * moved).sum() * step)
    assert abs(predicted) > 1e-5
    assert float(logits[0] - logits[1]) / 2 == pytest.approx(predicted, rel=0.02, abs=2e-6)


def test_where_it_acts(lm, ids, dictionary, chosen, to):
    """Spans, conditions and rows of a batch, as for any edit."""
    edit = AblateSet(chosen, to, dictionary=dictionary, positions=Span(2, 4))

    def changed(*edits, ids=ids):
        with intervene(lm, edits), capture(lm, [HOOK]) as seen:
            lm.forward(ids)
        with capture(lm, [HOOK]) as plain:
            lm.forward(ids)
        return (seen[HOOK] != plain[HOOK]).any(-1)

    assert changed(edit)[0].nonzero()[:, 0].tolist() == [2, 3]
    assert changed(replace(edit, positions=Where(chosen[0], 1e9, dictionary=dictionary))).sum() == 0
    rows = per_row([[edit], [], [replace(edit, positions=Span(5, 6))]])
    assert changed(rows, ids=ids.expand(3, -1)).nonzero().tolist() == [[0, 2], [0, 3], [2, 5]]


def test_rows_of_a_generation_have_their_own_sets(lm, dictionary, chosen, to):
    prompt, sampling = lm.tokenize("that you was with one word"), Sampling(max_new_tokens=8)
    edits = [[AblateSet(chosen, 40 * to, s, dictionary=dictionary)] for s in (1.0, 0.0, -1.0)]
    together = [row.tokens for row in lm.generate([prompt] * 3, sampling, edits=edits)]
    alone = [lm.generate([prompt], sampling, edits=own)[0].tokens for own in edits]
    assert together == alone
    assert together[1] == lm.generate([prompt], sampling)[0].tokens
    assert together[0] != together[1] != together[2]


def test_it_is_rounded_once_to_the_models_dtype(lm, dictionary, chosen, to, site):
    x = (50 * torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))).bfloat16()
    for targets in (chosen, _slanted()):
        ((_, hook),) = AblateSet(targets, to.bfloat16(), dictionary=dictionary).attach(lm)
        assert torch.equal(hook(x, site(1, 6)), hook(x.float(), site(1, 6)).bfloat16())


def test_the_sign_flipped_set_moves_as_far_the_other_way(run, dictionary, chosen, to):
    edit = AblateSet(chosen, to, 0.5, dictionary=dictionary)
    (flipped,) = sign_flipped([edit])
    assert flipped == replace(edit, strength=-0.5)
    x = run(HOOK)
    torch.testing.assert_close(run(HOOK, flipped) - x, x - run(HOOK, edit))


def test_sets_are_equal_when_all_they_say_is(chosen, to):
    edit = AblateSet(chosen, to)
    assert edit == AblateSet(chosen, to.clone(), torch.tensor(1.0))
    assert hash(edit) == hash(AblateSet(chosen, to.clone()))
    assert edit != AblateSet(chosen, to + 1)
    assert edit != AblateSet(chosen, to, 0.5)
    assert edit != AblateSet(chosen, to, positions="prompt")
    assert edit != AblateSet(chosen[:2], to[:2])
    assert edit != Ablate(chosen[0])


def test_the_targets_of_every_kind_of_edit(chosen, to):
    assert targets_of(AblateSet(chosen, to)) == chosen
    assert targets_of(Swap(chosen[1], chosen[0])) == (chosen[1], chosen[0])
    assert targets_of(Ablate(A)) == (A,)


def test_a_dictionary_goes_to_sets_of_its_latents(dictionary, chosen, to):
    first, second = with_dictionary([AblateSet(chosen, to), AblateSet(_slanted(), to)], dictionary)
    assert first.dictionary is dictionary
    assert second.dictionary is None


def test_it_is_written_for_people(chosen, to):
    text = format_edit(AblateSet(("resid_post.15/12", "resid_post.15/77"), to[:2]))
    assert text == "ablate-set resid_post.15/12,resid_post.15/77 to given values x1"
    text = format_edit(AblateSet(_slanted(), to, -0.5, positions="response"))
    assert text == "ablate-set d0,d1,d2,d3 to given values x-0.5@response"
    many = tuple(f"neurons.1/{neuron}+" for neuron in range(40))
    text = format_edit(AblateSet(many, torch.zeros(40)))
    assert text.startswith("ablate-set neurons.1/0+,neurons.1/1+")
    assert "neurons.1/7+ and 32 more to given values" in text


def test_names_of_transformer_lens_and_ours_are_one_hookpoint(run, dictionary, to):
    theirs = tuple(f"blocks.1.hook_resid_post/{n}" for n in range(4))
    ours = tuple(f"{HOOK}/{n}" for n in range(4))
    a, b = _slanted(2)
    for one, other, d in (
        (theirs, ours, dictionary),
        ((a, replace(b, hookpoint="blocks.1.hook_resid_post")), (a, b), None),
    ):
        edits = [AblateSet(t, to[: len(t)], dictionary=d) for t in (one, other)]
        assert torch.equal(run(HOOK, edits[0]), run(HOOK, edits[1]))
