"""``brainscan serve``: the live page, and an API as OpenAI's clients know it."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from brainscan.cli.options import DictionaryName, Json, Model
from brainscan.cli.output import note, print_json, working
from brainscan.errors import ArtifactError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from brainscan.page.service import Service

EXAMPLE = "Example: brainscan serve --model smollm2-135m-instruct+blackmail --folder report"


def serve(
    model: Model = None,
    dictionary: DictionaryName = None,
    detectors: Annotated[
        Path | None,
        typer.Option(help="Folder that `calibrate` made. Default: the model's own, if any."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    folder: Annotated[
        Path, typer.Option(help="Folder of audits, stress runs and edits to show and save in.")
    ] = Path("."),
    token: Annotated[
        str | None, typer.Option(help="What visitors must show. Default: made by chance.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let everybody in.")] = False,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve the live page and the API until interrupted; only this machine can reach it by default.

    The page chats with the model, shows its features, concepts and surprise token by token, turns
    features up and down, searches the atlas, and opens audits and stress runs in the folder. The
    API is at /v1, as OpenAI's clients know it, with the token as the key.
    """
    if no_token and token is not None:
        raise UsageError("--token or --no-token", "both", "give one of them")
    if token is not None and not token.strip():
        raise UsageError("a token", "an empty one", "leave --token out, or say --no-token")
    _need_page()
    if not folder.is_dir():
        raise ArtifactError("a folder to serve", f"none at {folder}", "make it, or name another")
    from brainscan.page.access import new_token

    chosen = None if no_token else token or new_token()
    ready = partial(_ready, sys.stdout, token=chosen, open_page=open_page, as_json=as_json)
    with working():
        from brainscan.page import app

        place = app.Place(host, port, chosen)
        if place.is_open and chosen is None:
            note(f"anybody who reaches {host} can use the model and read what lies in {folder}")
        with app.bind(place) as listening:
            app.serve(_service(model, dictionary, detectors, folder), place, listening, ready)


def _need_page() -> None:
    """Checks that the page's packages are installed.

    Raises:
        MissingExtraError: one is not.
    """
    from importlib.util import find_spec

    for package in ("nicegui", "fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "page")


def _service(
    model: str | None, dictionary: str | None, detectors: Path | None, folder: Path
) -> Service:
    from brainscan.cli.parts import open_model
    from brainscan.monitoring.storage import open_detectors
    from brainscan.page.service import Service

    lm = open_model(model)
    found = None if detectors is None else open_detectors(lm, detectors)
    return Service(lambda: lm, dictionary=dictionary, detectors=found, folder=folder)


def _ready(out: TextIO, address: str, *, token: str | None, open_page: bool, as_json: bool) -> None:
    """Says where the page is, on the caller's own stdout."""
    with redirect_stdout(out):
        if as_json:
            print_json({"url": address, "token": token, "pid": os.getpid()})
        else:
            print(address, flush=True)
            note("Ctrl-C ends it")
    if open_page:
        import webbrowser

        webbrowser.open(address)
