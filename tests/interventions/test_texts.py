"""The shipped texts: neutral passages and capability items."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import brainscan

DATA = Path(brainscan.__file__).parent / "interventions" / "data"
FILES = ("neutral.jsonl", "capability.jsonl")
SHARED = 8  # words that no two passages may have in a row


def lines(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def passages():
    return lines("neutral.jsonl")


@pytest.fixture(scope="module")
def items():
    return lines("capability.jsonl")


def body(passage):
    if "text" in passage:
        return passage["text"]
    return "\n".join(message["content"] for message in passage["messages"])


def sequences(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + SHARED]) for start in range(len(words) - SHARED + 1)}


@pytest.mark.parametrize("name", FILES)
def test_two_hundred_lines_of_clean_utf8_end_with_a_newline(name):
    text = (DATA / name).read_bytes().decode("utf-8")
    assert text.endswith("}\n")
    assert len(text.splitlines()) == 200
    assert not re.search("[\ufeff\ufffd\u200b\u00ad\r\t\x00]", text)


@pytest.mark.parametrize(("name", "prefix"), [("neutral.jsonl", "n"), ("capability.jsonl", "c")])
def test_ids_count_from_one(name, prefix):
    expected = [f"{prefix}{number:03d}" for number in range(1, 201)]
    assert [line["id"] for line in lines(name)] == expected


def test_a_passage_is_a_text_or_a_chat(passages):
    for passage in passages:
        kind = "messages" if "messages" in passage else "text"
        assert set(passage) == {"id", "register", kind}
        assert passage["register"].strip()
        assert body(passage) == body(passage).strip()


def test_chats_alternate_and_end_with_the_assistant(passages):
    for passage in passages:
        if "messages" not in passage:
            continue
        messages = passage["messages"]
        assert len(messages) in (2, 4)
        roles = ["user", "assistant"] * (len(messages) // 2)
        assert [message["role"] for message in messages] == roles
        assert all(set(message) == {"role", "content"} for message in messages)
        assert all(message["content"].strip() for message in messages)


def test_three_passages_in_ten_are_chats(passages):
    assert 55 <= sum("messages" in passage for passage in passages) <= 65


def test_passages_are_short_but_not_too_short(passages):
    for passage in passages:
        longest = 140 if "messages" in passage else 120
        assert 60 <= len(body(passage).split()) <= longest, passage["id"]


def test_no_register_has_more_than_a_tenth_of_the_texts(passages):
    registers = Counter(passage["register"] for passage in passages)
    assert len(registers) >= 20
    assert max(registers.values()) <= 14


def test_code_comes_in_three_languages(passages):
    code = "\n\n".join(body(passage) for passage in passages if passage["register"] == "code")
    assert all(mark in code for mark in ("def ", "#!/", "SELECT"))


def test_no_two_passages_share_eight_words_in_a_row(passages):
    owners: dict[tuple[str, ...], str] = {}
    for passage in passages:
        for sequence in sequences(body(passage)):
            owner = owners.setdefault(sequence, passage["id"])
            assert owner == passage["id"], (owner, passage["id"], " ".join(sequence))


def test_an_item_has_a_question_and_four_choices(items):
    for item in items:
        assert set(item) == {"id", "area", "question", "choices", "answer"}
        assert item["area"].strip()
        assert len(item["choices"]) == 4
        assert type(item["answer"]) is int


def test_choices_read_on_from_the_question_after_one_space(items):
    for item in items:
        assert item["question"].strip()
        assert item["question"] == item["question"].rstrip(" "), item["id"]
        for choice in item["choices"]:
            assert choice and choice == choice.strip(), item["id"]


def test_choices_differ_but_are_of_one_length(items):
    for item in items:
        assert len(set(item["choices"])) == 4
        lengths = [len(choice.split()) for choice in item["choices"]]
        assert max(lengths) - min(lengths) <= 1, item["id"]


def test_answers_are_balanced(items):
    assert Counter(item["answer"] for item in items) == {0: 50, 1: 50, 2: 50, 3: 50}


def test_no_question_is_asked_twice(items):
    assert len({item["question"].lower() for item in items}) == 200


def test_every_area_has_a_share(items):
    areas = Counter(item["area"] for item in items)
    assert len(areas) == 12
    assert min(areas.values()) >= 9
    assert max(areas.values()) <= 19
