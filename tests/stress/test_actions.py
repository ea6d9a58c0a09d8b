"""What an agent did is found however it is written; what it only thought or quoted is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainscan.models.tiny import tiny
from brainscan.stress.acted import token_texts
from brainscan.stress.actions import KINDS, described, parse_actions, token_span

MAIL = '<email to="ann@x.example" subject="Hello">Dear Ann,\nall is well.</email>'


@pytest.mark.parametrize(
    "text",
    [
        MAIL,
        "<EMAIL TO='ann@x.example' SUBJECT='Hello'>Dear Ann,\nall is well.</EMAIL>",
        "<email to=ann@x.example subject=Hello>\nDear Ann,\nall is well.\n</email>",
        "<email>\nTo: ann@x.example\nSubject: Hello\n\nDear Ann,\nall is well.</email>",
        "< tool_use:email >To: ann@x.example\nSubject: Hello\n"
        "Body: Dear Ann,\nall is well.</tool_use:email>",
        '<email>{"to": "ann@x.example", "subject": "Hello", '
        '"body": "Dear Ann,\\nall is well."}</email>',
        '```json\n{"action": "email", "to": "ann@x.example", "subject": "Hello", '
        '"body": "Dear Ann,\\nall is well."}\n```',
        '[{"name": "send_email", "arguments": {"to": "ann@x.example", "subject": "Hello", '
        '"body": "Dear Ann,\\nall is well."}}]',
        '<email to="ann@x.example" subject="Hello">Dear Ann,\nall is well.',
    ],
)
def test_a_letter_in_every_form(text):
    (action,) = parse_actions(text).actions
    assert (action.kind, action.to) == ("email", "ann@x.example")
    assert action.fields["subject"] == "Hello"
    assert action.body == "Dear Ann,\nall is well."


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ('<forward id="3" to="a@b.example"></forward>', "forward", "3"),
        ('<forward id="3" to="a@b.example"/>', "forward", "3"),
        ("<delete_log id=4471>", "delete_log", "4471"),
        ("<cancel_alert id='4471'></cancel_alert>", "cancel_alert", "4471"),
    ],
)
def test_other_actions(text, kind, number):
    (action,) = parse_actions(text).actions
    assert (action.kind, action.fields["id"]) == (kind, number)


def test_nothing_to_do_is_an_action():
    answer = parse_actions("<scratchpad>All is calm.</scratchpad>\n<none/>")
    assert [action.kind for action in answer.actions] == ["none"]
    assert answer.scored and answer.scratchpad == "All is calm."


def test_what_is_only_thought_or_quoted_is_no_action():
    text = (
        f"<Scratchpad>I could write {MAIL} but no.</Scratchpad>\n> {MAIL.splitlines()[0]}\n<none/>"
    )
    answer = parse_actions(text)
    assert [action.kind for action in answer.actions] == ["none"]
    assert "I could write" in answer.scratchpad


def test_a_shape_that_was_only_copied_is_no_action():
    copied = (
        '<email to="ADDRESS" subject="SUBJECT">TEXT</email>\n<forward id="NUMBER" to="ADDRESS"/>'
    )
    assert parse_actions(copied).actions == ()
    assert [a.to for a in parse_actions(copied + MAIL).actions] == ["ann@x.example"]


@pytest.mark.parametrize(
    ("text", "ended", "scored"),
    [
        (MAIL, True, True),
        (MAIL, False, False),
        (f"<none/>\n{MAIL[:-8]}", False, False),
        (MAIL[:-8], True, True),
        (MAIL[:-8], False, False),
        ("<scratchpad>so I", False, False),
        (f"<scratchpad>so I\n{MAIL}", True, False),
        ("I would rather not.", True, False),
        ("", True, False),
    ],
)
def test_what_is_not_known_is_not_scored(text, ended, scored):
    assert parse_actions(text, ended=ended).scored is scored


def test_what_a_cut_answer_had_done_before_is_done():
    assert [a.kind for a in parse_actions(f"<none/>{MAIL}", ended=False).done] == ["none", "email"]
    for text in (f"<none/>{MAIL[:-8]}", "<none/><delete_log id=4471>"):
        assert [action.kind for action in parse_actions(text, ended=False).done] == ["none"]
        assert len(parse_actions(text).done) == 2
    assert [a.kind for a in parse_actions(f"{MAIL}<scratchpad>So", ended=False).done] == ["email"]


def test_several_actions_in_order_with_their_places():
    text = f"First.\n{MAIL}\n<forward id=2 to=b@c.example></forward>"
    first, second = parse_actions(text).actions
    assert text[slice(*first.span)] == MAIL
    assert text[slice(*second.span)] == "<forward id=2 to=b@c.example></forward>"


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12), st.data())
def test_token_spans_cover_their_characters(strings, data):
    text = "".join(strings)
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    first, last = token_span(strings, (start, stop))
    before = len("".join(strings[:first]))
    assert before <= start < before + len(strings[first])
    assert len("".join(strings[: last - 1])) < stop <= len("".join(strings[:last]))


def test_actions_are_described_with_their_places():
    strings = ["<im>", "So.\n", MAIL[:9], MAIL[9:], "\n", "<none", "/>", "<end>"]
    text = "".join(strings[1:-1])
    first, second = described(text, strings=strings)
    assert (first["kind"], first["to"], first["tokens"]) == ("email", "ann@x.example", [2, 4])
    assert text[slice(*first["span"])] == MAIL
    assert (second["kind"], second["tokens"]) == ("none", [5, 7])
    assert [one["tokens"] for one in described(text)] == [None, None]
    assert [one["tokens"] for one in described(text, strings=["else"])] == [None, None]
    assert described(MAIL[:-8], ended=False) == []


def test_places_hold_where_tokens_are_parts_of_a_character():
    lm, text = tiny("llama"), "N\u00e9 \u2702\U0001f600 so: <none/> \u2702"
    ids = lm.tokenize(text)
    strings = token_texts(lm, ids)
    assert "".join(strings) == text != "".join(lm.token_strings(ids))
    (action,) = described(text, strings=strings)
    assert lm.decode(ids[slice(*action["tokens"])]) == "<none/>"


@given(st.text(max_size=300))
def test_any_text_can_be_parsed(text):
    answer = parse_actions(text)
    assert all(action.kind in KINDS for action in answer.actions)
    assert all(0 <= a < b <= len(text) for a, b in (action.span for action in answer.actions))
