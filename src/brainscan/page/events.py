"""Streams to a client, and what ends when the client is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def event(told: Mapping[str, Any]) -> bytes:
    """An event of a stream, as its bytes.

    Args:
        told: what it tells.
    """
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """The items of several streams as they come, each with its stream's number.

    Args:
        streams: the streams; all are closed when this one is.
    """
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()

    async def pump(number: int, stream: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    queue.put_nowait((number, item))
        except Exception as error:  # told to whoever reads
            queue.put_nowait(error)
        queue.put_nowait(None)

    tasks = [asyncio.ensure_future(pump(*pair)) for pair in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        await _stopped(tasks)


async def all_of(answers: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers; where one fails, the others end too.

    Args:
        answers: the answers, which are written beside each other.
    """
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _stopped(tasks)


async def until_gone(receive: Receive, answer: Awaitable[T]) -> T:
    """An answer, unless the client is gone before it is there.

    Args:
        receive: tells of the client.
        answer: is cancelled when the client goes.

    Raises:
        ClientGone: it went.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientGone
        return answering.result()
    finally:
        await _stopped([answering, leaving])


class EventStream:
    """A response of events, which are closed when the client goes."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        """Nothing is sent yet.

        Args:
            events: what to send.
        """
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with suppress(ClientGone):
                await until_gone(receive, self._write(send))
        finally:
            await self.events.aclose()

    async def _write(self, send: Send) -> None:
        async for body in self.events:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stopped(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancels what still runs, and waits for it to have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
