"""An API that OpenAI's clients understand, and the application that carries it.

``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions``, whole or as streams. Beside what
OpenAI's take, a request may have

    edits  a list of edits as `brainscan steer` takes them, or of names of saved ones
    watch  true for the concepts of each token: each choice then has a field ``brainscan``, with
           ``tokens`` (text, concepts, jump) and ``alarms``; in a stream, on each piece

What is asked for and cannot be done is refused, with one line that says why.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from brainscan.errors import BrainscanError
from brainscan.models.generate import Sampling
from brainscan.models.noise import row_seeds
from brainscan.page.access import Access, check_token
from brainscan.page.bodies import MOST_ANSWERS, Body, ChatBody, TextBody, read_body
from brainscan.page.errors import ApiError, error_body, error_response
from brainscan.page.events import DONE, ClientGone, EventStream, all_of, event, merged, until_gone
from brainscan.page.forms import ChatForm, Form, TextForm, usage
from brainscan.page.limits import LIMIT, Limit, TooLarge
from brainscan.page.prompts import Prompt, chat_prompt, text_prompts, tool_infos
from brainscan.page.service import Answer, Ask, Piece, Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from brainscan.models import LanguageModel

MAX_TOKENS = 1024
"""The most tokens of an answer where the request says nothing."""

_Handler: TypeAlias = "Callable[[Request], Awaitable[ASGIApp]]"

_log = logging.getLogger(__name__)
_GONE = 499
_SEED_BITS = 53


@dataclass(frozen=True)
class _Plan:
    """What is to be answered, and in which form."""

    form: Form
    asks: tuple[Ask, ...]
    """The choices: all of the first prompt, then all of the next."""
    each: int
    """How many choices there are of a prompt."""
    include_usage: bool
    identity: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def envelope(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What stands around choices."""
        lm = self.form.lm
        return {
            "id": f"{self.form.prefix}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": lm.name,
            "system_fingerprint": f"brainscan-{lm.ref.weights[:12]}",
            "choices": list(choices),
        }

    def usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The counts of all choices."""
        made = [answer.generation for answer in answers]
        return usage(made[:: self.each], made)


def build_app(
    service: Service, *, token: str | None, limit: int = LIMIT, hosts: Sequence[str] = ()
) -> FastAPI:
    """The application, on which pages can be mounted: all requests to it are checked.

    Args:
        service: the model.
        token: what must be shown (see `access`); None lets everybody in who comes from here.
        limit: bytes of a request at most.
        hosts: names of this machine beside ``localhost``.

    Raises:
        UsageError: the token cannot stand in an address.
    """
    check_token(token)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router(service))
    app.add_exception_handler(ApiError, _told)
    app.add_exception_handler(BrainscanError, _told)
    app.add_exception_handler(HTTPException, _told)
    app.add_middleware(Limit, limit=limit)
    app.add_middleware(Access, token=token, hosts=tuple(hosts))
    return app


def router(service: Service) -> APIRouter:
    """The API's routes.

    Args:
        service: the model.
    """
    routes = APIRouter()

    async def models(request: Request) -> Response:
        lm = await service.ready()
        return JSONResponse({"object": "list", "data": [_model(lm)]})

    async def model(request: Request) -> Response:
        lm = await service.ready()
        _check_model(lm, request.path_params["name"])
        return JSONResponse(_model(lm))

    async def chat(request: Request) -> ASGIApp:
        body, may_call = await read_body(request, ChatBody)
        return await _respond(request, service, body, await _chat_plan(service, body, may_call))

    async def text(request: Request) -> ASGIApp:
        body, _ = await read_body(request, TextBody)
        return await _respond(request, service, body, await _text_plan(service, body))

    async def unknown(request: Request) -> Response:
        told = "expected /v1/models, /v1/chat/completions (POST) or /v1/completions (POST); got "
        raise ApiError(f"{told}{request.method} {request.url.path:.80}", status=404)

    routes.add_route("/v1/models", models, ["GET"])
    routes.add_route("/v1/models/{name:path}", model, ["GET"])
    routes.add_route("/v1/chat/completions", _guarded(chat), ["POST"])
    routes.add_route("/v1/completions", _guarded(text), ["POST"])
    routes.add_route("/v1/{rest:path}", unknown, ["GET", "POST", "PUT", "PATCH", "DELETE"])
    return routes


async def _chat_plan(service: Service, body: ChatBody, may_call: bool) -> _Plan:
    lm = await service.ready()
    tools = body.tools if body.tools and may_call else []
    infos = tuple(tool_infos(tools)) if tools else ()
    prompt = await asyncio.to_thread(chat_prompt, lm, body.messages, tools, roles=body.watch)
    form = ChatForm(lm, bool(body.logprobs), body.watch, infos)
    most = body.max_completion_tokens or body.max_tokens
    top = body.top_logprobs or 0
    if top and not body.logprobs:
        raise ApiError("expected logprobs to be true; set it", param="top_logprobs")
    return await _plan(service, body, form, [prompt], most, top)


async def _text_plan(service: Service, body: TextBody) -> _Plan:
    lm = await service.ready()
    prompts = await asyncio.to_thread(text_prompts, lm, body)
    form = TextForm(lm, body.logprobs is not None, body.watch)
    return await _plan(service, body, form, prompts, body.max_tokens, body.logprobs or 0)


async def _plan(
    service: Service,
    body: Body,
    form: Form,
    prompts: Sequence[Prompt],
    most: int | None,
    alternatives: int,
) -> _Plan:
    """The answers that a request asks for, once all of it was checked."""
    lm = form.lm
    if body.model:
        _check_model(lm, body.model)
    if body.watch and service.detectors is None:
        raise ApiError(f"expected detectors of concepts for {lm.name}; got none", param="watch")
    for prompt in prompts:
        _check_length(lm, prompt, "messages" if isinstance(body, ChatBody) else "prompt")
    try:
        edits = await service.edits(body.edits)
    except BrainscanError as error:
        raise ApiError(str(error), param="edits") from error
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    sampling = Sampling(
        max_new_tokens=most or MAX_TOKENS,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        stop=tuple(stop),
    )
    each = body.n or 1
    if each * len(prompts) > MOST_ANSWERS:
        told = f"expected at most {MOST_ANSWERS} answers; got {each * len(prompts)}; ask for fewer"
        raise ApiError(told, param="prompt")
    seed = secrets.randbits(_SEED_BITS) if body.seed is None else body.seed
    seeds = row_seeds(seed, each * len(prompts))
    asks = [
        Ask(prompt.tokens, sampling, own, edits, body.watch, prompt.roles, alternatives)
        for prompt, own in zip([p for p in prompts for _ in range(each)], seeds, strict=True)
    ]
    counts = body.stream_options is not None and body.stream_options.include_usage
    return _Plan(form, tuple(asks), each, counts)


def _check_model(lm: LanguageModel, name: str) -> None:
    if name != lm.name:
        told = f"expected the model {lm.name!r}; got {name!r:.80}"
        raise ApiError(told, status=404, param="model", code="model_not_found")


def _check_length(lm: LanguageModel, prompt: Prompt, param: str) -> None:
    window = lm.context_window
    if not prompt.tokens:
        raise ApiError("expected a prompt of at least one token; got an empty one", param=param)
    if window is not None and len(prompt.tokens) >= window:
        raise ApiError(
            f"expected a prompt shorter than the context window of {window} tokens; got "
            f"{len(prompt.tokens)} tokens; shorten it",
            param=param,
            code="context_length_exceeded",
        )


def _model(lm: LanguageModel) -> dict[str, Any]:
    return {"id": lm.name, "object": "model", "created": 0, "owned_by": "brainscan"}


async def _respond(request: Request, service: Service, body: Body, plan: _Plan) -> ASGIApp:
    """The answer, whole or as a stream."""
    try:
        if body.stream:
            events = _events(service, plan)
            # What is wrong at once is told with its status.
            first = await until_gone(request.receive, anext(events))
            return EventStream(_after(first, events))
        made = await until_gone(request.receive, all_of([service.answer(ask) for ask in plan.asks]))
    except ClientGone:
        return Response(status_code=_GONE)
    choices = [
        {"index": index, **plan.form.whole(pieces, answer)}
        for index, (pieces, answer) in enumerate(made)
    ]
    told = plan.envelope(plan.form.kind, choices)
    return JSONResponse({**told, "usage": plan.usage([answer for _, answer in made])})


async def _after(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield first
        try:
            async for one in events:
                yield one
        except Exception as error:  # the status is sent already
            if not isinstance(error, ApiError | BrainscanError):
                _log.exception("a stream failed")
            yield event(error_body(_status(error), _line(error)))


async def _events(service: Service, plan: _Plan) -> AsyncGenerator[bytes, None]:
    """A stream's events."""
    form, answers = plan.form, {}
    nothing = {"usage": None} if plan.include_usage else {}

    def part(index: int, choice: dict[str, Any]) -> bytes:
        told = plan.envelope(form.part_kind, [{"index": index, **choice}])
        return event({**told, **nothing})

    async with aclosing(merged([service.stream(ask) for ask in plan.asks])) as items:
        said: dict[int, int] = {}
        async for index, item in items:
            opening = form.opening()
            if index not in said and opening is not None:
                yield part(index, opening)
            said.setdefault(index, 0)
            if isinstance(item, Answer):
                answers[index] = item
                yield part(index, form.last(item))
                continue
            told = _told_of(form, item, said[index])
            said[index] += len(item.text)
            if told is not None:
                yield part(index, told)
    if plan.include_usage:
        counts = plan.usage([answers[index] for index in sorted(answers)])
        yield event({**plan.envelope(form.part_kind, []), "usage": counts})
    yield DONE


