"""Rows run again from a hookpoint: the same as whole rows under the edit, for less, and undone."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from brainscan.errors import UsageError
from brainscan.interventions import Add, Direction
from brainscan.models import replay, skipping
from brainscan.models.decoding import PromptBatch
from brainscan.models.hooks import Intervention, capture, intervene, per_row
from brainscan.models.kv_cache import buffers
from brainscan.models.replay import Patch, Replay
from brainscan.models.tiny import D_MODEL, FAMILIES, tiny

LENGTHS = (30, 7, 19, 41, 30)
WHOLE = {"qwen3_next", "qwen3_5_text"}
"""Families with a recurrent state."""

CASES = (
    ("resid_pre.0", 5, 5),
    ("resid_pre.2", 25, 3),
    ("attn_out.2", 5, 5),
    ("neurons.1", None, 41),
    ("mlp_out.2", 1, 1),
    ("resid_post.1", 5, 5),
    ("resid_post.1", None, 41),
)
"""Where the states are kept, the tail, and how many of each row's last tokens are edited."""


def make_rows(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 250, (length,), generator=generator).tolist() for length in lengths]


ROWS = make_rows()


def before_last(n, rows=ROWS):
    """Prompt lengths that leave the last n tokens."""
    return [max(0, len(row) - n) for row in rows]


def bump(x, site):
    return x + torch.linspace(-1, 1, x.shape[-1]).to(x)


def on_response(x, site):
    chosen = ~site.is_prompt & (site.positions >= 0)
    return torch.where(chosen[..., None], bump(x, site), x)


def one_by_one(lm, edits, prompt_lengths, rows=ROWS, grad=False):
    """The logits after each row, each run alone and whole."""
    found = []
    for number, row in enumerate(rows):
        own = [edit(number) if not isinstance(edit, Intervention) else edit for edit in edits]
        with intervene(lm, own, prompt_lengths=[prompt_lengths[number]]):
            found.append(lm.forward(torch.tensor([row]), grad=grad)[0, -1])
    return torch.stack(found)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    assert torch.equal(a.argmax(-1), b.argmax(-1))


class Record:
    """Keeps the sites it meets."""

    def __init__(self, hookpoint):
        self.hookpoint, self.sites = hookpoint, []

    def attach(self, lm):
        return [(self.hookpoint, lambda x, site: self.sites.append(site) or x)]


