"""Inspect tasks on a tiny model: batched, edited, recorded, counted, cancelled, repeatable."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace

import pytest
import torch
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    get_model,
)
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolCall, ToolInfo, ToolParam, tool

from brainscan.errors import ArtifactError, UsageError
from brainscan.interventions import Add, Direction, save_direction, save_edits
from brainscan.models import capture
from brainscan.models.generate import Sampling
from brainscan.models.tiny import tiny
from brainscan.stress import provider
from brainscan.stress.engine import Engine, Request
from brainscan.stress.recordings import read_recording, recording_of

QUESTIONS = ("the day that was", "one word and god", "light you not")


@pytest.fixture(scope="module")
def lm():
    return tiny("llama", max_position_embeddings=1024)


@pytest.fixture(autouse=True)
def _tiny_model(lm, monkeypatch):
    monkeypatch.setattr(provider, "_load", lambda *where: lm)
    monkeypatch.setattr(provider, "_engines", {})


def run(tmp_path, samples=QUESTIONS, epochs=1, args=None, solver=None, **config):
    dataset = MemoryDataset([Sample(input=text, id=f"s{n}") for n, text in enumerate(samples)])
    config = {"max_tokens": 12, "temperature": 1.0, **config}
    log = eval(
        Task(dataset=dataset, solver=solver or generate()),
        model="brainscan/tiny",
        model_args=args or {},
        epochs=epochs,
        display="none",
        log_dir=str(tmp_path / "logs"),
        ctl_server=False,
        **config,
    )[0]
    assert log.status == "success", log.error
    return log


def told(sample):
    return sample.output.metadata["brainscan"]


def test_epochs_differ_and_a_run_is_repeated_to_the_letter(tmp_path):
    first, again = (run(tmp_path, epochs=4) for _ in range(2))
    texts = {(s.id, s.epoch): s.output.completion for s in first.samples}
    assert len(set(texts.values())) > 8
    assert {(s.id, s.epoch): s.output.completion for s in again.samples} == texts
    other = run(tmp_path, epochs=4, seed=5)
    assert {(s.id, s.epoch): s.output.completion for s in other.samples} != texts


def test_every_call_is_recorded_and_can_be_replayed(tmp_path, lm):
    log = run(tmp_path, epochs=2, args={"capture": "resid_post.1"})
    for sample in read_eval_log(log.location).samples:
        note = told(sample)
        path = tmp_path / "logs" / note["path"]
        assert path.parent == tmp_path / "logs" / "brainscan" / sample.uuid
        found = recording_of(note, log.location)
        assert lm.decode(found.response.tolist()).startswith(sample.output.completion[:1])
        assert (len(found.prompt), len(found.response)) == (
            note["prompt_tokens"],
            note["response_tokens"],
        )
        ids = torch.cat([found.prompt, found.response])[None, :-1].long()
        with capture(lm, ["resid_post.1"]) as seen:
            lm.forward(ids)
        kept = found.activations["resid_post.1"]
        torch.testing.assert_close(kept, seen["resid_post.1"][0], atol=1e-4, rtol=1e-4)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="sha256"):
        read_recording(path, note["sha256"])


def test_usage_stop_reasons_and_prompts_that_are_held(tmp_path, lm):
    log = run(tmp_path, samples=[f"{text} earth" for text in QUESTIONS], epochs=3)
    for sample in log.samples:
        usage, note = sample.output.usage, told(sample)
        read = (usage.input_tokens, usage.input_tokens_cache_read or 0)
        assert sum(read) == note["prompt_tokens"] == len(lm.chat_tokens(sample.input))
        assert usage.output_tokens == note["response_tokens"]
        assert usage.total_tokens == sum(read) + usage.output_tokens
        ended = sample.output.stop_reason
        assert ended == ("max_tokens" if usage.output_tokens == 12 else "stop")
    held = [s for s in log.samples if s.output.usage.input_tokens_cache_read]
    assert len(held) == 6


def test_an_answer_ends_where_the_window_does(tmp_path, lm):
    """A prompt that leaves some room, and one that leaves none, with usage and recording alike."""
    room = 1024 - len(lm.chat_tokens("the" + " the" * 489))
    assert 5 < room < 60
    long = run(
        tmp_path, samples=["the" + " the" * 489, "the" + " the" * 1199], max_tokens=200, epochs=4
    )
    assert {s.output.stop_reason for s in long.samples} <= {"model_length", "stop"}
    full = [s for s in long.samples if s.output.stop_reason == "model_length"]
    assert {s.id for s in full} == {"s0", "s1"}
    for sample in full:
        usage, note = sample.output.usage, told(sample)
        prompt = lm.chat_tokens(sample.input)
        assert usage.output_tokens == (room if sample.id == "s0" else 0) == note["response_tokens"]
        assert usage.total_tokens == len(prompt) + usage.output_tokens
        assert recording_of(note, long.location).prompt.tolist() == prompt
        assert recording_of(note, long.location).response.numel() == usage.output_tokens


def test_logprobs_are_of_the_tokens_drawn(tmp_path, lm):
    log = run(tmp_path, samples=QUESTIONS[:1], logprobs=True, top_logprobs=2)
    (sample,) = log.samples
    found = recording_of(told(sample), log.location)
    ids = torch.cat([found.prompt, found.response])[None].long()
    scores = lm.forward(ids)[0, len(found.prompt) - 1 : -1].log_softmax(-1)
    content = sample.output.choices[0].logprobs.content
    for step, (one, token) in enumerate(zip(content, found.response.tolist(), strict=True)):
        assert one.logprob == pytest.approx(float(scores[step, token]), abs=1e-3)
        assert one.top_logprobs[0].logprob == pytest.approx(float(scores[step].max()), abs=1e-3)


def test_edits_change_answers_and_nothing_else_does(tmp_path):
    push = Add(Direction("resid_post.1", torch.linspace(-1, 1, 32), name="push"), 40.0)
    save_edits(tmp_path / "edits", [push])
    save_direction(tmp_path / "push.safetensors", push.target)
    plain = run(tmp_path)
    edited = run(tmp_path, args={"edits": str(tmp_path / "edits")})
    typed = run(tmp_path, args={"edits": [f"add:{tmp_path / 'push.safetensors'}=40"]})
    zero = run(tmp_path, args={"edits": f"add:{tmp_path / 'push.safetensors'}=0"})
    words = [[s.output.completion for s in log.samples] for log in (plain, edited, typed, zero)]
    assert words[0] == words[3] != words[1] == words[2]
    manifest = run(tmp_path, args={"edits": str(tmp_path / "edits" / "manifest.json")})
    assert [s.output.completion for s in manifest.samples] == words[1]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path))):
        provider._read_edits([str(tmp_path / "other.json")])


def test_a_tool_is_called_and_its_result_read(tmp_path, lm, monkeypatch):
    @tool
    def add():
        async def execute(x: int, y: int) -> str:
            """Adds two numbers.

            Args:
                x: one
                y: the other
            """
            return str(x + y)

        return execute

    texts = iter(['<tool_call>{"name": "add", "arguments": {"x": 1, "y": 2}}</tool_call>', "three"])
    real, prompts = provider.Engine.answer, []

    async def scripted(self, request):
        prompts.append(lm.decode(request.prompt))
        made = await real(self, request)
        return replace(made, text=next(texts), stop_reason="stop")

    monkeypatch.setattr(provider.Engine, "answer", scripted)
    solver = [use_tools(add()), generate()]
    (sample,) = run(tmp_path, samples=["1 + 2?"], solver=solver).samples
    assert sample.output.completion == "three"
    reasons = [event.output.stop_reason for event in sample.events if event.event == "model"]
    assert reasons == ["tool_calls", "stop"]
    assert "Adds two numbers." in prompts[0]
    assert "Result of add: 3" in prompts[1]


def test_tools_are_rendered_by_a_template_that_knows_of_them(lm, monkeypatch):
    template = (
        "{% for tool in tools %}[TOOL {{ tool.function.name }}: {{ tool.function.description }} "
        "{{ tool.function.parameters.properties | list | join('+') }}]{% endfor %}"
        "{% for m in messages %}{{ m.role }}={{ m.content }}"
        "{% for c in m.tool_calls or [] %}[CALL {{ c.function.name }} {{ c.function.arguments.x }}]"
        "{% endfor %};{% endfor %}"
    )
    offered = ToolInfo(name="add", description="Adds two numbers.")
    offered.parameters.properties = {"x": ToolParam(type="integer"), "y": ToolParam(type="integer")}
    call = ToolCall(id="c", function="add", arguments={"x": 1, "y": 2})
    messages = [
        ChatMessageUser(content="1 + 2?"),
        ChatMessageAssistant(content="", tool_calls=[call]),
        ChatMessageTool(content="3", tool_call_id="c", function="add"),
    ]
    in_words = lm.decode(provider.render(lm, messages, [offered]))
    assert "You may call these tools" in in_words and "Result of add: 3" in in_words
    monkeypatch.setattr(lm.tokenizer, "chat_template", template)
    told = lm.decode(provider.render(lm, messages, [offered]))
    assert told == "[TOOL add: Adds two numbers. x+y]user=1 + 2?;assistant=[CALL add 1];tool=3;"


def test_an_inspect_that_hides_its_samples_is_told(tmp_path, monkeypatch):
    monkeypatch.delattr("inspect_ai.log._samples.sample_active")
    with pytest.warns(UserWarning, match="calls are not recorded"):
        assert provider._caller() is None


def test_a_cancelled_call_ends_its_row(lm, monkeypatch):
    engine = Engine(lambda: lm)
    steps, begun, forward = [], threading.Event(), lm.model.forward

    def counted(*args, **kwargs):
        steps.append(1)
        if len(steps) >= 5:
            begun.set()
        time.sleep(0.005)
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", counted)
    sampling = Sampling(max_new_tokens=200, temperature=1.0)
    request = Request(tuple(lm.chat_tokens("the day")), sampling, 1)

    async def cancel():
        lm.model.generation_config.eos_token_id, eos = None, lm.tokenizer.eos_token
        lm.tokenizer.eos_token = None
        waiting = asyncio.create_task(engine.answer(request))
        assert await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other = Request(request.prompt, Sampling(max_new_tokens=3), 1)
        made = await engine.answer(other)
        lm.tokenizer.eos_token = eos
        return made

    assert len(asyncio.run(cancel()).tokens) == 3
    assert request.cancelled.is_set()
    assert 5 <= len(steps) < 60, "the cancelled row of 200 tokens was written on"


def test_a_closed_engine_ends_at_its_next_token(lm):
    engine = Engine(lambda: lm)
    sampling = Sampling(max_new_tokens=900, temperature=1.0)

    async def ask():
        waiting = asyncio.create_task(engine.answer(Request((5, 6), sampling, 1)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close)
        return await waiting

    assert len(asyncio.run(ask()).tokens) < 900
    assert engine._thread is not None and not engine._thread.is_alive()


def test_an_error_reaches_every_one_who_waits(lm):
    def broken():
        raise ValueError("no such weights")

    engine = Engine(broken)

    async def ask():
        requests = [Request((5, 6), Sampling(4), n) for n in range(3)]
        return await asyncio.gather(*map(engine.answer, requests), return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["no such weights"] * 3


def test_tokens_are_counted_by_the_models_own_tokenizer(lm):
    model = get_model("brainscan/tiny", memoize=False)
    assert asyncio.run(model.api.count_tokens("the day")) == len(lm.tokenize("the day"))
    messages = [ChatMessageUser(content="the day")]
    assert asyncio.run(model.api.count_tokens(messages)) == len(lm.chat_tokens("the day"))


def test_calls_outside_of_an_evaluation_and_several_choices():
    model = get_model("brainscan/tiny", memoize=False)
    config = GenerateConfig(max_tokens=8, num_choices=3, temperature=1.0)

    async def ask():
        return [await model.generate("the day", config=config) for _ in range(2)]

    first, second = asyncio.run(ask())
    texts = [choice.message.text for output in (first, second) for choice in output.choices]
    assert len(set(texts)) == 6
    assert "path" not in first.metadata["brainscan"][0]


def test_what_is_not_understood_is_refused_and_what_is_ignored_is_told():
    with pytest.raises(UsageError, match="edits, capture"):
        get_model("brainscan/tiny", memoize=False, hooks="x")
    model = get_model("brainscan/tiny", memoize=False)
    config = GenerateConfig(max_tokens=2, frequency_penalty=1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(model.generate("the", config=config))
    assert any("frequency_penalty" in str(warning.message) for warning in caught)


def test_inspect_finds_the_provider_without_loading_torch():
    script = (
        "import sys; from inspect_ai.model import get_model; import brainscan.stress.registry;"
        "assert 'torch' not in sys.modules; print('ok')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.strip() == "ok", ran.stderr
