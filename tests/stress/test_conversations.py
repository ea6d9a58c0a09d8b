"""Conversations from lines of JSON and from logs."""

from __future__ import annotations

import json

import pytest

from brainscan.errors import ArtifactError, CorpusError
from brainscan.stress.conversations import read_conversations

TALK = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]


def test_lines_are_read_and_blank_ones_passed_over(tmp_path):
    path = tmp_path / "talks.jsonl"
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    odd = {"messages": [{"role": "user", "content": parts}], "id": 7}
    path.write_text(f"{json.dumps({'messages': TALK})}\n\n{json.dumps(odd)}\n")
    first, second = read_conversations(path)
    assert first == TALK
    assert second == [{"role": "user", "content": "a\nb"}]


def test_what_json_allows_within_a_line_is_no_new_line(tmp_path):
    odd = [{"role": "user", "content": "a\u2028b\u0085c"}, {"role": "assistant", "content": None}]
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps({"messages": odd}, ensure_ascii=False) + "\n")
    assert read_conversations(path) == [odd[:1]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "at least one conversation"),
        ("not json", "line 1"),
        ('{"text": "a"}', "line 1"),
        ('{"messages": [{"role": "user"}]}', "line 1"),
        ('{"messages": 3}', "line 1"),
        ('{"messages": [{"role": null, "content": "a"}]}', "line 1"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', "line 1"),
        ('{"messages": [{"role": "user", "content": 3}]}', "line 1"),
    ],
)
def test_what_is_no_conversation(tmp_path, text, word):
    path = tmp_path / "talks.jsonl"
    path.write_text(text)
    with pytest.raises(CorpusError, match=word):
        read_conversations(path)


def test_what_is_not_there_or_not_text(tmp_path):
    with pytest.raises(CorpusError):
        read_conversations(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CorpusError, match="UTF-8"):
        read_conversations(tmp_path / "bytes.jsonl")
    with pytest.raises(CorpusError, match=r"\.eval logs"):
        read_conversations(tmp_path)


def test_a_file_that_is_no_log(tmp_path):
    (tmp_path / "broken.eval").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ArtifactError, match=r"broken\.eval"):
        read_conversations(tmp_path / "broken.eval")


def test_a_log_gives_what_was_said(tmp_path):
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalSample,
        EvalSpec,
        write_eval_log,
    )
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

    said = [ChatMessageUser(content="Hello."), ChatMessageAssistant(content="Good day.")]
    spec = EvalSpec(
        created="2026-11-27T00:00:00+00:00",
        task="talk",
        dataset=EvalDataset(),
        model="none/none",
        config=EvalConfig(),
    )
    sample = EvalSample(id=1, epoch=1, input="Hello.", target="", messages=said)
    write_eval_log(EvalLog(eval=spec, samples=[sample]), str(tmp_path / "one.eval"))
    assert read_conversations(tmp_path) == [TALK]
