from __future__ import annotations

import math

import pytest
import torch

from brainscan.errors import CorpusError, UsageError
from brainscan.interventions import (
    Add,
    Clamp,
    Direction,
    Item,
    Passage,
    capability_items,
    measure_effects,
    measure_effects_many,
)
from brainscan.interventions.batches import by_length
from brainscan.interventions.scoring import item_contexts, score_items, score_passages
from brainscan.interventions.texts import passage_tokens
from brainscan.models import intervene
from brainscan.models.tiny import tiny

VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(4))
PUSH = Add(Direction("resid_post.1", VECTOR, "push"), 0.8)
ITEMS = [
    Item("i1", "", "the day", ("one", "the", "with words and", "you"), 1),
    Item("i2", "", "that you was", ("not one", "not the day", "n", "word"), 0),
    Item("i3", "", "one", ("a b c", "a b d", "a b", "a"), 3),
]


def test_no_edit_costs_exactly_nothing(lm, passages):
    effects = measure_effects(lm, [], passages=passages[-4:], items=ITEMS)
    assert (effects.kl.value, effects.kl.low, effects.kl.high) == (0, 0, 0)
    assert effects.perplexity_ratio.value == effects.perplexity_ratio.high == 1
    assert effects.capability == effects.capability_baseline
    assert effects.capability_change.value == 0
    zero = [Add(PUSH.target, 0.0)]
    assert measure_effects(lm, zero, passages=passages[-4:], items=ITEMS) == effects


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_next"])
@pytest.mark.parametrize("positions", ["all", "response"])
def test_passages_are_scored_as_by_hand(family, positions, passages):
    model = tiny(family)
    passages = passages[-3:]
    edit = Add(Direction("resid_post.1", VECTOR, "push"), 0.8, positions=positions)
    sums = score_passages(model, [[edit]], passages, batch=3)
    for number, passage in enumerate(passages):
        tokens, prompt_length = passage_tokens(model, passage)
        ids = torch.tensor([tokens])
        base = model.forward(ids)[0, :-1].log_softmax(-1)
        with intervene(model, [edit], prompt_lengths=[prompt_length]):
            edited = model.forward(ids)[0, :-1].log_softmax(-1)
        kl = (base.exp() * (base - edited)).sum()
        nll = (base - edited).gather(1, ids[0, 1:, None]).sum()
        assert sums.tokens[number] == len(tokens) - 1
        assert float(sums.kl[0, number]) == pytest.approx(float(kl), rel=2e-3)
        assert float(sums.nll_change[0, number]) == pytest.approx(float(nll), rel=2e-3, abs=2e-3)


def test_items_are_scored_as_by_hand(lm):
    for edits in ([], [PUSH]):
        (correct,) = score_items(lm, [edits], ITEMS, batch=2)
        for number, item in enumerate(ITEMS):
            sums = []
            for choice in item.choices:
                asked = lm.tokenize(item.question)
                whole = lm.tokenize(f"{item.question} {choice}")
                assert whole[: len(asked)] == asked
                with lm.edit(*edits):
                    logprobs = lm.forward(torch.tensor([whole]))[0].log_softmax(-1)
                places = range(len(asked), len(whole))
                sums.append(sum(float(logprobs[at - 1, whole[at]]) for at in places))
            assert bool(correct[number]) == (max(sums) == sums[item.answer])


def test_only_the_contexts_that_are_needed_run(lm):
    contexts = item_contexts(lm, Item("i", "", "the day", ("b", "c", "e", "f"), 0))
    assert contexts.rows == [lm.tokenize("the day b")[:-1]]
    assert [tokens[-1:] for _, tokens in contexts.choices] == [lm.tokenize(c) for c in "bcef"]
    nested = item_contexts(lm, ITEMS[2])
    assert len(nested.rows) == 1


def test_many_sets_cost_what_each_costs_alone(lm, dictionary, passages):
    sets = [[PUSH], [], [Clamp("resid_post.1/5", 20.0, dictionary=dictionary), PUSH]]
    texts = {"passages": passages[-5:], "items": ITEMS}
    together = measure_effects_many(lm, sets, **texts)
    assert together == [measure_effects(lm, edits, **texts) for edits in sets]
    assert together[0] != together[2]


def test_the_order_and_the_batch_do_not_matter(lm, passages):
    passages = passages[-6:]
    one = measure_effects(lm, [PUSH], passages=passages, items=ITEMS, batch=1)
    all_at_once = measure_effects(lm, [PUSH], passages=passages[::-1], items=ITEMS[::-1], batch=8)
    assert one.kl.value == pytest.approx(all_at_once.kl.value, rel=1e-4)
    assert one.capability == all_at_once.capability


def test_a_stronger_edit_costs_more_and_figures_are_estimates(lm, passages):
    sets = [[Add(PUSH.target, strength)] for strength in (0.1, 0.5, 2.0)]
    effects = measure_effects_many(lm, sets, passages=passages[-8:], items=ITEMS)
    kls = [effect.kl.value for effect in effects]
    assert kls == sorted(kls)
    assert kls[0] > 0
    figures = effects[-1].to_json()
    names = ("kl", "perplexity_ratio", "capability", "capability_baseline", "capability_change")
    assert tuple(figures) == names
    assert all(
        set(figure) == {"value", "low", "high", "n", "method"} for figure in figures.values()
    )
    assert figures["kl"]["n"] == 8
    assert figures["capability"]["n"] == len(ITEMS)
    ratio = figures["perplexity_ratio"]
    assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]


def test_the_model_has_no_hook_left(lm, passages):
    measure_effects(lm, [PUSH], passages=passages[-2:], items=capability_items(2))
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules()
    )


def test_a_passage_of_one_token_is_refused(lm):
    with pytest.raises(CorpusError, match="at least two tokens"):
        measure_effects(lm, [PUSH], passages=[Passage("short", "news", text="a")], items=ITEMS)


def test_batches_bound_rows_and_logits(lm):
    groups = list(by_length(lm, [3, 9, 9, 1, 5], 2))
    assert groups == [[1, 2], [4, 0], [3]]
    long = math.ceil(2**26 / lm.vocab_size)
    assert list(by_length(lm, [long, long], 8)) == [[0], [1]]


def test_effects_are_not_measured_on_a_model_that_is_being_edited(lm, passages):
    with lm.edit(PUSH):
        with pytest.raises(UsageError, match="being edited"):
            measure_effects(lm, [PUSH], passages=passages)
        with pytest.raises(UsageError, match="being edited"):
            score_items(lm, [()], [], batch=2)
