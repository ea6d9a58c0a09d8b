"""Requests that are too large are refused before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainscan.page.errors import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT = 1 << 20
"""Bytes of a request at most."""


class TooLarge(Exception):
    """More came than is allowed."""


class Limit:
    """Counts what comes, whatever the header says of its length, and stops when it is too much."""

    def __init__(self, app: ASGIApp, limit: int = LIMIT) -> None:
        """Stands before an application.

        Args:
            app: the application.
            limit: bytes of a request at most.
        """
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through as far as it is not too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came, answering = 0, False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self.limit:
                raise TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            came = self._announced(scope)
            if came > self.limit:
                raise TooLarge
            came = 0
            await self.app(scope, counted, watched)
        except Exception:  # a task group on the way may have wrapped it
            if came <= self.limit:
                raise
            if not answering:
                told = f"expected a request of at most {self.limit} bytes; got more; shorten it"
                response = error_response(413, told)
                response.headers["connection"] = "close"
                await response(scope, receive, send)

    def _announced(self, scope: Scope) -> int:
        """The length that the header tells of; 0 where it tells of none."""
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and value.isdigit():
                return int(value[:20])
        return 0
