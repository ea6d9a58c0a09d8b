from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brainscan.activations import find_sinks
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import (
    DictionaryMismatchError,
    UnknownFeatureError,
    UnknownHookpointError,
    UsageError,
)
from brainscan.interventions import Ablate, Add, Clamp, Direction, ProjectOut, Scale, Span, Swap
from brainscan.models import capture
from brainscan.models.tiny import tiny

HOOK = "resid_post.1"


def _index(address):
    return int(address.split("/")[1])


def _direction(seed, mean=None, hookpoint=HOOK, d=32):
    generator = torch.Generator().manual_seed(seed)
    return Direction(hookpoint, 3 * torch.randn(d, generator=generator), f"d{seed}", mean)


@pytest.fixture
def run(run):
    """Edits of all tokens, sinks among them: what is done to a token is tested here, not where."""

    def everywhere(hookpoint, *edits, **options):
        return run(hookpoint, *(replace(edit, sinks=True) for edit in edits), **options)

    return everywhere


LATENT_EDITS = [
    (lambda t, d: Add(t, 0.5, dictionary=d), lambda old: old + 0.5),
    (lambda t, d: Scale(t, 1.5, dictionary=d), lambda old: 1.5 * old),
    (lambda t, d: Clamp(t, 2.0, dictionary=d), lambda old: 2.0 + 0 * old),
    (lambda t, d: Ablate(t, dictionary=d), lambda old: 0 * old),
    (lambda t, d: Ablate(t, 0.3, dictionary=d), lambda old: 0.3 + 0 * old),
]


@pytest.mark.parametrize(("make", "new"), LATENT_EDITS)
def test_a_latent_edit_keeps_the_error_term(run, dictionary, active, make, new):
    latent = _index(active[0])
    x = run(HOOK)
    old = dictionary.activations_of(x, [latent])[:, 0]
    assert (old > 0).any()
    assert (old == 0).any()
    expected = x + (new(old) - old)[:, None] * dictionary.W_dec[latent]
    torch.testing.assert_close(run(HOOK, make(active[0], dictionary)), expected)


def test_strength_counts_in_the_latents_own_maximum(run, active, lm):
    dictionary = random_dictionary(lm.d_model, hookpoint=HOOK)
    dictionary.activation_max[_index(active[0])] = 7.0
    moved = run(HOOK, Add(active[0], 2.0, dictionary=dictionary)) - run(HOOK)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((len(moved),), 14.0))


def test_edits_of_a_hookpoint_act_in_order_each_on_the_formers_result(run, dictionary, active):
    first = Add(active[0], 1.0, dictionary=dictionary)
    second = Scale(active[0], 3.0, dictionary=dictionary)
    row = dictionary.W_dec[_index(active[0])]

    def by_hand(x, *, add_first):
        for step in ("add", "scale") if add_first else ("scale", "add"):
            old = dictionary.activations_of(x, [_index(active[0])])[:, 0]
            x = x + (torch.ones_like(old) if step == "add" else 2 * old)[:, None] * row
        return x

    x = run(HOOK)
    in_order, reverse = run(HOOK, first, second), run(HOOK, second, first)
    torch.testing.assert_close(in_order, by_hand(x, add_first=True))
    torch.testing.assert_close(reverse, by_hand(x, add_first=False))
    assert not torch.allclose(in_order, reverse)


def test_swapped_latents_have_each_others_activations(run, dictionary, active):
    a, b = map(_index, active[:2])
    x = run(HOOK)
    in_a, in_b = dictionary.activations_of(x, [a, b]).unbind(1)
    moved = (in_b - in_a)[:, None] * (dictionary.W_dec[a] - dictionary.W_dec[b])
    edited = run(HOOK, Swap(active[0], active[1], dictionary=dictionary))
    torch.testing.assert_close(edited, x + moved)


