"""Capturing and intervening: what is seen, what is changed, where, and that it is undone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from brainscan.errors import UnknownHookpointError, UsageError
from brainscan.models.hooks import Site, capture, intervene, per_row
from brainscan.models.tiny import tiny


def _hook_count(lm):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules()
    )


def _bump(x, site):
    return x + torch.linspace(-1, 1, x.shape[-1])


def _forward_seeing(lm, ids, hookpoint, mask=None):
    with capture(lm, [hookpoint]) as seen:
        lm.forward(ids, mask)
    return seen[hookpoint]


@dataclass(frozen=True)
class Record:
    """Keeps the sites it meets."""

    hookpoint: str
    sites: list[Site]

    def attach(self, lm):
        def look(x, site):
            self.sites.append(site)
            return x

        return [(self.hookpoint, look)]


class Broken:
    def attach(self, lm):
        raise RuntimeError("cannot attach")


# Undone, whatever happens


def test_the_model_comes_back_bit_for_bit_after_an_edit_and_after_an_exception(lm, ids, at):
    plain = lm.forward(ids)
    with intervene(lm, [at("resid_post.1", _bump)]):
        assert not torch.equal(lm.forward(ids), plain)
    assert torch.equal(lm.forward(ids), plain)

    def fail(x, site):
        raise ValueError("in the hook")

    edits = [at("resid_post.1", _bump), at("resid_post.2", fail)]
    with pytest.raises(ValueError, match="in the hook"), intervene(lm, edits):
        lm.forward(ids)
    with pytest.raises(KeyboardInterrupt), capture(lm, lm.hookpoints):
        raise KeyboardInterrupt
    assert _hook_count(lm) == 0
    assert torch.equal(lm.forward(ids), plain)


def test_nothing_is_left_when_an_intervention_cannot_be_attached(lm, at):
    wrong = at("resid_post.99", _bump)
    for edits, error in (
        ([at("neurons.0", _bump), Broken()], RuntimeError),
        ([at("neurons.0", _bump), wrong], UnknownHookpointError),
    ):
        with pytest.raises(error), intervene(lm, edits):
            pass
    with pytest.raises(UnknownHookpointError), capture(lm, ["resid_post.0", "resid_post.99"]):
        pass
    assert _hook_count(lm) == 0


# Order


def test_edits_at_one_hookpoint_run_in_order_and_inner_ones_after_outer_ones(lm, ids, at):
    plain = _forward_seeing(lm, ids, "resid_post.1")
    add, double = at("resid_post.1", lambda x, s: x + 1), at("resid_post.1", lambda x, s: 2 * x)
    for first, then, expected in ((add, double, 2 * (plain + 1)), (double, add, 2 * plain + 1)):
        with intervene(lm, [first, then]):
            assert torch.equal(_forward_seeing(lm, ids, "resid_post.1"), expected)
        with lm.edit(first), lm.edit(then):
            assert torch.equal(_forward_seeing(lm, ids, "resid_post.1"), expected)


def test_capture_sees_edits_from_inside_and_what_was_before_from_outside(lm, ids, at):
    plain = _forward_seeing(lm, ids, "attn_out.2")
    edit = at("blocks.2.hook_attn_out", _bump)
    with (
        capture(lm, ["attn_out.2"]) as outside,
        lm.edit(edit),
        capture(lm, ["attn_out.2"]) as within,
    ):
        lm.forward(ids)
    assert torch.equal(outside["attn_out.2"], plain)
    assert torch.equal(within["attn_out.2"], _bump(plain, None))


def test_hooks_of_one_intervention_share_state(lm, ids):
    class Carry:
        def attach(self, lm):
            kept = {}

            def read(x, site):
                kept["early"] = x
                return x

            return [("resid_post.0", read), ("resid_post.2", lambda x, site: kept["early"])]

    with capture(lm, ["resid_post.0"]) as seen, lm.edit(Carry()):
        early = _forward_seeing(lm, ids, "resid_post.2")
    assert torch.equal(early, seen["resid_post.0"])


# Capture


def test_each_forward_replaces_what_the_one_before_left_under_the_name_given(lm, ids):
    with capture(lm, ["blocks.1.hook_resid_post"]) as seen:
        lm.forward(ids)
        first = seen["blocks.1.hook_resid_post"]
        lm.forward(ids[:1, :4])
    assert first.shape == (2, 9, 32)
    assert seen["blocks.1.hook_resid_post"].shape == (1, 4, 32)


def test_stop_ends_the_forward_at_the_last_hookpoint(lm, ids, at):
    names = ["resid_post.1", "mlp_out.1", "resid_pre.0"]
    with capture(lm, names) as whole:
        lm.forward(ids)
    ran = []
    lm.model.model.layers[2].register_forward_pre_hook(lambda module, args: ran.append(2))
    after = False
    with capture(lm, names, stop=True) as seen:
        lm.forward(ids)
        after = True
    assert not ran
    assert not after
    assert set(seen) == set(names)
    assert all(torch.equal(seen[name], whole[name]) for name in names)


def test_a_stopped_forward_inside_others(lm, ids, at):
    plain = _forward_seeing(lm, ids, "resid_post.1")
    with capture(lm, ["resid_post.0"]) as outer, intervene(lm, [at("resid_post.0", _bump)]):
        with capture(lm, ["resid_post.1"], stop=True) as seen:
            lm.forward(ids)
        reached = True
    assert reached
    assert "resid_post.0" in outer
    assert not torch.equal(seen["resid_post.1"], plain)
    assert _hook_count(lm) == 0


# Which tokens


def test_one_site_is_made_per_forward_and_shared(lm, ids):
    sites = []
    with intervene(lm, [Record(name, sites) for name in ("resid_pre.0", "neurons.1")]):
        lm.forward(ids)
    early, late = sites
    assert (early.hookpoint, late.hookpoint) == ("resid_pre.0", "neurons.1")
    assert early.positions is late.positions
    assert torch.equal(early.tokens, ids)
    assert torch.equal(early.positions, torch.arange(9).expand(2, 9))
    assert early.is_prompt.all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_counted_without_padding(lm, side):
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1] if side == "left" else [1, 1, 0, 0]])
    sites = []
    with intervene(lm, [Record("resid_pre.0", sites)]):
        lm.forward(torch.full((2, 4), 7), mask)
        lm.model(input_ids=torch.full((2, 4), 7), attention_mask=mask)
    expected = [-1, -1, 0, 1] if side == "left" else [0, 1, -1, -1]
    for site in sites:
        assert site.positions.tolist() == [[0, 1, 2, 3], expected]
        assert torch.equal(site.is_prompt, mask.bool())


def test_prompt_lengths_say_where_the_response_begins(lm, ids):
    sites = []
    with intervene(lm, [Record("resid_pre.0", sites)], prompt_lengths=[2, 9]):
        lm.forward(ids)
    assert sites[0].is_prompt.sum(1).tolist() == [2, 9]
    with (
        pytest.raises(UsageError, match="3 lengths"),
        intervene(lm, [Record("resid_pre.0", [])], prompt_lengths=[1, 2, 3]),
    ):
        lm.forward(ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "qwen3_next"])
def test_positions_in_transformers_own_generation_with_a_cache(family):
    lm = tiny(family)
    ids = torch.tensor([[0, 0, 41, 77], [9, 41, 7, 200]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    sites = []
    with intervene(lm, [Record("resid_post.1", sites)]):
        out = lm.model.generate(
            ids, attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=False
        )
    assert [site.positions.tolist() for site in sites] == [
        [[-1, -1, 0, 1], [0, 1, 2, 3]],
        [[2], [4]],
        [[3], [5]],
        [[4], [6]],
    ]
    assert torch.equal(sites[0].is_prompt, mask.bool())
    assert not any(site.is_prompt.any() for site in sites[1:])
    assert torch.equal(torch.cat([site.tokens for site in sites], 1), out[:, :-1])


def test_positions_without_a_mask_go_on_from_the_cache(lm, ids):
    sites = []
    with intervene(lm, [Record("resid_pre.0", sites)]), torch.no_grad():
        first = lm.model(ids, use_cache=True)
        lm.model(ids[:, :2], past_key_values=first.past_key_values)
    assert sites[1].positions.tolist() == [[9, 10], [9, 10]]
    assert not sites[1].is_prompt.any()


def test_a_model_fed_with_embeddings_has_positions_and_no_tokens(lm, ids):
    sites = []
    with intervene(lm, [Record("resid_pre.0", sites)]):
        lm.model(inputs_embeds=lm.model.get_input_embeddings()(ids))
    assert torch.equal(sites[0].positions, torch.arange(9).expand(2, 9))
    assert (sites[0].tokens == -1).all()


@pytest.mark.parametrize("family", ["llama", "qwen3_next", "qwen3_5_text", "gpt_neox"])
def test_an_edit_of_responses_leaves_the_prompt_and_changes_what_is_written(family, at):
    lm = tiny(family)
    ids = torch.tensor([[41, 77, 9, 12]])
    push = 8 * torch.randn(32, generator=torch.Generator().manual_seed(1))

    def respond(x, site):
        chosen = ~site.is_prompt & (site.positions >= 0)
        return torch.where(chosen[..., None], x + push, x) if chosen.any() else x

    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    plain = lm.model.generate(ids, **options)
    with lm.edit(at("resid_post.2", respond)):
        edited = lm.model.generate(ids, **options)
        assert torch.equal(lm.forward(ids), lm.forward(ids))
    assert torch.equal(plain[:, :5], edited[:, :5])  # the first token comes from the prompt
    assert not torch.equal(plain, edited)
    with intervene(lm, [at("resid_post.2", respond)], prompt_lengths=[4]):
        forced = lm.forward(edited[:, :-1]).argmax(-1)
    assert torch.equal(forced[:, 3:], edited[:, 4:])  # fed at once, it would write the same


def test_an_edit_does_the_same_with_and_without_padding(lm, ids, at):
    def third(x, site):
        return torch.where((site.positions == 2)[..., None], _bump(x, site), x)

    mask = (torch.arange(12) >= 3).long().expand(2, 12)
    with lm.edit(at("resid_post.0", third)):
        plain = lm.forward(ids)
        padded = lm.forward(torch.nn.functional.pad(ids, (3, 0)), mask)
    torch.testing.assert_close(padded[:, 3:], plain, rtol=1e-4, atol=1e-5)


# Rows


def test_each_row_has_its_own_edits(lm, ids, at):
    three = torch.cat([ids, ids[:1]])
    bump, halve = at("resid_post.0", _bump), at("attn_out.2", lambda x, site: x / 2)
    plain = lm.forward(three)
    with intervene(lm, [per_row([(bump, halve), (), (bump, halve)])]):
        mixed = lm.forward(three)
    with lm.edit(bump, halve):
        edited = lm.forward(three)
    torch.testing.assert_close(mixed[[0, 2]], edited[[0, 2]])
    assert torch.equal(mixed[1], plain[1])
    assert not torch.allclose(mixed[0], plain[0])


def test_rows_have_their_part_of_the_site_and_unchanged_rows_change_nothing(lm, ids):
    sites = []
    plain = lm.forward(ids)
    with intervene(lm, [per_row([(), (Record("resid_pre.1", sites),)])]):
        assert torch.equal(lm.forward(ids), plain)
    assert torch.equal(sites[0].tokens, ids[1:])


def test_rows_that_do_not_fit_the_batch_are_refused(lm, ids, at):
    edits = per_row([(at("resid_pre.0", _bump),)] * 3)
    with pytest.raises(UsageError, match="a batch of 2"), intervene(lm, [edits]):
        lm.forward(ids)


# Gradients and types


def test_gradients_flow_to_an_edit_and_to_captured_activations_when_asked(lm, ids, at):
    vector = torch.zeros(32, requires_grad=True)
    edit = at("resid_post.1", lambda x, site: x + vector)
    with lm.edit(edit), capture(lm, ["resid_post.1", "mlp_out.3"], grad=True) as seen:
        target = lm.forward(ids, grad=True)[:, -1, 17].sum()
    along, inside = torch.autograd.grad(target, [vector, seen["resid_post.1"]])
    assert along.abs().max() > 0
    torch.testing.assert_close(along, inside.sum((0, 1)))
    step = 1e-2 * along / along.norm()
    shifted = at("resid_post.1", lambda x, site: x + step)
    with lm.edit(shifted):
        moved = lm.forward(ids)[:, -1, 17].sum()
    torch.testing.assert_close(moved - target, (along * step).sum(), rtol=0.05, atol=1e-5)


def test_no_graph_is_built_unless_asked(lm, ids):
    with capture(lm, ["resid_post.1"]) as seen:
        assert not lm.forward(ids).requires_grad
        lm.model(ids)
    assert not seen["resid_post.1"].requires_grad


def test_an_edit_in_another_type_is_brought_back_and_another_shape_refused(lm, ids, at):
    lm.model.bfloat16()
    with lm.edit(at("resid_post.1", lambda x, site: x.float() + 1)):
        assert lm.forward(ids).dtype == torch.bfloat16
    with (
        pytest.raises(UsageError, match="keep the shape"),
        lm.edit(at("resid_post.1", lambda x, site: x[:, 1:])),
    ):
        lm.forward(ids)
