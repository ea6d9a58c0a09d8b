"""Each family's hookpoints: where they are, that they add up, and that edits flow downstream."""

from __future__ import annotations

import pytest
import torch

from brainscan.errors import UnknownHookpointError, UnknownModelError, UsageError
from brainscan.models import families
from brainscan.models.hooks import capture, intervene
from brainscan.models.tiny import D_MODEL, FAMILIES, N_LAYERS, tiny

MIXTURES = {"mixtral", "qwen3_next", "qwen3_moe", "gpt_oss"}
"""Families in which tokens meet at an expert: what one token is changes how others are rounded."""


@pytest.fixture(params=list(FAMILIES))
def lm(request):
    return tiny(request.param)


def _family(lm):
    return lm.name.split("-")[1]


def _lacks_neurons(lm, layer):
    """Whether a layer is a mixture of experts; the first of the tiny qwen3_moe is dense."""
    return _family(lm) in MIXTURES and not (_family(lm) == "qwen3_moe" and layer == 0)


def _all(lm, ids, *edits):
    with intervene(lm, edits), capture(lm, lm.hookpoints) as seen:
        logits = lm.forward(ids)
    return seen, logits


def test_a_family_has_every_hookpoint_but_the_neurons_of_experts(lm):
    expected = {
        f"{site}.{layer}"
        for site in families.SITES
        for layer in range(N_LAYERS)
        if site != "neurons" or not _lacks_neurons(lm, layer)
    }
    assert set(lm.hookpoints) == expected


def test_every_hookpoint_is_captured_with_its_shape(lm, ids):
    seen, logits = _all(lm, ids)
    assert logits.shape == (2, 9, lm.vocab_size)
    assert set(seen) == set(lm.hookpoints)
    for name, activation in seen.items():
        assert activation.shape == (2, 9, lm.width(name))
        assert not activation.requires_grad
    for site in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
        for layer in range(N_LAYERS):
            assert lm.width(f"{site}.{layer}") == D_MODEL


def test_what_the_branches_add_is_the_layers_difference(lm, ids):
    seen, _ = _all(lm, ids)
    for layer in range(N_LAYERS):
        difference = seen[f"resid_post.{layer}"] - seen[f"resid_pre.{layer}"]
        added = seen[f"attn_out.{layer}"] + seen[f"mlp_out.{layer}"]
        torch.testing.assert_close(added, difference, rtol=1e-4, atol=1e-5)


def test_one_layers_output_is_the_next_ones_input(lm, ids):
    seen, _ = _all(lm, ids)
    for layer in range(N_LAYERS - 1):
        assert torch.equal(seen[f"resid_post.{layer}"], seen[f"resid_pre.{layer + 1}"])


def test_no_edit_and_an_edit_of_zero_leave_the_logits_bit_for_bit(lm, ids, at):
    plain = lm.forward(ids)
    nothing = [at(name, lambda x, site: x) for name in lm.hookpoints]
    zero = [at(name, lambda x, site: x + torch.zeros_like(x)) for name in lm.hookpoints]
    for edits in (nothing, zero):
        with intervene(lm, edits):
            assert torch.equal(lm.forward(ids), plain)
    assert torch.equal(lm.forward(ids), plain)


@pytest.mark.parametrize("site", families.SITES)
def test_an_edit_changes_only_what_lies_downstream(lm, ids, at, site):
    hookpoint, where = f"{site}.{1 if site != 'neurons' else 0}", 5
    layer = int(hookpoint[-1])
    if site == "neurons" and _lacks_neurons(lm, layer):
        pytest.skip("a mixture of experts has no neurons")

    def change(x, site):
        bumped = x.clone()
        bumped[:, where] += torch.linspace(-3, 3, x.shape[-1])
        return bumped

    before, plain = _all(lm, ids)
    after, edited = _all(lm, ids, at(hookpoint, change))
    slack = 1e-4 if _family(lm) in MIXTURES else 0.0
    assert (edited[:, :where] - plain[:, :where]).abs().max() <= slack
    assert all((edited - plain)[:, where:].abs().amax((0, 2)) > 1e-3)
    assert torch.equal(after[hookpoint], change(before[hookpoint], None))
    for name in lm.hookpoints:
        if families.order(name) < families.order(hookpoint):
            assert torch.equal(before[name], after[name]), name
        assert (before[name] - after[name])[:, :where].abs().max() <= slack, name
    assert not torch.equal(before[f"resid_post.{layer}"], after[f"resid_post.{layer}"])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_a_neuron_adds_its_row_of_the_down_projection(family, ids, at):
    lm = tiny(family)
    place = lm.anatomy.places["neurons.2"]
    weight = lm.model.get_submodule(place.module).weight
    row = weight[7] if family == "gpt2" else weight[:, 7]

    def change(x, site):
        bumped = x.clone()
        bumped[..., 7] += 2.0
        return bumped

    before, _ = _all(lm, ids)
    after, _ = _all(lm, ids, at("neurons.2", change))
    predicted = before["mlp_out.2"] + 2.0 * row
    torch.testing.assert_close(after["mlp_out.2"], predicted, rtol=1e-4, atol=1e-5)


