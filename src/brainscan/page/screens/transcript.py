"""One transcript: its messages token by token, and what the model does if one is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from brainscan.errors import UsageError
from brainscan.page.screens.address import LONGEST, ChatState
from brainscan.page.screens.conversation import Prompt, Written, prompt_of, text_of, write
from brainscan.page.screens.folders import opened
from brainscan.page.screens.frame import (
    View,
    connected,
    main_button,
    quiet_button,
    set_address,
    told,
)
from brainscan.page.screens.records import Fork, Record, fork, read_records, record_of
from brainscan.page.screens.strips import reading_strip
from brainscan.page.service import Reading, Service
from brainscan.views import (
    ComparisonView,
    Html,
    Section,
    StretchView,
    before_and_after,
    escape,
    join,
    transcripts,
)

MOST = 256
"""Tokens of an answer at most, where the address says nothing."""

_NO_PROMPT = "What it was told is not in the audit's files, since the test is none of ours."


@dataclass
class Transcript:
    """One tab's transcript."""

    service: Service
    """The model, and the folder."""
    path: str
    """The audit or stress run, below the folder."""
    name: str
    """The transcript within it."""
    state: ChatState = field(default_factory=lambda: ChatState(most=MOST))
    """How the model goes on: length, temperature, seed; and what colours the text."""
    at: int | None = None
    """The message that is changed; None for none."""
    text: str = ""
    """What stands there instead."""
    read: bool = False
    """Whether it is shown token by token."""
    _record: Record | None = None
    _compared: ComparisonView | None = None
    _reading: Reading | None = None
    _spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    _writing: asyncio.Task[Any] | None = None

    async def build(self) -> None:
        """Reads it, and shows its messages."""
        place = ui.element("div").classes("bp-stack")
        ui.context.client.on_delete(self.stop)
        if not await connected():
            return
        with told():
            folder = opened(self.service.folder, self.path)
            records = await asyncio.to_thread(read_records, folder)
            self._record = record_of(records, self.name)
            with place:
                self._messages(self._record)
            if self.read and self._record.messages:
                await self._read()
            if self.at is not None:
                await self._run()

    def sections(self) -> list[Section]:
        """What stands on the screen, for an export."""
        made = []
        if self._record is not None:
            made.append(Section("The transcript", transcripts([self._record.view])))
            if self._reading is not None:
                made.append(Section("Token by token", self._all_strips(self._record)))
        if self._compared is not None:
            made.append(Section("Original and fork", before_and_after(self._compared)))
        return made

    def stop(self) -> None:
        """Ends what is being written."""
        if self._writing is not None:
            self._writing.cancel()

    def _all_strips(self, record: Record) -> Html:
        """Each message's role and strip."""
        parts = []
        for number, message in enumerate(_whole(record)):
            head = f'<p class="bp-role">{escape(message["role"])}</p>'
            parts.append(Html(f"{head}{self._strip(number)}"))
        return join(parts)

    def _strip(self, number: int) -> Html:
        """A message's strip; nothing where the message has no tokens, or was not read."""
        if self._reading is None or number not in self._spans:
            return Html("")
        return reading_strip(self._reading, *self._spans[number], self.state.colour)

    def _messages(self, record: Record) -> None:
        self._strips = []
        if not record.messages:
            View(Html(f'<p class="bs-hint">{escape(_NO_PROMPT)}</p>'))
        else:
            quiet_button("Read it token by token", self._read_on)
        for number, message in enumerate(_whole(record)):
            with ui.element("section").classes("bp-panel bp-stack"):
                head = f'<p class="bp-role">{escape(message["role"])}</p>'
                text = escape(message["content"])
                View(Html(f'{head}<div class="bs-told" dir="auto">{text}</div>'))
                strip = View()
                strip.on_chosen("colour", self._colour)
                self._strips.append(strip)
                if record.messages:
                    quiet_button("Change it and run on", partial(self._edit, number))
        self._fork = ui.element("div")
        self._result = View()
        if self.at is not None:
            self._field_of(self.at, self.text)

    def _edit(self, number: int) -> None:
        if self._record is None:
            return
        self._field_of(number, _whole(self._record)[number]["content"])

    def _field_of(self, number: int, text: str) -> None:
        self._fork.clear()
        with self._fork, ui.element("section").classes("bp-panel bp-stack"):
            View(Html(f"<h3>Message {number + 1}, changed</h3>"))
            field_ = ui.textarea(value=text).props('outlined autogrow aria-label="The message"')
            field_.style("width: 100%").props("autofocus")

            async def go() -> None:
                self.at, self.text = number, str(field_.value or "")
                self._tell()
                await self._run()

            with ui.element("div").classes("bp-row"):
                for name, label in (("most", "Tokens at most"), ("seed", "Seed")):
                    entry = ui.number(label, value=getattr(self.state, name), min=0, step=1)
                    entry.props("outlined dense").classes("bp-number")
                    entry.on_value_change(partial(self._set, name))
                main_button("Run on", go)
                quiet_button("Stop", self.stop)
        ui.run_javascript("window.scrollTo({ top: document.body.scrollHeight })")

    def _set(self, name: str, event: Any) -> None:
        least = 1 if name == "most" else 0
        changes: dict[str, Any] = {name: max(int(event.value or 0), least)}
        self.state = replace(self.state, **changes)
        if self.at is not None:
            self._tell()

    def _tell(self) -> None:
        """Puts into the address how it is shown, and the fork with what it depends on."""
        query: dict[str, Any] = {"path": self.path, "record": self.name}
        query |= {"read": 1} if self.read else {}
        query |= {"colour": self.state.colour} if self.state.colour else {}
        if self.at is not None:
            query |= {"at": self.at, "text": self.text}
            query |= {"most": self.state.most, "seed": self.state.seed}
        set_address("/transcript", urlencode(query, errors="replace"), LONGEST)

    async def _run(self) -> None:
        """Lets the model go on from the changed message."""
        if self._record is None or self.at is None or self._writing is not None:
            return
        with told():
            own = fork(self._record, self.at, self.text)
            prompt = self._prompt(own)
            self._writing = asyncio.create_task(
                write(
                    self.service,
                    prompt,
                    self.state,
                    (),
                    lambda pieces: self._compare(own, text_of(pieces), ""),
                )
            )
            try:
                written: Written = await self._writing
            finally:
                self._writing = None
            note = "stopped" if written.stopped else f"{len(written.pieces)} tokens"
            self._compare(own, written.text, note)

    def _prompt(self, own: Fork) -> Prompt:
        lm = self.service.lm
        prompt = prompt_of(lm, own.messages)
        if not own.begun:
            return prompt
        begun = lm.tokenize(own.begun)
        roles = (*prompt.roles, *("assistant" for _ in begun)) if prompt.roles else ()
        return Prompt((*prompt.tokens, *begun), roles)

    def _compare(self, own: Fork, text: str, note: str) -> None:
        self._compared = ComparisonView(
            title="The original, and what the model does with the change",
            before=(StretchView(own.original),),
            after=(StretchView(own.begun + text),),
            labels=("original", "changed"),
            figures=("", note),
        )
        self._result.show(before_and_after(self._compared))

    def _colour(self, by: str) -> None:
        self.state = replace(self.state, colour=by)
        self._tell()

    async def _read_on(self) -> None:
        """Shows it token by token, from now on."""
        self.read = True
        self._tell()
        await self._read()

    async def _read(self) -> None:
        """Shows a strip below each message."""
        from brainscan.monitoring.roles import marked_chat

        if self._record is None:
            return
        with told():
            lm = self.service.lm
            marked = marked_chat(lm, _whole(self._record))
            if lm.context_window and len(marked.tokens) > lm.context_window:
                raise UsageError(
                    f"a transcript within the context window of {lm.context_window} tokens",
                    f"{len(marked.tokens)} tokens",
                    "serve the model that wrote it",
                )
            self._reading = await self.service.read(marked.tokens, roles=marked.roles)
            places: dict[int, list[int]] = {}
            for at, number in enumerate(marked.messages):
                places.setdefault(number, []).append(at)
            self._spans = {number: (own[0], own[-1] + 1) for number, own in places.items()}
            for number, strip in enumerate(self._strips):
                strip.show(self._strip(number))


def _whole(record: Record) -> list[Mapping[str, str]]:
    """A record's messages with its answer."""
    return [*record.messages, {"role": "assistant", "content": record.answer}]
