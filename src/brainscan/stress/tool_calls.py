"""Tools in a prompt, and tool calls in an answer.

1. A template that knows of tools gets them in the form of JSON schema that transformers documents.
   For any other, they are described in the system message, with the form that calls should have.
2. In an answer, calls are looked for in the forms that models write: ``<tool_call>`` tags (closed
   or cut off), ``[TOOL_CALLS]``, ``<function=NAME>``, a fenced block of JSON, or an answer that is
   JSON and nothing else. The first form that holds a call counts.
3. What stands in the tags but is no call is returned with ``parse_error``, which Inspect reports
   to the model. Text around the calls stays as the answer's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from inspect_ai.model import ChatMessage
from inspect_ai.tool import ToolCall, ToolInfo

_INSTRUCTIONS = """\
You may call these tools. Each line is one tool, as JSON with the schema of its parameters.

{tools}

To call one, write a line of this form and nothing after it:
<tool_call>{{"name": "NAME", "arguments": {{"PARAMETER": "VALUE"}}}}</tool_call>"""

_TAGGED = re.compile(r"<tool_call>(?P<body>.*?)(?:</tool_call>|\Z)", re.DOTALL)
_LISTED = re.compile(r"\[TOOL_CALLS\](?P<body>.*)", re.DOTALL)
_NAMED = re.compile(r"<function=(?P<name>[\w.-]+)>(?P<body>.*?)(?:</function>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:json|tool_call)\s*\n(?P<body>.*?)(?:```|\Z)", re.DOTALL)
_FORMS = ((_TAGGED, True), (_LISTED, True), (_NAMED, True), (_FENCED, False))


class Answer(NamedTuple):
    """An answer's text, and the calls in it."""

    text: str
    calls: list[ToolCall]


def tool_schemas(tools: Sequence[ToolInfo]) -> list[dict[str, Any]]:
    """The tools in the form that chat templates take."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters.model_dump(exclude_none=True),
            },
        }
        for tool in tools
    ]


def describe_tools(tools: Sequence[ToolInfo]) -> str:
    """The tools in words, for a template that knows of none."""
    lines = [json.dumps(schema["function"], ensure_ascii=False) for schema in tool_schemas(tools)]
    return _INSTRUCTIONS.format(tools="\n".join(lines))


def as_turns(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Inspect's messages in the form that chat templates take."""
    return [_turn(message) for message in messages]


def _turn(message: ChatMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.role == "assistant" and message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.function, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        if message.error is not None:
            turn["content"] = f"Error: {message.error.message}"
        turn |= {"name": message.function, "tool_call_id": message.tool_call_id}
    return turn


def in_words(turns: Sequence[Mapping[str, Any]], tools: str) -> list[dict[str, Any]]:
    """Turns for a template without tools: their description, calls and results as text.

    Args:
        turns: what `as_turns` gave.
        tools: the description, put at the end of the system message; empty for none.
    """
    plain = [_in_words(turn) for turn in turns]
    if tools:
        if not plain or plain[0]["role"] != "system":
            plain.insert(0, {"role": "system", "content": ""})
        plain[0]["content"] = f"{plain[0]['content']}\n\n{tools}".strip()
    return plain


def _in_words(turn: Mapping[str, Any]) -> dict[str, Any]:
    content = str(turn["content"])
    for call in turn.get("tool_calls", ()):
        content += f"\n<tool_call>{json.dumps(call['function'], ensure_ascii=False)}</tool_call>"
    if turn["role"] == "tool":
        return {"role": "user", "content": f"Result of {turn['name']}: {content}"}
    return {"role": turn["role"], "content": content.strip()}


def parse_answer(text: str, tools: Sequence[ToolInfo], prefix: str) -> Answer:
    """Parts an answer into its text and its tool calls.

    Args:
        text: the answer.
        tools: the tools there are; with none, everything is text.
        prefix: what the calls' ids begin with.
    """
    if not tools:
        return Answer(text, [])
    for form, explicit in _FORMS:
        found = [list(_calls(match)) for match in form.finditer(text)]
        calls = [call for some in found for call in some if explicit or call.parse_error is None]
        if calls:
            return Answer(form.sub("", text).strip(), _numbered(calls, prefix))
    whole = [call for call in _from_json(text) if call.parse_error is None]
    return Answer("", _numbered(whole, prefix)) if whole else Answer(text, [])


def _numbered(calls: Sequence[ToolCall], prefix: str) -> list[ToolCall]:
    return [replace(call, id=f"{prefix}-{number}") for number, call in enumerate(calls)]


def _calls(match: re.Match[str]) -> Iterator[ToolCall]:
    name = match.groupdict().get("name")
    if name is None:
        return _from_json(match["body"])
    return iter([_named(name, match["body"])])


def _named(name: str, body: str) -> ToolCall:
    try:
        arguments = json.loads(body or "{}")
    except json.JSONDecodeError as error:
        return _broken(body, error, name)
    return _call(name, arguments, body)


def _from_json(body: str) -> Iterator[ToolCall]:
    try:
        found = json.loads(body)
    except json.JSONDecodeError as error:
        yield _broken(body, error)
        return
    for one in found if isinstance(found, list) else [found]:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            yield _wrong(body, 'an object with the keys "name" and "arguments"')
        else:
            yield _call(one["name"], one.get("arguments", one.get("parameters", {})), body)


def _call(name: str, arguments: Any, body: str) -> ToolCall:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            return _broken(body, error, name)
    if not isinstance(arguments, dict):
        return _wrong(body, "arguments that are an object", name)
    return ToolCall(id="", function=name, arguments=arguments)


def _broken(body: str, error: json.JSONDecodeError, name: str = "unknown") -> ToolCall:
    return _wrong(body, f"JSON ({error.msg} at character {error.pos})", name)


def _wrong(body: str, expected: str, name: str = "unknown") -> ToolCall:
    problem = f"a tool call needs {expected}; got: {body.strip()[:200]}"
    return ToolCall(id="", function=name, arguments={}, parse_error=problem)
