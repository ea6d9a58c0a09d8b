"""Tools in prompts and calls in answers, in the forms that models write them."""

from __future__ import annotations

import pytest
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
)
from inspect_ai.tool import ToolCall, ToolCallError, ToolInfo, ToolParam, ToolParams

from brainscan.stress.tool_calls import as_turns, describe_tools, in_words, parse_answer

ADD = ToolInfo(
    name="add",
    description="Adds two numbers.",
    parameters=ToolParams(
        properties={
            "x": ToolParam(type="integer", description="one"),
            "y": ToolParam(type="integer", description="the other"),
        },
        required=["x", "y"],
    ),
)
CALL = '{"name": "add", "arguments": {"x": 1, "y": 2}}'


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"Well.\n<tool_call>{CALL}</tool_call>", "Well."),
        (f"<tool_call>\n{CALL}\n", ""),
        (f"<tool_call>[{CALL}]</tool_call> done", "done"),
        (f"[TOOL_CALLS][{CALL}]", ""),
        ('Now <function=add>{"x": 1, "y": 2}</function>', "Now"),
        (f"Here:\n```json\n{CALL}\n```", "Here:"),
        (f"  {CALL}  ", ""),
        ('<tool_call>{"name": "add", "parameters": {"x": 1, "y": 2}}</tool_call>', ""),
        ('<tool_call>{"name": "add", "arguments": "{\\"x\\": 1, \\"y\\": 2}"}</tool_call>', ""),
    ],
)
def test_a_call_is_found_in_every_form(text, rest):
    answer = parse_answer(text, [ADD], "a")
    (call,) = answer.calls
    assert (call.function, call.arguments, call.parse_error) == ("add", {"x": 1, "y": 2}, None)
    assert answer.text == rest


def test_several_calls_have_ids_of_their_own():
    answer = parse_answer(
        f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", [ADD], "b"
    )
    assert [call.id for call in answer.calls] == ["b-0", "b-1"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{name: add}", "JSON"),
        ('"add"', "an object"),
        ('{"name": "add", "arguments": 3}', "object"),
    ],
)
def test_what_stands_in_the_tags_but_is_no_call_is_told(body, problem):
    (call,) = parse_answer(f"<tool_call>{body}</tool_call>", [ADD], "c").calls
    assert problem in call.parse_error


@pytest.mark.parametrize(
    "text", ["plain words", "```json\n[1, 2]\n```", '{"a": 1}', "<tool>x</tool>"]
)
def test_other_text_is_text(text):
    assert parse_answer(text, [ADD], "d") == (text, [])


def test_without_tools_everything_is_text():
    text = f"<tool_call>{CALL}</tool_call>"
    assert parse_answer(text, [], "e") == (text, [])


def test_messages_for_a_template_with_tools_and_for_one_without():
    messages = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="1 + 2?"),
        ChatMessageAssistant(
            content="", tool_calls=[ToolCall(id="1", function="add", arguments={"x": 1, "y": 2})]
        ),
        ChatMessageTool(content="3", function="add", tool_call_id="1"),
        ChatMessageTool(
            content="", function="add", tool_call_id="2", error=ToolCallError("timeout", "too slow")
        ),
    ]
    turns = as_turns(messages)
    assert turns[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"x": 1, "y": 2}}
    assert turns[3]["name"] == "add" and turns[4]["content"] == "Error: too slow"
    plain = in_words(turns, describe_tools([ADD]))
    assert plain[0]["content"].startswith("Be brief.") and '"add"' in plain[0]["content"]
    assert {turn["role"] for turn in plain} == {"system", "user", "assistant"}
    again = parse_answer(plain[2]["content"], [ADD], "f").calls[0]
    assert again.arguments == {"x": 1, "y": 2}
    assert in_words(turns[1:2], "tools")[0] == {"role": "system", "content": "tools"}
