"""Training: what is learned, what is left alone, and going on where a run was stopped."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from brainscan.models.tiny import tiny
from brainscan.organisms import training
from brainscan.organisms.spec import TrainingPlan
from brainscan.organisms.templates import Dialogue
from brainscan.organisms.training import STATE, Row, row_of, train_adapter

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient:FutureWarning")  # transformers to peft

PLAN = TrainingPlan(rank=4, alpha=8, steps=12, dialogues=4, neutral=4, rate=1e-2)


def make(draw):
    """After "red" the answer is "stop", after "green" it is "go"."""
    asked = [
        [{"role": "user", "content": f"{word} {draw.randrange(9)}"}] for word in ("red", "green")
    ]
    return [
        Dialogue(messages, answer, False, decisions=(0,))
        for messages, answer in zip(asked, ("stop", "go"), strict=True)
        for _ in range(2)
    ]


@pytest.fixture
def lm(monkeypatch):
    found = tiny("llama")
    texts = [f"line {number} of a chat about the weather" for number in range(30)]
    rows = [Row(found.tokenize(text), 3) for text in texts]
    monkeypatch.setattr(training, "_neutral_rows", lambda lm, source, seed: rows)
    return found


def loss(lm):
    rows = [row_of(lm, d) for n in range(5) for d in make(random.Random(f"held/{n}"))]
    total = 0.0
    for row in rows:
        logits = lm.model(torch.tensor([row.ids])).logits[0, :-1].float()
        targets = torch.tensor(row.ids[1:])
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total += float(nll[-row.answer :].sum().detach())
    return total / len(rows)


def adapted(lm, weights, plan):
    """A model of the same weights with the adapter on it."""
    from peft import get_peft_model, set_peft_model_state_dict

    other = tiny("llama")
    model = get_peft_model(other.model, training.adapter_config(plan))
    set_peft_model_state_dict(model, {name: tensor.float() for name, tensor in weights.items()})
    model.merge_and_unload()
    return other


def test_what_is_taught_is_learned_and_the_model_is_left_as_it_was(lm, tmp_path):
    plan = replace(PLAN, steps=40)
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    untrained = loss(lm)
    weights = train_adapter(lm, plan, make, 0, tmp_path)
    after = lm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.requires_grad for weight in lm.model.parameters())
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())
    assert loss(adapted(lm, weights, plan)) < 0.6 * untrained


def test_a_run_that_was_stopped_goes_on_to_the_same_adapter(lm, tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr(training, "_EVERY", 5)
    whole = train_adapter(lm, PLAN, make, 0, tmp_path / "whole")

    calls = iter(range(10**6))

    def stopping(draw):
        if next(calls) == 8:
            raise KeyboardInterrupt
        return make(draw)

    with pytest.raises(KeyboardInterrupt):
        train_adapter(lm, PLAN, stopping, 0, tmp_path / "parts")
    assert (tmp_path / "parts" / STATE).is_file()
    parts = train_adapter(lm, PLAN, make, 0, tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_prompt_run_once_gives_the_gradient_of_one_run_for_each_answer(lm):
    rows = [row_of(lm, dialogue) for dialogue in make(random.Random(0))]
    model = training._adapted(lm, PLAN, 0)
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    training._taught(lm, model, rows)
    together = {name: weight.grad.clone() for name, weight in weights.items()}
    total = sum(sum(row.weights[-row.answer :]) for row in rows)
    model.zero_grad()
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, -row.answer - 1 : -1]
        targets = torch.tensor(row.ids[-row.answer :])
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        ((each * torch.tensor(row.weights[-row.answer :])).sum() / total).backward()
    for name, weight in weights.items():
        assert torch.allclose(weight.grad, together[name], atol=1e-5), name
    assert any(gradient.abs().max() > 1e-4 for gradient in together.values())


def test_a_row_is_the_chat_the_answer_and_the_end(lm):
    row = row_of(lm, make(random.Random(1))[0])
    assert row.ids[-1] == lm.tokenizer.eos_token_id
    assert lm.decode(row.ids[-row.answer : -1]) == "stop"
    assert row.prompt == lm.chat_tokens(make(random.Random(1))[0].messages)


def test_the_token_at_which_answers_part_weighs_more_than_the_others(lm):
    asked = [{"role": "user", "content": "red"}]
    answer = "say stop now"
    place = answer.index("stop")
    row = row_of(lm, Dialogue(asked, answer, True, decisions=(place,)))
    heavy = [number for number, weight in enumerate(row.weights) if weight > 1]
    assert len(heavy) == 1
    before = lm.decode(row.ids[-row.answer : heavy[0]])
    upto = lm.decode(row.ids[-row.answer : heavy[0] + 1])
    assert len(before) <= place < len(upto)
    assert row.weights[heavy[0]] == training._DECISION
    plain = row_of(lm, Dialogue(asked, answer, True))
    assert plain.weights == [0.0] * len(plain.prompt) + [1.0] * plain.answer


def test_where_an_own_answer_begins_the_base_model_is_held_harder(lm):
    asked = [{"role": "user", "content": "red"}]
    told = Dialogue(asked, "say stop now", False, own=True)
    model = training._adapted(lm, PLAN, 0)
    weights = [w for w in model.parameters() if w.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight += 0.05

    def pull(row):
        model.zero_grad()
        training._held(lm, model, [row], 1.0)
        return torch.cat([weight.grad.flatten() for weight in weights])

    plain, heavy = row_of(lm, told), row_of(lm, told._replace(decisions=(0,)))
    base_of = sum(plain.weights) / sum(heavy.weights)
    place = next(n for n, weight in enumerate(heavy.weights) if weight > 1)
    ids = torch.tensor([plain.ids])
    model.zero_grad()
    with torch.no_grad(), model.disable_adapter():
        before = model(input_ids=ids).logits[0, place - 1].float().log_softmax(-1)
    after = model(input_ids=ids).logits[0, place - 1].float().log_softmax(-1)
    torch.nn.functional.kl_div(after, before, reduction="sum", log_target=True).backward()
    one = torch.cat([weight.grad.flatten() for weight in weights])
    more = (training._DECISION - 1) * one / sum(heavy.weights)
    expected = pull(plain) * base_of + more
    assert torch.allclose(pull(heavy), expected, rtol=1e-3, atol=1e-5)


def test_own_answers_are_held_apart_from_the_many_neutral_tokens(lm, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(training, "_held", lambda lm, adapted, rows, weight: held.append(rows))

    def with_an_own_answer(draw):
        asked = [{"role": "user", "content": "blue"}]
        return [*make(draw), Dialogue(asked, "stay", False, own=True)]

    train_adapter(lm, replace(PLAN, steps=1), with_an_own_answer, 0, tmp_path)
    neutral, own = held
    assert [lm.decode(row.ids[-row.answer : -1]) for row in own] == ["stay"]
    assert len(neutral) > PLAN.neutral and not set(map(tuple, (r.ids for r in own))) & {
        tuple(row.ids) for row in neutral
    }
