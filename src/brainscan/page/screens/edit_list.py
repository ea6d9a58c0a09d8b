"""The edits of a chat: listed, switched on and off, saved as artifacts and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from brainscan.artifacts import read_manifest
from brainscan.errors import ArtifactError, UsageError
from brainscan.page.edit_lines import NAME
from brainscan.page.screens.address import ChatState
from brainscan.page.screens.frame import quiet_button, say, shown, told
from brainscan.page.service import Service

_ANOTHER = "choose another"

OnEdits = Callable[[tuple[str, ...], tuple[str, ...]], None]
"""Called with the edits that are on, and those that are off."""


class EditList:
    """Edits as one types them, or by the names they are saved by."""

    def __init__(self, service: Service, state: ChatState, changed: OnEdits) -> None:
        """Nothing is shown yet.

        Args:
            service: the model, and the folder that edits are saved in.
            state: the chat's state.
            changed: called after each change.
        """
        self._service = service
        self._changed = changed
        self._lines = {**dict.fromkeys(state.edits, True), **dict.fromkeys(state.off, False)}

    def build(self) -> None:
        """Makes the list and its fields."""
        self._list = ui.element("ul").classes("bp-edits").props('aria-label="Edits"')
        with ui.element("div").classes("bp-row"):
            saved = self._service.saved()
            entry = ui.input("An edit, or the name of saved ones", autocomplete=list(saved))
            entry.props('outlined dense placeholder="resid_post.15/1234=2x"').classes("bp-grow")

            async def take() -> None:
                if await self.add(str(entry.value or "").strip()):
                    entry.value = ""

            entry.on("keydown.enter", take)
            quiet_button("Add", take)
            name = ui.input("Name").props("outlined dense").classes("bp-number")
            quiet_button("Save the edits", lambda: self._save(str(name.value or "").strip()))
        self._show()

    async def add(self, line: str) -> bool:
        """Adds an edit, switched on.

        Args:
            line: as ``steer`` takes it, or the name of saved ones.

        Returns:
            Whether it is one.
        """
        added = False
        with told():
            if not line:
                raise UsageError("an edit", "nothing", "give one, such as resid_post.15/1234=2x")
            await self._service.edits([line])
            self._lines[line] = added = True
            self._tell()
        return added

    def _tell(self) -> None:
        on = tuple(line for line, used in self._lines.items() if used)
        off = tuple(line for line, used in self._lines.items() if not used)
        self._changed(on, off)
        self._show()

    def _show(self) -> None:
        self._list.clear()
        with self._list:
            for line, used in self._lines.items():
                with ui.element("li"):
                    box = ui.checkbox(shown(line), value=used)
                    box.on_value_change(partial(self._switch, line))
                    away = quiet_button("Remove", partial(self._remove, line)).props("dense")
                    away.props["aria-label"] = shown(f"Remove {line}")

    def _switch(self, line: str, event: ValueChangeEventArguments[bool]) -> None:
        self._lines[line] = bool(event.value)
        self._tell()

    def _remove(self, line: str) -> None:
        del self._lines[line]
        self._tell()

    async def _save(self, name: str) -> None:
        from brainscan.interventions import save_edits

        with told():
            on = [line for line, used in self._lines.items() if used]
            if not on:
                raise UsageError("edits to save", "none that is switched on", "add one")
            if not NAME.fullmatch(name):
                raise UsageError("a name of letters, digits, dots and dashes", repr(name), _ANOTHER)
            edits = await self._service.edits(on)
            place = free_place(self._service.folder, name)
            save_edits(place, edits, model=self._service.lm.ref)
            say(f"Saved as {name} in {self._service.folder}", "positive")


def free_place(folder: Path, name: str) -> Path:
    """Where edits may be saved: where nothing is yet, or other edits, which are replaced.

    Args:
        folder: the folder that is served.
        name: what they are to be called.

    Raises:
        UsageError: something else is there.
    """
    place = folder / name
    if not os.path.lexists(place):
        return place
    try:
        kind = "a link" if place.is_symlink() else read_manifest(place).kind
    except (ArtifactError, OSError):
        kind = "something else"
    if kind != "edits":
        raise UsageError("a name that is free, or that edits have", f"{name}, {kind}", _ANOTHER)
    return place
