"""What all screens share: the frame around them, views as elements, errors, and exports.

Text of models, users and files reaches the browser in two ways only: escaped, within a view's
markup, or as the text of one of NiceGUI's elements, which never reads it as markup.
"""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from brainscan.errors import BrainscanError
from brainscan.page.service import Service
from brainscan.views import Html, Section, escape, join, page
from brainscan.views.html import asset, slug

ASSETS = Path(__file__).parent.parent / "assets"

SCREENS = (
    ("/", "Chat"),
    ("/search", "Search"),
    ("/artifacts", "Artifacts"),
    ("/detectors", "Detectors"),
)
"""The screens that stand in the head of each: where they are, and their names."""

_FIRST = '<div class="bs bp-first" aria-hidden="true"><p class="bs-brand">brainscan</p></div>'
"""What is there while the screen is made; the style takes it away afterwards."""

Sections = Callable[[], Sequence[Section]]
"""What a screen shows at this moment, for its export."""


class View(Element, component=ASSETS / "view.js"):
    """One of our views in the live page, as one element however long it is."""

    def __init__(self, markup: Html = Html(""), *, steers: bool = False) -> None:  # noqa: B008
        """Shows a view.

        Args:
            markup: what a view made.
            steers: whether its features get a button that begins to turn them up or down.
        """
        super().__init__()
        self._props["markup"] = markup
        self._props["steers"] = steers

    def show(self, markup: Html) -> None:
        """Shows something else.

        Args:
            markup: what a view made.
        """
        self._props["markup"] = markup
        self.update()

    def on_chosen(self, kind: str, handler: Callable[[str], Awaitable[None] | None]) -> None:
        """What is done when something is chosen in it.

        Args:
            kind: ``steer`` a feature, or ``colour`` the text by something.
            handler: gets what was chosen.
        """

        def told(event: GenericEventArguments) -> Awaitable[None] | None:
            return handler(str(next(iter(event.args.values()), "")))

        self.on(kind, told)


def add_assets() -> None:
    """Puts our style and scripts into the head of every screen."""
    start = f"window.brainscanStart = () => {{ {asset('strip.js')}{asset('location.js')} }};"
    style = asset("report.css") + _own_style()
    ui.add_head_html(f"<style>{style}</style><script>{start}</script>", shared=True)
    ui.add_body_html(_FIRST, shared=True)


@contextmanager
def frame(service: Service, title: str, here: str, *, sections: Sections | None) -> Iterator[None]:
    """The frame of a screen; what is made within stands in it.

    Args:
        service: whose model is named.
        title: the screen's heading.
        here: where it is, to be marked among the screens.
        sections: what its export holds; None for a screen without one.
    """
    ui.page_title(f"{shown(title)} - brainscan")
    ui.query("body").classes("bs")
    with ui.element("div").classes("bp-frame"):
        with ui.element("header").classes("bp-head"):
            View(_head(here))
            ui.element("span").classes("bp-model")._text = shown(service.lm.name)
        main = ui.element("main").classes("bp-main bp-stack")
    ui.skip_link("To the content", target=main)
    with main:
        with ui.element("div").classes("bp-title"):
            View(Html(f"<h1>{escape(title)}</h1>"))
            if sections is not None:
                _export_button(title, sections, service)
        yield


def _head(here: str) -> Html:
    links = join(
        f'<a href="{where}"{" aria-current=page" if where == here else ""}>{name}</a>'
        for where, name in SCREENS
    )
    return Html(
        f'<div class="bp-brand"><p class="bs-brand">brainscan</p>'
        f'<nav aria-label="Screens">{links}</nav></div>'
    )


def _export_button(title: str, sections: Sections, service: Service) -> None:
    def export() -> None:
        with told():
            made = page(title, _styled(sections()), facts=[("model", service.lm.name)])
            ui.download.content(
                made.encode("utf-8", "replace"), f"brainscan-{slug(title)[:60]}.html", "text/html"
            )

    quiet_button("Export", export).props('aria-label="Export this view as one HTML file"')


def _styled(sections: Sequence[Section]) -> list[Section]:
    """Sections with what of our style the views' own does not have."""
    style = f"<style>{_own_style()}</style>"
    return [
        replace(section, body=Html(f"{style}{section.body}")) if number == 0 else section
        for number, section in enumerate(sections)
    ]


def _own_style() -> str:
    return (ASSETS / "page.css").read_text(encoding="utf-8")


def quiet_button(text: str, action: Callable[[], object]) -> ui.button:
    """A button that is not the screen's main one.

    Args:
        text: what stands on it.
        action: what it does.
    """
    return ui.button(text, on_click=action, color=None).props("no-caps flat").classes("bp-quiet")


def main_button(text: str, action: Callable[[], object]) -> ui.button:
    """The screen's main button.

    Args:
        text: what stands on it.
        action: what it does.
    """
    return ui.button(text, on_click=action).props("no-caps unelevated")


def paragraph(text: str, kind: str = "bs-hint") -> View:
    """A line of text.

    Args:
        text: anything; it is shown as it is.
        kind: its style.
    """
    return View(Html(f'<p class="{kind}">{escape(text)}</p>'))


def shown(text: str) -> str:
    """Text for an element that takes plain text: what would hide or reorder it is made visible.

    Args:
        text: anything.
    """
    return html.unescape(escape(text))


@contextmanager
def told() -> Iterator[None]:
    """Tells the user of an error that we raise on purpose, instead of failing."""
    try:
        yield
    except BrainscanError as error:
        say(str(error), kind="negative", seconds=12)


def say(text: str, kind: Literal["positive", "negative", "info"], seconds: float = 5) -> None:
    """Tells the user something in passing.

    Args:
        text: anything; it is shown as it is.
        kind: good news, bad news, or neither.
        seconds: how long it stays, unless it is closed.
    """
    ui.notify(
        shown(text),
        type=kind,
        position="top",
        multi_line=True,
        timeout=seconds * 1000,
        close_button="Close",
    )


async def connected() -> bool:
    """Waits for the browser to be there; False if nobody came, or whoever did is gone again."""
    client = ui.context.client
    await client.connected()
    return not client.is_deleted


def set_address(where: str, query: str, longest: int) -> None:
    """Puts a screen's state into the browser's address, without loading it anew.

    Args:
        where: the screen.
        query: its state; left out where it is longer than an address can be.
        longest: characters of an address at most.
    """
    address = f"{where}?{query}" if query and len(query) <= longest else where
    if len(query) > longest:
        say("This is too long for an address: it can be exported, but not bookmarked.", "info")
    ui.run_javascript(f"history.replaceState(history.state, '', {json.dumps(address)})")
