"""The page and the API as one server: what it lets in, and when it is ready.

1. The port is taken first, so that one that cannot be had is told of at once. The model, its
   dictionary, its atlas and its detectors are loaded before connections are taken, so that the
   first screen does not wait for them.
2. The API's application carries the screens: NiceGUI is mounted on it, behind the same check.
3. Browsers are told to load nothing from elsewhere.
4. Whoever started it is told the address once connections are taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brainscan.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from brainscan.page.service import Service

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_PARTING = 1


@dataclass(frozen=True)
class Place:
    """Where the page is served."""

    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 0
    """The port; 0 takes one that is free."""
    token: str | None = None
    """What must stand in the address or in the header; None lets everybody in."""

    @property
    def names(self) -> tuple[str, ...]:
        """What visitors from elsewhere may call this machine; none where it is not open to them."""
        return (self.host, socket.gethostname()) if self.is_open else ()

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        return self.host not in ("127.0.0.1", "::1", "localhost")

    def url(self, port: int) -> str:
        """The address to open.

        Args:
            port: the port that was taken.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")


class _Headers:
    """Adds what browsers are to keep to."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                names = {name.lower() for name, _ in headers}
                for name, value in _HEADERS:
                    if name not in names:
                        headers.append((name, value))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def page_app(service: Service, token: str | None, hosts: Sequence[str] = ()) -> FastAPI:
    """The API with the screens mounted on it; once in a process.

    Args:
        service: the model, loaded.
        token: what a visitor must show; None lets everybody in.
        hosts: names of this machine beside ``localhost``.

    Raises:
        MissingExtraError: NiceGUI is not installed.
    """
    from brainscan.page.api import build_app

    try:
        from nicegui import ui

        from brainscan.page.screens import add_screens
    except ImportError as error:
        raise MissingExtraError("nicegui", "page") from error
    app: FastAPI = build_app(service, token=token, hosts=hosts)
    app.add_middleware(_Headers)
    add_screens(app, service)
    ui.run_with(
        app, title="brainscan", dark=None, tailwind=False, favicon="🧠", show_welcome_message=False
    )
    return app


def load(service: Service) -> None:
    """Loads all that the screens need, so that none of them waits for it.

    Args:
        service: the model.
    """
    service.lm.model.eval()
    if service.dictionary is not None and service.atlas is not None:
        service.atlas.search("the", 1)
    _ = service.detectors


def serve(
    service: Service, place: Place, listening: socket.socket, ready: Callable[[str], None]
) -> None:
    """Serves until it is interrupted.

    Args:
        service: the model; loaded first.
        place: where to serve.
        listening: bound to it (`bind`).
        ready: called with the address once connections are taken.

    Raises:
        KeyboardInterrupt: Ctrl-C, after everything was closed.
    """
    import uvicorn

    from brainscan.page.limits import LIMIT

    load(service)
    app = page_app(service, place.token, place.names)
    address = place.url(listening.getsockname()[1])

    class Server(uvicorn.Server):
        """Tells when it is ready, and ends what is being written when it is to end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                ready(address)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            with suppress(TimeoutError):  # who still waits for an answer hears of the end
                await asyncio.wait_for(service.close(), _PARTING)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=_PARTING,
        server_header=False,
        ws_max_size=LIMIT,
    )
    try:
        Server(config).run(sockets=[listening])
    finally:
        service.engine.close()
    # It ends by a signal alone; a shell that runs it in the background keeps that from Python.
    raise KeyboardInterrupt


def bind(place: Place) -> socket.socket:
    """Takes the address and the port, before anything is loaded; connections wait for `serve`.

    Args:
        place: where to serve.

    Raises:
        UsageError: the address or the port cannot be had, or the token cannot stand in an address.
    """
    from brainscan.page.access import check_token

    check_token(place.token)
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((place.host, place.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"an address to listen at, {place.host} port {place.port}",
            str(error),
            "choose another, or port 0 for one that is free",
        ) from error
    return listening
