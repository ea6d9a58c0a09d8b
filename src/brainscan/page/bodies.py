"""What a request to the API may ask for."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from brainscan.page.errors import ApiError

MOST_CHOICES = 32
"""Answers to one prompt at most."""

MOST_ANSWERS = 256
"""Answers to one request at most."""

_IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Fields of OpenAI's that change nothing here."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "auto", "none"),
}
"""Fields that would change the answer, with the values that are understood."""

Most = Annotated[int, Field(ge=1, le=2**20)]
Stop = Annotated[str, Field(max_length=256)]

_STRICT = ConfigDict(extra="forbid", strict=True)


class StreamOptions(BaseModel):
    """How a stream is to be."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class Body(BaseModel):
    """What both kinds of request have in common."""

    model_config = _STRICT

    model: str | None = None
    max_tokens: Most | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    edits: list[str] = []
    watch: bool = False


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """The function of a call."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    arguments: str = "{}"


class Call(BaseModel):
    """A call that the model made in an earlier turn."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


class Function(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool that the model may use."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["function"]
    function: Function


class ChatBody(Body):
    """A request for the next message of a conversation."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Most | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None


class TextBody(Body):
    """A request for the continuation of a text."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


AnyBody = TypeVar("AnyBody", bound=Body)


async def read_body(request: Request, kind: type[AnyBody]) -> tuple[AnyBody, bool]:
    """A request's body, and whether tools may be used.

    Args:
        request: the request.
        kind: what it must be.

    Raises:
        ApiError: it is no JSON, or asks for what is not understood.
    """
    raw = await request.body()
    try:
        told = json.loads(raw)
        # Half of a pair of surrogates is JSON and no text.
        json.dumps(told, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(f"expected a body of JSON; got {error}; mend it") from error
    if not isinstance(told, dict):
        raise ApiError(f"expected an object in JSON; got {type(told).__name__}; mend it")
    for name, neutral in _NEUTRAL.items():
        if name in told and told[name] not in neutral:
            known = " or ".join(json.dumps(value) for value in neutral[1:])
            raise ApiError(
                f"expected {name} to be left out, or {known}; got {told[name]!r:.80}", param=name
            )
    left = {n: v for n, v in told.items() if n not in _NEUTRAL and n not in _IGNORED}
    try:
        return kind.model_validate(left), told.get("tool_choice") != "none"
    except ValidationError as error:
        raise _unfit(error) from error


def _unfit(error: ValidationError) -> ApiError:
    """What is wrong with the first field that is not as it must be."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    got = "" if first["type"] == "missing" else f"; got {first['input']!r:.80}"
    return ApiError(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}{got}", param=place)
