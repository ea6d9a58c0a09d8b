"""Which message a token is of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainscan.errors import UsageError
from brainscan.models.tiny import tiny
from brainscan.monitoring.roles import marked_chat

LM = tiny("llama")

MESSAGES = [
    {"role": "system", "content": "the day"},
    {"role": "user", "content": "user"},
    {"role": "assistant", "content": "  a word\nand more "},
    {"role": "tool", "content": "assistant"},
]


def told(marked, lm):
    """The text of each message's tokens."""
    found = {}
    for text, number in zip(lm.token_strings(marked.tokens), marked.messages, strict=True):
        if number >= 0:
            found[number] = found.get(number, "") + text
    return found


def test_tokens_are_those_of_the_template():
    marked = marked_chat(LM, MESSAGES, generation_prompt=True)
    assert marked.tokens == LM.chat_tokens(MESSAGES)
    assert len(marked.roles) == len(marked.tokens) == len(marked.starts)


def test_a_message_that_reads_like_the_template_is_found_where_it_is():
    """The template itself holds the words user and assistant."""
    marked = marked_chat(LM, MESSAGES)
    found = told(marked, LM)
    assert [found[n].strip() for n in range(4)] == [m["content"].strip() for m in MESSAGES]
    roles = {
        n: {r for r, m in zip(marked.roles, marked.messages, strict=True) if m == n}
        for n in range(4)
    }
    assert roles == {n: {m["role"]} for n, m in enumerate(MESSAGES)}


@settings(max_examples=40)
@given(st.lists(st.text("ab <|>user\n\u00e9", min_size=1, max_size=12), min_size=1, max_size=4))
def test_every_message_is_found_whatever_it_says(contents):
    messages = [{"role": "user", "content": text} for text in contents]
    marked = marked_chat(LM, messages)
    held = {n for n in marked.messages if n >= 0}
    assert held <= set(range(len(contents)))
    for number, text in enumerate(contents):
        if text.strip():
            assert number in held


def test_an_empty_message_hides_none_behind_it():
    messages = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "the day"},
        {"role": "user", "content": " "},
        {"role": "assistant", "content": "a word"},
    ]
    marked = marked_chat(LM, messages)
    assert told(marked, LM) == {1: "the day", 2: " ", 3: "a word"}


def test_a_template_that_leaves_a_message_out_is_refused():
    lm = tiny("llama")
    lm.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'tool' %}{{ m['content'] }}\n{% endif %}"
        "{% endfor %}"
    )
    with pytest.raises(UsageError, match="of tool"):
        marked_chat(lm, [{"role": "user", "content": "the"}, {"role": "tool", "content": "day"}])


def test_places_count_from_the_message():
    marked = marked_chat(LM, [{"role": "user", "content": "the day was one"}])
    own = [
        (s, t)
        for s, t in zip(marked.starts, LM.token_strings(marked.tokens), strict=True)
        if s >= 0
    ]
    assert own[0][0] == 0
    assert all("the day was one"[start:].startswith(text) for start, text in own)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"role": "user"}],
        [{"role": "", "content": "a"}],
        [{"role": "user", "content": 3}],
    ],
)
def test_what_is_no_conversation(messages):
    with pytest.raises(UsageError):
        marked_chat(LM, messages)