def test_residuals_in_sequence_instead_of_parallel(ids):
    lm = tiny("gpt_neox", use_parallel_residual=False)
    test_what_the_branches_add_is_the_layers_difference(lm, ids)


def test_padding_on_either_side_is_no_part_of_a_sequence(lm):
    ids = torch.tensor([[9, 41, 7, 200, 31]])
    plain = lm.forward(ids)
    left = torch.nn.functional.pad(ids, (3, 0))
    right = torch.nn.functional.pad(ids, (0, 3))
    padded = lm.forward(left, (torch.arange(8) >= 3).long()[None])[:, 3:]
    torch.testing.assert_close(padded, plain, rtol=1e-3, atol=1e-4)
    padded = lm.forward(right, (torch.arange(8) < 5).long()[None])[:, :5]
    torch.testing.assert_close(padded, plain, rtol=1e-3, atol=1e-4)


def test_transformer_lens_names_are_understood():
    lm = tiny("llama")
    for theirs, ours in {
        "blocks.3.hook_resid_pre": "resid_pre.3",
        "blocks.3.hook_resid_post": "resid_post.3",
        "blocks.1.hook_attn_out": "attn_out.1",
        "blocks.1.hook_mlp_out": "mlp_out.1",
        "blocks.0.mlp.hook_post": "neurons.0",
        "resid_post.03": "resid_post.3",
    }.items():
        assert lm.resolve(theirs) == ours


@pytest.mark.parametrize(
    "name", ["resid_post.4", "resid.1", "blocks.9.hook_mlp_out", "", "mlp_out"]
)
def test_an_unknown_hookpoint_lists_the_models(name):
    with pytest.raises(UnknownHookpointError) as error:
        tiny("llama").resolve(name)
    assert f"'{name}'" in str(error.value)
    assert "resid_post.0..3" in error.value.expected
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", sorted(MIXTURES))
def test_a_mixture_of_experts_says_why_it_has_no_neurons(family):
    lm = tiny(family)
    lacking = [layer for layer in range(N_LAYERS) if _lacks_neurons(lm, layer)]
    assert len(lacking) >= N_LAYERS - 1
    for layer in lacking:
        with pytest.raises(UnknownHookpointError, match="mixture of experts") as error:
            lm.resolve(f"neurons.{layer}")
        assert "resid_post.0..3" in error.value.expected
    if family == "qwen3_moe":
        assert lm.resolve("neurons.0") == "neurons.0"


def _causal(family, **settings):
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()


def test_a_layer_that_adds_in_an_unknown_way_has_only_its_residual():
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 32}
    model = _causal("granite", **sizes, num_attention_heads=2, residual_multiplier=0.5)
    anatomy = families.examine(model)
    assert "resid_post.1" in anatomy.places
    assert "neurons.1" in anatomy.places
    with pytest.raises(UnknownHookpointError, match="not known"):
        families.resolve(anatomy, "attn_out.1")


def test_the_text_layers_of_a_multimodal_model_are_found():
    from transformers import AutoModelForImageTextToText, Gemma3Config

    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**sizes, "num_hidden_layers": 2, "vocab_size": 32, "head_dim": 8},
        vision_config={**sizes, "num_hidden_layers": 3, "image_size": 28, "patch_size": 14},
    )
    anatomy = families.examine(AutoModelForImageTextToText.from_config(config))
    assert anatomy.n_layers == 2
    assert "language_model" in anatomy.places["resid_post.0"].module


def test_what_is_no_decoder_is_refused():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 32}
    with pytest.raises(UsageError, match="decoder-only"):
        families.examine(BertModel(BertConfig(**sizes, num_attention_heads=2)))


def test_tiny_models_are_seeded_and_their_families_known():
    first, same, other = tiny("gpt2"), tiny("gpt2"), tiny("gpt2", seed=1)
    assert first.ref == same.ref
    assert first.ref.weights != other.ref.weights
    with pytest.raises(UnknownModelError, match="llama"):
        tiny("lama")