def test_a_neuron_is_written_and_its_sign_names_a_side_of_zero(run):
    x = run("neurons.2")
    values = x[:, 5]
    assert (values > 0).any()
    assert (values < 0).any()
    cases = {
        Clamp("neurons.2/5", 2.0, maximum=0.5): torch.ones_like(values),
        Clamp("neurons.2/5-", 2.0, maximum=0.5): -torch.ones_like(values),
        Ablate("neurons.2/5+"): values.clamp_max(0),
        Ablate("neurons.2/5-"): values.clamp_min(0),
        Scale("neurons.2/5+", 2.0): torch.where(values > 0, 2 * values, values),
        ProjectOut("neurons.2/5"): torch.zeros_like(values),
    }
    for edit, expected in cases.items():
        edited = run("neurons.2", edit)
        torch.testing.assert_close(edited[:, 5], expected)
        others = [neuron for neuron in range(x.shape[1]) if neuron != 5]
        assert torch.equal(edited[:, others], x[:, others])


def test_a_neurons_maximum_is_measured_on_neutral_text(run, lm):
    edited = run("neurons.2", Clamp("neurons.2/5+", 1.0))[:, 5]
    assert (edited == edited[0]).all()
    assert edited[0] >= run("neurons.2")[:, 5].max() * 0.5


def test_a_neurons_maximum_leaves_out_sinks(monkeypatch, passages):
    from brainscan.interventions import neurons
    from brainscan.interventions.texts import passage_tokens

    model = tiny("llama", seed=3)
    monkeypatch.setattr(neurons, "neutral_passages", lambda limit: passages)
    found = neurons.neuron_maxima(model, "neurons.1")
    kept = []
    for passage in passages:
        with capture(model, ["neurons.1"]) as seen:
            model.forward(torch.tensor([passage_tokens(model, passage).ids]))
        values = seen["neurons.1"]
        kept.append(values[~find_sinks(values)])
    torch.testing.assert_close(found.largest, torch.cat(kept).amax(0))
    torch.testing.assert_close(found.smallest, torch.cat(kept).amin(0))


def test_add_along_a_direction_counts_in_the_tokens_own_norm(run):
    direction = _direction(1)
    x = run(HOOK)
    moved = run(HOOK, Add(direction, -0.25)) - x
    unit = direction.vector / direction.vector.norm()
    torch.testing.assert_close(moved, -0.25 * x.norm(dim=1, keepdim=True) * unit)


def test_edits_along_a_direction_change_its_component_only(run):
    mean = torch.randn(32, generator=torch.Generator().manual_seed(9))
    direction = _direction(1, mean)
    unit = direction.vector / direction.vector.norm()
    x = run(HOOK)
    old = (x - mean) @ unit
    cases = {
        Scale(direction, -1.0): -old,
        Clamp(direction, 0.5): 0.5 * x.norm(dim=1),
        Ablate(direction, 0.7): torch.full_like(old, 0.7),
        ProjectOut(direction): torch.zeros_like(old),
    }
    for edit, new in cases.items():
        edited = run(HOOK, edit)
        torch.testing.assert_close((edited - mean) @ unit, new, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            edited - ((edited - mean) @ unit)[:, None] * unit, x - old[:, None] * unit
        )


def test_projecting_out_a_latent_removes_its_decoder_direction(run, dictionary, active):
    edited = run(HOOK, ProjectOut(active[0], dictionary=dictionary))
    row = dictionary.W_dec[_index(active[0])]
    torch.testing.assert_close(edited @ row, torch.zeros(len(edited)), atol=1e-5, rtol=0)


def test_swapped_directions_exchange_their_components(run):
    a, b = _direction(1), Direction(HOOK, _direction(2).vector + _direction(1).vector, "both")
    units = torch.stack([d.vector / d.vector.norm() for d in (a, b)])
    x = run(HOOK)
    edited = run(HOOK, Swap(a, b))
    torch.testing.assert_close(edited @ units.T, (x @ units.T).flip(1), atol=1e-4, rtol=1e-4)
    others = torch.eye(32) - torch.linalg.pinv(units) @ units
    torch.testing.assert_close(edited @ others, x @ others, atol=1e-5, rtol=1e-4)


