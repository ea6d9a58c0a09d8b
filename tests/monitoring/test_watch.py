"""Watching a row as it is written: it changes nothing, and sees what a reading afterwards sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainscan import Ablate, Add, Direction, Sampling
from brainscan.errors import UsageError
from brainscan.models.generate import generate
from brainscan.models.tiny import tiny
from brainscan.monitoring import (
    Detector,
    Detectors,
    JumpRule,
    Watch,
    watch_answer,
    watch_transcripts,
)
from brainscan.monitoring.following import follow, trace
from brainscan.monitoring.readings import read_rows
from brainscan.monitoring.roles import MarkedTokens, marked_chat
from brainscan.monitoring.scores import ROLES

ASKED = [{"role": "user", "content": "the day was not one with you"}]
SAMPLING = Sampling(max_new_tokens=24, temperature=1.0, seed=3)


def written(lm, detectors, seed=3, **options):
    marked = marked_chat(lm, ASKED, generation_prompt=True)
    watch = Watch(detectors, marked.roles, **options)
    made = generate(lm, [marked.tokens], SAMPLING, edits=[watch], seeds=[seed])[0]
    return marked, watch, made


def test_a_watched_answer_is_the_same(lm, detectors):
    marked, _, made = written(lm, detectors)
    plain = generate(lm, [marked.tokens], SAMPLING, seeds=[3])[0]
    assert made.tokens == plain.tokens


def test_it_sees_what_reading_afterwards_sees(lm, detectors):
    marked, watch, made = written(lm, detectors)
    n = len(marked.tokens) + len(made.tokens) - 1  # the last token is never read
    special = set(lm.tokenizer.all_special_ids)
    roles = ["" if token in special else "assistant" for token in made.tokens]
    whole = MarkedTokens(
        [*marked.tokens, *made.tokens],
        [*marked.roles, *roles],
        [*marked.messages, *[9] * len(roles)],
        [],
    )
    (read,) = follow(lm, detectors, [whole])
    seen = np.stack(watch.scores)[:n]
    np.testing.assert_allclose(seen, read.z[:n], atol=1e-3)
    traced = trace(read, detectors.rule, detectors.names)
    np.testing.assert_allclose(watch.jumps[:n], traced.jumps[:n], atol=1e-3)


def test_rows_of_a_batch_are_watched_as_if_alone(lm, detectors):
    marked = marked_chat(lm, ASKED, generation_prompt=True)
    alone = [written(lm, detectors, seed=seed)[1:] for seed in (1, 2)]
    watches = [Watch(detectors, marked.roles) for _ in range(2)]
    push = Add(Direction("resid_post.0", torch.ones(lm.d_model)), 0.5, positions="response")
    rows = [[watches[0]], [watches[1]], [push]]
    made = generate(lm, [marked.tokens] * 3, SAMPLING, edits=rows, seeds=[1, 2, 5])
    for (watch, one), together, row in zip(alone, watches, made, strict=False):
        assert one.tokens == row.tokens
        n = len(marked.tokens) + len(row.tokens) - 1
        np.testing.assert_allclose(
            np.stack(watch.scores)[:n], np.stack(together.scores)[:n], atol=1e-3
        )


def test_a_watch_is_of_one_row(lm, detectors):
    marked = marked_chat(lm, ASKED, generation_prompt=True)
    watch = Watch(detectors, marked.roles)
    with lm.edit(watch), pytest.raises(UsageError, match="one row"):
        lm.forward(torch.tensor([marked.tokens] * 2))


def eager(detectors, threshold):
    """Detectors that raise an alarm as soon as the sum is above a threshold; every token adds."""
    rule = replace(detectors.rule, threshold=threshold, spread=(1e9,) * 3, kappa=-1.0)
    return replace(detectors, rule=rule)


def test_an_edit_acts_from_the_alarm_on_and_not_before(lm, detectors):
    """Every token adds 1 to the sum: the fifth raises the alarm, before the sixth is drawn."""
    push = Add(Direction("resid_post.3", torch.randn(lm.d_model)), 30.0, positions="response")
    found = eager(detectors, 4.5)
    marked, watch, made = written(lm, found, on_alarm=[push])
    plain = generate(lm, [marked.tokens], SAMPLING, seeds=[3])[0]
    (alarm,) = watch.alarms
    first = len(marked.tokens)
    assert alarm.token == first + 4
    assert alarm.onset == first
    assert made.tokens[:5] == plain.tokens[:5]
    assert made.tokens[5:] != plain.tokens[5:]


def test_an_alarm_of_an_earlier_answer_ends_no_other(lm, detectors):
    """The first answer of the prompt is long enough to raise one by itself."""
    said = [*ASKED, {"role": "assistant", "content": "one word and one word and more"}, *ASKED]
    sampling = replace(SAMPLING, max_new_tokens=3)
    got = watch_answer(lm, eager(detectors, 4.5), said, sampling, stop=True)
    assert not got.alarms
    assert got.roles.count("assistant") > 5 + 2
    assert got.answer


def test_an_alarm_ends_the_answer(lm, detectors):
    got = watch_answer(lm, eager(detectors, 4.5), ASKED, SAMPLING, stop=True)
    assert [role for role in got.roles if role == "assistant"] == ["assistant"] * 5
    assert len(got.alarms) == 1
    free = watch_answer(lm, eager(detectors, 4.5), ASKED, SAMPLING)
    assert len(free.texts) > len(got.texts)
    assert free.answer.startswith(got.answer)


def test_scores_are_told_as_tokens_are_read_and_the_last_without(lm, detectors):
    told = []
    got = watch_answer(
        lm, detectors, ASKED, SAMPLING, on_score=lambda text, z: told.append((text, z))
    )
    own = [n for n, role in enumerate(got.roles) if n >= len(got.roles) - len(told) and role]
    assert [text for text, _ in told] == [got.texts[n] for n in own]
    np.testing.assert_array_equal(np.stack([z for _, z in told]), got.z[own])
    assert np.isnan(told[-1][1]).all() or got.texts[-1] != told[-1][0]
    cut = []
    watch_answer(
        lm, eager(detectors, 4.5), ASKED, SAMPLING, stop=True, on_score=lambda t, z: cut.append(t)
    )
    assert len(cut) == 5


def test_what_was_asked_counts_by_message(lm, detectors):
    """The greatest quantile of a message, not that of all together."""
    talk = [
        {"role": "user", "content": "the day was not one with you and that was the word"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "earth"},
    ]
    marked = marked_chat(lm, talk, generation_prompt=True)
    (read,) = follow(lm, detectors, [marked])
    wanted = watch_answer(lm, detectors, talk, replace(SAMPLING, max_new_tokens=2)).asked
    own = [[z[1] for z, m in zip(read.z, marked.messages, strict=True) if m == k] for k in (0, 2)]
    assert wanted["earth"] == pytest.approx(max(np.quantile(z, 0.95) for z in own), abs=1e-3)
    assert wanted["earth"] != pytest.approx(np.quantile(own[0] + own[1], 0.95), abs=1e-3)


def loud(lm, detectors, strong, calm):
    """Detectors whose danger is what sets the words of one text apart from those of another."""
    hookpoint, means = "resid_pre.0", []
    for text in (strong, calm):
        (row,) = read_rows(lm, [lm.tokenize(text)], [hookpoint])
        means.append(row.values[hookpoint].float().mean(0))
    vector = 8 * (means[0] - means[1])
    danger = replace(
        detectors.each[1],
        hookpoint=hookpoint,
        aggregate="token",
        weights=tuple(vector.tolist()),
        bias=-float(vector @ (means[0] + means[1]) / 2),
        neutral=dict.fromkeys(ROLES, (0.0, 1.0)),
        line=(1.0, 0.0),
        threshold=1.0,
    )
    return replace(detectors, each=(detectors.each[0], danger, detectors.each[2]))


def test_danger_that_was_asked_about_is_a_risk_and_no_jump(lm, detectors):
    strong, calm = "word " * 8, "you " * 8
    found = loud(lm, detectors, strong, calm)

    def seen(asked, said):
        talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return watch_transcripts(lm, found, [talk])[0]

    about, repeated = seen(strong, calm), seen(strong, strong)
    for one in (about, repeated):
        assert one.risks == ("earth",) and not one.alarms
        assert one.asked["earth"] > 1
        assert one.to_json()["risks"] == ["earth"]
    jump = seen(calm, strong)
    assert jump.risks == () and jump.to_json()["risks"] == []
    assert [alarm.concept for alarm in jump.alarms] == ["earth"]
    prompt = [{"role": "user", "content": strong}]
    marked = marked_chat(lm, prompt, generation_prompt=True)
    watch = Watch(found, marked.roles)
    generate(lm, [marked.tokens], replace(SAMPLING, max_new_tokens=2), edits=[watch])
    assert watch.risks == ("earth",)


def test_hooks_are_gone_after_an_error(lm, detectors):
    marked = marked_chat(lm, ASKED, generation_prompt=True)

    def fail(text, z):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        watch_answer(lm, detectors, ASKED, SAMPLING, on_score=fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())
    assert marked.tokens


def test_transcripts_are_told_token_by_token(lm, detectors):
    talk = [*ASKED, {"role": "assistant", "content": "<script>one</script> word and earth"}]
    (got,) = watch_transcripts(lm, detectors, [talk])
    told = got.to_json()
    assert next(t["role"] for t in told["tokens"] if t["role"]) == "user"
    scored = [t for t in told["tokens"] if t["role"] == "assistant"]
    assert all(set(t["concepts"]) == {"light", "earth", "sea"} for t in scored)
    assert all(t["jump"] is not None for t in scored)
    assert got.answer == talk[1]["content"]
    assert "<script>one" not in got.strip()


def test_a_conversation_longer_than_the_model_reads(lm, detectors):
    with pytest.raises(UsageError, match="number 1"):
        watch_transcripts(lm, detectors, [[{"role": "user", "content": "day " * 2000}]])


def test_edits_on_alarm_need_a_rule(detectors):
    with pytest.raises(UsageError, match="rule"):
        Watch(replace(detectors, rule=None), [], on_alarm=[Ablate("resid_post.1/0")])


def test_a_hybrid_is_watched_too():
    lm = tiny("qwen3_next")
    draw = np.random.default_rng(1)
    one = Detector(
        "a",
        "A",
        True,
        "resid_post.1",
        "logistic",
        "ema",
        tuple(draw.normal(size=lm.d_model).tolist()),
        0.0,
        (),
        dict.fromkeys(ROLES, (0.0, 1.0)),
        (1.0, 0.0),
        1.0,
    )
    found = Detectors(lm.ref, (one,), rule=JumpRule("cusum", 5.0, (0.0,), (1.0,), (0,)))
    got = watch_answer(lm, found, ASKED, SAMPLING)
    assert np.isfinite(got.z[:-1]).any()