def _told_of(form: Form, piece: Piece, at: int) -> dict[str, Any] | None:
    """The part of a stream that tells of a token; None where there is nothing to tell."""
    text = "" if form.tools else piece.text
    wanted = form.logprobs or form.watch
    return form.part(text, piece if wanted else None, at) if text or wanted else None


def _guarded(handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose unforeseen errors are logged, and told like others."""

    async def guarded(request: Request) -> Any:
        try:
            return await handler(request)
        except (ApiError, BrainscanError, HTTPException, TooLarge):
            raise
        except Exception as error:
            _log.exception("a request failed")
            return await _told(request, error)

    return guarded


async def _told(request: Request, error: Exception) -> Response:
    """What goes wrong, as an answer."""
    code = getattr(error, "code", None)
    return error_response(_status(error), _line(error), getattr(error, "param", None), code)


def _status(error: Exception) -> int:
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, HTTPException):
        return error.status_code
    return 400 if isinstance(error, BrainscanError) else 500


def _line(error: Exception) -> str:
    """What is told of an error; of one that is not ours, its kind only."""
    if isinstance(error, HTTPException):
        return str(error.detail)
    if isinstance(error, ApiError | BrainscanError):
        return " ".join(str(error).split())
    return f"the server failed with {type(error).__name__}; its log says more"