def test_an_edit_that_changes_nothing_leaves_the_logits_bit_identical(lm, ids, dictionary, site):
    direction = _direction(1)
    edits = [
        Add(f"{HOOK}/3", 0.0, dictionary=dictionary),
        Add(direction, 0.0),
        Scale(f"{HOOK}/3", 1.0, dictionary=dictionary),
        Scale(direction, torch.tensor(1.0)),
        Swap(direction, direction),
        Swap(f"{HOOK}/3", f"{HOOK}/3", dictionary=dictionary),
        Clamp(direction, 1.0, positions=Span(500)),
    ]
    before = lm.forward(ids)
    with lm.edit(*edits):
        assert torch.equal(lm.forward(ids), before)
    for edit in edits:
        x = torch.randn(1, 4, 32)
        for _, hook in edit.attach(lm):
            assert hook(x, site(1, 4)) is x


def test_the_model_is_left_as_it_came(lm, ids, dictionary, active):
    before = lm.forward(ids)
    with lm.edit(Clamp(active[0], 5.0, dictionary=dictionary), ProjectOut(_direction(1))):
        assert not torch.equal(lm.forward(ids), before)
    assert torch.equal(lm.forward(ids), before)


def test_the_change_is_made_in_fp32_and_rounded_once(lm, dictionary, site):
    x = (50 * torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))).bfloat16()
    edits = [Add(_direction(1), 0.3), Scale(_direction(2), 1.7)]
    for edit in [*edits, Clamp(f"{HOOK}/3", 2.0, dictionary=dictionary)]:
        ((_, hook),) = edit.attach(lm)
        edited = hook(x, site(1, 6))
        assert edited.dtype == torch.bfloat16
        assert torch.equal(edited, hook(x.float(), site(1, 6)).bfloat16())


def test_gradients_reach_the_activation_the_strength_and_the_vector(lm, site):
    vector = _direction(1).vector.requires_grad_()
    strength = torch.tensor(0.0, requires_grad=True)
    x = torch.randn(1, 4, 32, requires_grad=True)
    ((_, hook),) = Add(Direction(HOOK, vector), strength).attach(lm)
    hook(x, site(1, 4)).square().sum().backward()
    assert strength.grad.abs() > 0
    assert vector.grad is not None
    assert (x.grad.abs() > 0).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("kind", ["latent", "direction", "neuron"])
def test_a_small_edit_changes_the_logit_as_its_gradient_predicts(family, kind):
    """Predict, intervene, compare: d logit / d x at the hookpoint, times the edit's vector."""
    model = tiny(family)
    tokens = torch.tensor([model.tokenize("the day that you was with one")])
    dictionary = random_dictionary(model.d_model, hookpoint=HOOK)
    hookpoint = "neurons.1" if kind == "neuron" else HOOK
    edit, vector = {
        "latent": lambda s: (Add(f"{HOOK}/7", s, dictionary=dictionary), dictionary.W_dec[7]),
        "direction": lambda s: (Add(_direction(3, d=model.d_model), s), None),
        "neuron": lambda s: (Add("neurons.1/5", s, maximum=1.0), None),
    }[kind](0.02)
    edit = replace(edit, sinks=True)
    with capture(model, [hookpoint], grad=True) as seen:
        logit = model.forward(tokens, grad=True)[0, -1, 17]
    x = seen[hookpoint]
    (gradient,) = torch.autograd.grad(logit, x)
    if kind == "direction":
        unit = edit.target.vector / edit.target.vector.norm()
        delta = edit.strength * x.norm(dim=-1, keepdim=True) * unit
    elif kind == "latent":
        delta = (edit.strength * vector).expand_as(x)
    else:
        delta = torch.zeros_like(x)
        delta[..., 5] = edit.strength
    predicted = float((gradient * delta).detach().sum())
    with model.edit(edit):
        raised = model.forward(tokens)[0, -1, 17]
    with model.edit(replace(edit, strength=-edit.strength)):
        lowered = model.forward(tokens)[0, -1, 17]
    measured = float(raised - lowered) / 2
    assert abs(predicted) > 1e-5
    assert measured == pytest.approx(predicted, rel=0.02, abs=2e-6)


