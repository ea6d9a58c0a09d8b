from __future__ import annotations

import json
from collections import Counter

import pytest

from brainscan.errors import CorpusError
from brainscan.interventions import capability_items, neutral_passages
from brainscan.interventions.texts import Passage, passage_tokens

PASSAGE = {"id": "n1", "register": "news", "text": "A text."}
CHAT = {"id": "n2", "register": "chat", "messages": [{"role": "user", "content": "Hello."}]}
ITEM = {"id": "c1", "area": "facts", "question": "One", "choices": [*"abcd"], "answer": 2}


def test_our_own_texts_are_whole():
    passages, items = neutral_passages(), capability_items()
    assert len(passages) == len(items) == 200
    assert len({passage.register for passage in passages}) >= 8
    assert sum(passage.messages is not None for passage in passages) >= 20
    assert min(Counter(item.answer for item in items).values()) >= 30


def test_the_first_few_are_the_same_each_time_and_mixed():
    first = neutral_passages(20)
    assert first == neutral_passages()[:20]
    assert len({passage.register for passage in first}) >= 5


def _write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "line",
    [
        PASSAGE | {"text": ""},
        PASSAGE | {"messages": CHAT["messages"]},
        {"id": "n1", "register": "news"},
        CHAT | {"messages": []},
        CHAT | {"messages": [{"role": "user"}]},
        PASSAGE | {"id": ""},
        [],
    ],
)
def test_what_is_no_passage(tmp_path, line):
    path = _write(tmp_path / "texts.jsonl", CHAT | {"id": "n0"}, line)
    with pytest.raises(CorpusError, match=r"line 2 of .*texts\.jsonl"):
        neutral_passages(path=path)


@pytest.mark.parametrize(
    "line",
    [
        ITEM | {"choices": [*"abc"]},
        ITEM | {"choices": [*"abca"]},
        ITEM | {"answer": 4},
        ITEM | {"answer": True},
        ITEM | {"question": " "},
    ],
)
def test_what_is_no_item(tmp_path, line):
    with pytest.raises(CorpusError, match="line 1"):
        capability_items(path=_write(tmp_path / "items.jsonl", line))


def test_ids_are_unique_and_files_exist(tmp_path):
    with pytest.raises(CorpusError, match="not unique"):
        neutral_passages(path=_write(tmp_path / "twice.jsonl", PASSAGE, PASSAGE))
    with pytest.raises(CorpusError, match="at least one line"):
        neutral_passages(path=_write(tmp_path / "empty.jsonl"))
    with pytest.raises(CorpusError, match=r"missing\.jsonl"):
        neutral_passages(path=tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(CorpusError, match="UTF-8"):
        neutral_passages(path=tmp_path / "latin.jsonl")


def test_what_counts_as_prompt(lm):
    plain = passage_tokens(lm, Passage("a", "news", text="the day that was"))
    assert plain.prompt_length == (len(plain.ids) + 1) // 2
    turns = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"})
    chat = passage_tokens(lm, Passage("b", "chat", messages=turns))
    assert lm.decode(chat.ids[chat.prompt_length :]).startswith("Good day")