def assert_untouched(lm, logits, attention="sdpa"):
    modules = list(lm.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert not any("forward" in vars(module) for module in modules)
    assert lm.model.config._attn_implementation == attention
    assert torch.equal(lm.forward(torch.tensor([ROWS[0]])), logits)


# The same as whole rows


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_those_of_whole_rows_under_the_edit(family, at):
    lm = tiny(family)
    plain = one_by_one(lm, [], before_last(1))
    for hookpoint, tail, edited in CASES:
        if hookpoint not in lm.hookpoints:
            continue
        lengths = before_last(edited)
        states = Replay(lm, ROWS, lengths, hookpoint, tail, batch=2)
        assert states.skips == (family not in WHOLE)
        same(states.logits, plain)
        edits = [at(hookpoint, on_response), at("resid_post.3", on_response)]
        result = states.run(edits)
        assert not result.requires_grad
        assert (result - plain).abs().max() > 1e-2
        same(result, one_by_one(lm, edits, lengths))
        same(states.run(), plain)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe"])
def test_in_bf16_logits_agree_within_hundredths(family, at):
    lm = tiny(family)
    lm.model.bfloat16()
    lengths = before_last(5)
    states = Replay(lm, ROWS, lengths, "resid_post.1", 5, batch=3)
    assert states.skips
    edits = [at("resid_post.1", on_response)]
    for replayed, whole in (
        (states.run(), one_by_one(lm, [], lengths)),
        (states.run(edits), one_by_one(lm, edits, lengths)),
    ):
        assert replayed.dtype == torch.bfloat16
        assert (replayed - whole).norm() < 0.05 * whole.norm()


def test_activations_are_those_of_the_tail_and_the_mask_says_where_rows_are_shorter(lm):
    states = Replay(lm, ROWS, before_last(5), "mlp_out.2", 25, batch=2)
    assert states.activations.shape == (5, 25, 32) and states.mask.shape == (5, 25)
    assert states.mask.sum(1).tolist() == [min(25, length) for length in LENGTHS]
    for row, found, mask in zip(ROWS, states.activations, states.mask, strict=True):
        with capture(lm, ["mlp_out.2"]) as seen:
            lm.forward(torch.tensor([row]))
        torch.testing.assert_close(found[mask], seen["mlp_out.2"][0, -25:], rtol=1e-4, atol=1e-5)
        assert not found[~mask].any()


# What edits see


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
@pytest.mark.parametrize("tail", [4, 12, None])
def test_hooks_see_the_tail_where_it_stands_in_its_row(family, tail):
    lm = tiny(family)
    prompts = [9, 7, 17, 30, 28]
    states = Replay(lm, ROWS, prompts, "resid_post.1", tail, batch=5)
    record = Record("resid_post.2")
    states.run([record])
    met = []
    for site in record.sites:
        for positions, is_prompt, tokens in zip(
            site.positions, site.is_prompt, site.tokens, strict=True
        ):
            real = positions >= 0
            assert not is_prompt[~real].any()
            met.append((tokens[real].tolist(), positions[real].tolist(), is_prompt[real].tolist()))
    expected = [
        (
            row[-(tail or 99) :],
            list(range(len(row)))[-(tail or 99) :],
            [position < prompt for position in range(len(row))][-(tail or 99) :],
        )
        for row, prompt in zip(ROWS, prompts, strict=True)
    ]
    assert sorted(met) == sorted(expected)


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_an_edit_is_not_seen_before_the_tail_with_or_without_skipping(family, at):
    lm = tiny(family)
    everywhere = Replay(lm, ROWS, before_last(6), "resid_post.1", 6).run([at("resid_post.1", bump)])
    same(everywhere, one_by_one(lm, [at("resid_post.1", on_response)], before_last(6)))


def test_sinks_are_told_by_position_and_by_norm_within_the_tail(lm, at):
    direction = Direction("resid_post.1", torch.ones(D_MODEL))
    push = Add(direction, 2.0)
    suffix = Replay(lm, ROWS, before_last(6), "resid_post.1", 6, batch=2)
    response = Add(direction, 2.0, positions="response")
    same(suffix.run([push]), one_by_one(lm, [response], before_last(6)))
    whole = Replay(lm, ROWS, before_last(6), "resid_post.1", None, batch=2)
    same(whole.run([push]), one_by_one(lm, [push], before_last(6)))
    assert not torch.allclose(
        whole.run([push]), whole.run([Add(direction, 2.0, sinks=True)]), atol=1e-3
    )

    def swell(x, site):  # the third token from the end
        return torch.cat([x[:, :-3], 1000 * x[:, -3:-2], x[:, -2:]], dim=1)

    large = at("resid_post.1", swell)
    same(suffix.run([large, push]), one_by_one(lm, [large, response], before_last(6)))
    everywhere = Add(direction, 2.0, sinks=True)
    same(suffix.run([large, push]), suffix.run([large, everywhere]))  # answers have no sinks
    prompt = Replay(lm, ROWS, before_last(0), "resid_post.1", 6, batch=2)
    assert not torch.allclose(prompt.run([large, push]), prompt.run([large, everywhere]), atol=1e-3)


def test_edits_before_the_hookpoint_are_refused(lm, at):
    class Reading:
        def attach(self, lm):
            return [("blocks.0.hook_resid_post", bump), ("resid_post.3", bump)]

    states = Replay(lm, ROWS, before_last(3), "neurons.2", 3)
    for edit, name in (
        (at("attn_out.2", bump), "attn_out.2"),
        (at("resid_post.1", bump), "resid_post.1"),
        (at("resid_pre.2", bump), "resid_pre.2"),
        (Patch("resid_pre.0", {-1: torch.zeros(5, 32)}), "resid_pre.0"),
        (Reading(), "blocks.0.hook_resid_post"),
    ):
        with pytest.raises(UsageError, match=f"neurons.2 or later; got one at {name}"):
            states.run([edit])
    later = ("neurons.2", "mlp_out.2", "resid_post.2", "resid_pre.3", "attn_out.3")
    states.run([at(name, bump) for name in later])


# Rows


def test_rows_keep_their_order_and_their_own_edits(lm, at):
    edits = [at("resid_post.1", lambda x, site, n=n: x + n) for n in range(5)]
    states = Replay(lm, ROWS, before_last(4), "resid_post.1", 4, batch=2)
    mixed = states.run([per_row([(edit,) for edit in edits])])
    for number, edit in enumerate(edits):
        same(mixed[number, None], states.run([edit])[number, None])
    with pytest.raises(UsageError, match="an edit of 5 rows; got one of 4"):
        states.run([per_row([(edit,) for edit in edits[:4]])])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_next"])
def test_patching_puts_in_what_other_rows_had(family):
    lm = tiny(family)
    others = make_rows([length + 3 for length in LENGTHS])
    lengths = before_last(3)
    states = Replay(lm, ROWS, lengths, "resid_post.1", 9, batch=2)
    source = Replay(lm, others, before_last(3, others), "resid_post.1", 9, batch=3)
    same(states.patched({}), states.logits)
    same(states.patched({8: states.activations[:, 8], 2: states.activations[:, 2]}), states.logits)
    patched = states.patched({-1: source.activations[:, -1], 4: source.activations[:, 4]})

    def own(number):
        values = {-1: source.activations[number, None, -1], -5: source.activations[number, None, 4]}
        return Patch("resid_post.1", values)

    same(patched, one_by_one(lm, [own], lengths))
    assert (patched - states.logits).abs().max() > 1e-2


def test_what_lies_before_a_row_is_not_patched(lm):
    states = Replay(lm, ROWS, before_last(3), "resid_post.1", 12, batch=2)
    patched = states.patched({0: torch.full((5, 32), 7.0)})
    moved = (patched - states.logits).abs().amax(1) > 1e-3
    assert moved.tolist() == [length >= 12 for length in LENGTHS]


def test_wrong_patches_are_refused(lm):
    states = Replay(lm, ROWS, before_last(3), "resid_post.1", 3)
    for column in (3, -4):
        with pytest.raises(UsageError, match="a tail of 3"):
            states.patched({column: torch.zeros(5, 32)})
    with pytest.raises(UsageError, match="shape"):
        states.patched({0: torch.zeros(5, 31)})
    with pytest.raises(UsageError, match="an edit of 5 rows; got one of 4"):
        states.patched({0: torch.zeros(4, 32)})
    with pytest.raises(UsageError, match="the same rows"):
        states.patched({0: torch.zeros(5, 32), 1: torch.zeros(4, 32)})
    with pytest.raises(UsageError, match="counted from the end"):
        Patch("resid_post.1", {0: torch.zeros(5, 32)})


def test_rows_that_cannot_be_are_refused(lm):
    for rows, lengths, tail, expected in (
        ([], [], 1, "at least one token"),
        ([[5, 6], []], [1, 0], 1, "at least one token"),
        ([[5] * 513], [1], 1, "context window of 512"),
        ([[5, 6]], [1, 2], 1, "a prompt length for each"),
        ([[5, 6]], [1], 0, "a tail"),
    ):
        with pytest.raises(UsageError, match=expected):
            Replay(lm, rows, lengths, "resid_post.1", tail)


# Gradients


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox", "qwen3_next"])
@pytest.mark.parametrize("hookpoint", ["resid_pre.0", "attn_out.2", "resid_post.1"])
@pytest.mark.parametrize("tail", [6, None])
def test_gradients_are_those_of_whole_rows(family, hookpoint, tail):
    lm = tiny(family)
    lengths = before_last(6)
    states = Replay(lm, ROWS, lengths, hookpoint, tail, batch=2)
    strength = torch.tensor(0.7, requires_grad=True)
    values = states.activations[:, -2].clone().requires_grad_()
    direction = Direction(hookpoint, torch.linspace(-1, 2, D_MODEL))
    push = Add(direction, strength, positions="response")
    patch = Patch(hookpoint, {-2: values})

    def own(number):
        return patch.for_rows([number])

    replayed = states.run([patch, push], grad=True)
    states.run([push])  # what runs in between does not disturb the graph
    whole = one_by_one(lm, [own, push], lengths, grad=True)
    same(replayed.detach(), whole.detach())
    ours, theirs = (
        torch.autograd.grad((logits[:, 17] - logits[:, 40]).sum(), [strength, values])
        for logits in (replayed, whole)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    same(states.run(), states.logits)


# What it costs


@pytest.mark.parametrize(
    ("hookpoint", "runs"),
    [("resid_pre.2", 2), ("neurons.1", 3), ("resid_post.1", 2), ("resid_post.3", 0)],
)
def test_layers_below_do_not_run_and_those_above_run_the_tail(lm, at, hookpoint, runs, monkeypatch):
    states = Replay(lm, ROWS, before_last(3), hookpoint, 12, batch=2)
    calls = []
    for number, layer in enumerate(lm.model.model.layers):
        real = layer.mlp.forward
        monkeypatch.setattr(
            layer.mlp, "forward", lambda x, n=number, real=real: calls.append((n, x)) or real(x)
        )
    for _ in range(2):
        calls.clear()
        states.run([at(hookpoint, bump)])
        shapes = [(2, 12), (2, 12), (1, 7)]
        assert [(n, *x.shape[:2]) for n, x in calls] == [
            (n, *shape) for shape in shapes for n in range(4 - runs, 4)
        ]


def test_keys_and_values_are_kept_once_and_only_where_they_are_read(lm, at):
    states = Replay(lm, ROWS, before_last(3), "resid_post.1", 6, batch=2)

    def addresses():
        layers = [buffers(part.kept.forward.cache) for part in states._parts]
        assert all([x.is_initialized for x in own] == [False, False, True, True] for own in layers)
        return [x.keys.data_ptr() for own in layers for x in own if x.is_initialized]

    before, size = addresses(), states.size
    columns = sum(width * rows for width, rows in ((42, 2), (31, 2), (8, 1)))
    assert size > 2 * 2 * columns * 2 * 8 * 4  # layers, keys and values, heads of 8 in fp32
    for grad in (False, True):
        states.run([at("resid_post.1", bump)], grad=grad)
    assert addresses() == before
    assert states.size == size
    assert size < Replay(lm, ROWS, before_last(3), "resid_pre.0", 6, batch=2).size


# Undone, and what stands in the way


def test_the_model_leaves_as_it_came_also_after_an_exception(lm, at):
    logits = lm.forward(torch.tensor([ROWS[0]]))
    lm.model.train()
    states = Replay(lm, ROWS, before_last(3), "resid_post.1", 3, batch=2)
    result = states.run([at("resid_post.1", bump)])
    assert lm.model.training

    def fail(x, site):
        raise ValueError("in the hook")

    for edits in ([at("resid_post.1", fail)], [at("resid_post.3", bump), at("mlp_out.3", fail)]):
        for grad in (False, True):
            with pytest.raises(ValueError, match="in the hook"):
                states.run(edits, grad=grad)
    lm.model.eval()
    assert_untouched(lm, logits)
    assert torch.equal(states.run([at("resid_post.1", bump)]), result)
    assert_untouched(lm, logits)


def test_a_forward_of_the_modules_own_comes_back(lm):
    layer = lm.model.model.layers[0]
    real, calls = layer.forward, []

    def own(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    layer.forward = own
    states = Replay(lm, ROWS, before_last(3), "resid_post.1", 3)
    calls.clear()
    states.run()
    assert vars(layer)["forward"] is own
    assert not calls


def test_with_hooks_of_others_below_whole_rows_run_to_the_same_results(lm, at):
    edits, lengths = [at("resid_post.1", bump)], before_last(3)
    states = Replay(lm, ROWS, lengths, "resid_post.1", 3)
    result = states.run(edits)
    with capture(lm, ["resid_post.0"]) as seen:
        same(states.run(edits), result)
    assert seen["resid_post.0"].shape[1] > 40
    with capture(lm, ["resid_post.2"]) as seen:
        assert torch.equal(states.run(edits), result)
    assert seen["resid_post.2"].shape == (5, 3, 32)
    with capture(lm, ["resid_post.0"]):
        watched = Replay(lm, ROWS, lengths, "resid_post.1", 3)
    assert not watched.skips
    same(watched.run(edits), result)


def test_where_the_first_batch_disagrees_whole_rows_run(lm, at, monkeypatch):
    edits, lengths = [at("resid_post.1", bump)], before_last(3)
    result = Replay(lm, ROWS, lengths, "resid_post.1", 3).run(edits)
    monkeypatch.setattr(replay, "agree", lambda replayed, first: False)
    states = Replay(lm, ROWS, lengths, "resid_post.1", 3, batch=2)
    assert not states.skips
    assert all(part.kept is None for part in states._parts)
    same(states.run(edits), result)


def test_several_residuals_beside_each_other_are_not_gone_on_from(lm, monkeypatch):
    batch, below = PromptBatch(lm, ROWS, 0, share=False), skipping.LayersBelow(lm, "resid_post.1")
    batch.start()
    assert skipping.keep(below, batch, torch.zeros(4, 5, batch.width, 32), 3) is None
    assert skipping.keep(below, batch, torch.zeros(5, batch.width, 32), 3) is not None

    @contextmanager
    def capturing(lm, names):
        yield {name: torch.zeros(4, 5, batch.width, 32) for name in names}

    monkeypatch.setattr(replay, "capture", capturing)
    with pytest.raises(UsageError, match="a vector for each token"):
        Replay(lm, ROWS, before_last(3), "resid_post.1", 3)


def test_logits_agree_within_rounding_only():
    first = torch.linspace(-3, 3, 50)[None]
    assert skipping.agree(first + 1e-5, first)
    assert not skipping.agree(first + 1e-2, first)
    assert not skipping.agree(first * torch.nan, first)
    assert skipping.agree((first + 1e-2).bfloat16(), first.bfloat16())


def test_a_skipped_layer_returns_what_layers_of_its_kind_return(lm):
    below = skipping.LayersBelow(lm, "resid_post.1")
    kept, x = torch.ones(1, 2, 32), torch.zeros(1, 2, 32)
    first, second = lm.model.model.layers[:2]
    with below.skipped(kept):
        assert first(x) is x
        assert torch.equal(second(hidden_states=x, attention_mask=None), kept)
    for beside, may in (((), True), ((None,), True), ((None, x), False)):
        second.forward = lambda hidden_states, rest=beside: (hidden_states, *rest)
        with below.examined():
            second(x)
        assert below.replaceable == may
        with below.skipped(kept):
            value, *others = second(x)
        assert torch.equal(value, kept) and others == list(beside)