def test_an_edit_changes_only_what_lies_downstream(lm, ids):
    edit = Add(_direction(1), 1.0, positions=Span(4, 6))
    before = lm.forward(ids)[0]
    with lm.edit(edit), capture(lm, ["resid_post.0", HOOK]) as seen:
        after = lm.forward(ids)[0]
    with capture(lm, ["resid_post.0", HOOK]) as plain:
        lm.forward(ids)
    assert torch.equal(seen["resid_post.0"], plain["resid_post.0"])
    changed = (seen[HOOK] != plain[HOOK]).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [4, 5]
    assert torch.equal(after[:4], before[:4])
    assert not torch.equal(after[4:], before[4:])


def test_bad_targets_are_refused_with_what_would_do(lm, dictionary):
    with pytest.raises(UnknownFeatureError, match=r"resid_post\.1/0 to resid_post\.1/63"):
        Clamp(f"{HOOK}/64", 1.0, dictionary=dictionary).attach(lm)
    with pytest.raises(UnknownFeatureError, match=r"48 neurons"):
        Ablate("neurons.1/48").attach(lm)
    with pytest.raises(UnknownHookpointError):
        Clamp("resid_post.9/1", 1.0, dictionary=dictionary).attach(lm)
    with pytest.raises(DictionaryMismatchError, match="width 16"):
        Clamp(f"{HOOK}/1", 1.0, dictionary=random_dictionary(16, hookpoint=HOOK)).attach(lm)
    with pytest.raises(DictionaryMismatchError, match=r"of resid_post\.1"):
        Clamp("resid_post.2/1", 1.0, dictionary=dictionary).attach(lm)
    with pytest.raises(DictionaryMismatchError, match="of width 16"):
        Add(_direction(1, d=16), 1.0).attach(lm)
    with pytest.raises(UsageError, match="like with like"):
        Swap(f"{HOOK}/1", _direction(1), dictionary=dictionary).attach(lm)


def test_a_latent_that_never_fired_has_no_maximum_to_count_in(lm, ids):
    dictionary = random_dictionary(lm.d_model, hookpoint=HOOK)
    dictionary.activation_max[3] = 0.0
    edit = Clamp(f"{HOOK}/3", 1.0, dictionary=dictionary)
    with pytest.raises(UsageError, match="never fired"), lm.edit(edit):
        lm.forward(ids)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Clamp("resid_post.1", 1.0),
        lambda: Add("nonsense", 1.0),
        lambda: Scale(f"{HOOK}/1", float("nan")),
        lambda: Clamp(f"{HOOK}/1", 1.0, positions="sometimes"),
        lambda: Ablate(5),
        lambda: Direction(HOOK, torch.zeros(4)),
        lambda: Direction(HOOK, torch.ones(4), mean=torch.ones(5)),
        lambda: Span(4, 4),
    ],
)
def test_nonsense_is_refused_when_the_edit_is_written(make):
    with pytest.raises(Exception) as error:
        make()
    assert isinstance(error.value, UsageError) or "Type" in type(error.value).__name__


def test_neurons_are_not_measured_on_a_model_that_is_being_edited(dictionary, active):
    model = tiny("llama", seed=5)
    with (
        model.edit(Add(active[0], 1.0, dictionary=dictionary)),
        pytest.raises(UsageError, match="being edited"),
        model.edit(Clamp("neurons.0/1", 1.0)),
    ):
        pass
