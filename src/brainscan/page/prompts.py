"""From the messages of a request to the tokens of a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brainscan.errors import BrainscanError, MissingExtraError
from brainscan.page.bodies import ChatMessage, TextBody, Tool
from brainscan.page.errors import ApiError

if TYPE_CHECKING:
    from inspect_ai.tool import ToolInfo

    from brainscan.models import LanguageModel


class Prompt(NamedTuple):
    """A prompt."""

    tokens: tuple[int, ...]
    roles: tuple[str, ...] = ()
    """The role of each token; empty where it is not known."""


def chat_prompt(
    lm: LanguageModel, messages: Sequence[ChatMessage], tools: Sequence[Tool], *, roles: bool
) -> Prompt:
    """A conversation's tokens, ending where the answer begins.

    Args:
        lm: the model.
        messages: the conversation.
        tools: what the model may call.
        roles: whether the role of each token is wanted.

    Raises:
        ApiError: the model's template cannot render it.
    """
    turns = _turns(messages)
    called = bool(tools) or any(
        message.tool_calls or message.role == "tool" for message in messages
    )
    own = "tools" in (lm.tokenizer.chat_template or "")
    if called and not own:
        turns = _in_words(turns, tools)
    offered = [tool.model_dump(exclude_none=True) for tool in tools] if own else []
    try:
        if roles and not (called and own):
            from brainscan.monitoring.roles import marked_chat

            marked = marked_chat(lm, turns, generation_prompt=True)
            return Prompt(tuple(marked.tokens), tuple(marked.roles))
        return Prompt(tuple(lm.chat_tokens(turns, tools=offered)))
    except BrainscanError as error:
        raise ApiError(str(error), param="messages") from error


def text_prompts(lm: LanguageModel, body: TextBody) -> list[Prompt]:
    """The tokens of each prompt of a request.

    Args:
        lm: the model.
        body: the request.

    Raises:
        ApiError: a token is not one of the model's.
    """
    given: Sequence[Any] = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if given and isinstance(given[0], int):
        given = [given]
    prompts = []
    for one in given:
        tokens = [*lm.opening, *lm.tokenize(one)] if isinstance(one, str) else list(one)
        if any(not 0 <= token < lm.vocab_size for token in tokens):
            raise ApiError(f"expected tokens from 0 to {lm.vocab_size - 1}", param="prompt")
        prompts.append(Prompt(tuple(tokens)))
    if not prompts:
        raise ApiError("expected a prompt; got none", param="prompt")
    return prompts


def tool_infos(tools: Sequence[Tool]) -> list[ToolInfo]:
    """The tools as Inspect has them.

    Args:
        tools: the tools of a request.

    Raises:
        ApiError: a schema is not understood.
        MissingExtraError: Inspect is not installed.
    """
    try:
        from inspect_ai.tool import ToolInfo, ToolParams
    except ImportError as error:
        raise MissingExtraError("inspect-ai", "stress") from error
    infos = []
    for tool in tools:
        schema = {"type": "object", "properties": {}} | (tool.function.parameters or {})
        try:
            parameters = ToolParams.model_validate(schema)
        except ValueError as error:
            told = f"expected the schema of parameters of {tool.function.name!r}; got another form"
            raise ApiError(told, param="tools") from error
        about = tool.function.description or ""
        infos.append(ToolInfo(name=tool.function.name, description=about, parameters=parameters))
    return infos


def _turns(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages in the form that chat templates take."""
    names: dict[str | None, str] = {}
    turns = []
    for message in messages:
        content = message.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if message.role == "developer" else message.role
        turn: dict[str, Any] = {"role": role, "content": content}
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments),
                    },
                }
                for call in message.tool_calls
            ]
            names |= {call.id: call.function.name for call in message.tool_calls}
        if role == "tool":
            turn["tool_call_id"] = message.tool_call_id
            turn["name"] = message.name or names.get(message.tool_call_id, "tool")
        turns.append(turn)
    return turns


def _arguments(text: str) -> Any:
    """A call's arguments as an object, where they are one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _in_words(turns: Sequence[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    infos = tool_infos(tools)
    from brainscan.stress.tool_calls import describe_tools, in_words

    return in_words(turns, describe_tools(infos) if infos else "")
