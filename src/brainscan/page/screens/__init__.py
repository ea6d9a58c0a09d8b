"""The screens of the live page; each has its whole state in its address."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from nicegui import ui

from brainscan.errors import BrainscanError, UsageError
from brainscan.page.screens.address import ChatState, read_state
from brainscan.page.screens.artifacts import REPORT, Artifact, Artifacts
from brainscan.page.screens.chat import Chat, title_of
from brainscan.page.screens.detectors import cards_of, sections_of
from brainscan.page.screens.feature import Feature, Search
from brainscan.page.screens.folders import below
from brainscan.page.screens.frame import View, add_assets, connected, frame, told
from brainscan.page.screens.transcript import MOST, Transcript
from brainscan.page.service import Service

__all__ = ["add_screens"]

_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def add_screens(app: FastAPI, service: Service) -> None:
    """Adds the screens; once in a process, since NiceGUI knows one set of pages.

    Args:
        app: the application; NiceGUI is mounted on it afterwards.
        service: the model, loaded.
    """
    add_assets()
    _add_chat(service)
    _add_features(service)
    _add_artifacts(service)
    _add_report(app, service)


def _add_chat(service: Service) -> None:
    @ui.page("/")
    async def chat(request: Request) -> None:
        state = ChatState()
        problem: BrainscanError | None = None
        try:
            state = read_state(request.query_params.multi_items())
        except UsageError as error:
            problem = error
        own = Chat(service, state)
        with frame(service, title_of(state), "/", sections=own.sections):
            own.build()
            if not await connected():
                return
            with told():
                if problem is not None:
                    raise problem
                await own.replay()


def _add_features(service: Service) -> None:
    @ui.page("/feature")
    async def feature(id: str = "", text: str = "", colour: str = "") -> None:
        own = Feature(service, id, text, colour)
        with frame(service, id or "A feature", "/feature", sections=own.sections):
            own.build()
            if await connected():
                await own.load()

    @ui.page("/search")
    async def search(q: str = "") -> None:
        own = Search(service, q)
        with frame(service, "Search the features", "/search", sections=own.sections):
            own.build()
            if await connected():
                await own.look()

    @ui.page("/detectors")
    def detectors() -> None:
        def sections() -> list:  # type: ignore[type-arg]
            return sections_of(service)

        with frame(service, "Detectors", "/detectors", sections=sections):
            View(cards_of(service))


def _add_artifacts(service: Service) -> None:
    @ui.page("/artifacts")
    async def artifacts() -> None:
        own = Artifacts(service)
        with frame(service, "Artifacts", "/artifacts", sections=own.sections):
            await own.build()

    @ui.page("/artifact")
    async def artifact(path: str = "") -> None:
        own = Artifact(service, path)
        with frame(service, path or "An artifact", "/artifacts", sections=own.sections):
            await own.build()

    @ui.page("/transcript")
    async def transcript(
        path: str = "",
        record: str = "",
        at: int | None = None,
        text: str = "",
        most: int = MOST,
        seed: int = 0,
        read: bool = False,
        colour: str = "",
    ) -> None:
        state = ChatState(most=max(most, 1), seed=max(seed, 0), colour=colour)
        own = Transcript(service, path, record, state, at=at, text=text, read=read)
        with frame(service, record or "A transcript", "/artifacts", sections=own.sections):
            await own.build()


def _add_report(app: FastAPI, service: Service) -> None:
    @app.get("/report", include_in_schema=False)
    def report(path: str = "") -> Response:
        """A report that lies below the folder, shut off from everything else by the browser."""
        try:
            found = below(service.folder, f"{path}/{REPORT}" if path else "")
            content = found.read_bytes()
        except (BrainscanError, OSError) as error:
            return PlainTextResponse(str(error), 404)
        return HTMLResponse(content, headers={"Content-Security-Policy": _SANDBOX})
