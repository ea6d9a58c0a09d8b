"""The chat: answers as they are written, their strips and timelines, and trials of features."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nicegui import ui

from brainscan.page.screens.address import LONGEST, ChatState
from brainscan.page.screens.answers import (
    OVER,
    answer_strip,
    answer_timeline,
    growing,
    how_written,
    message_strip,
    message_text,
    note,
    text_only,
)
from brainscan.page.screens.conversation import (
    Message,
    Written,
    prompt_of,
    text_of,
    with_reading,
    write,
)
from brainscan.page.screens.edit_list import EditList
from brainscan.page.screens.frame import View, main_button, quiet_button, set_address, shown, told
from brainscan.page.screens.strips import piece_lines
from brainscan.page.screens.timeline import timeline
from brainscan.page.screens.trial import Trial
from brainscan.page.service import Piece, Service
from brainscan.views import Html, Section, join

_PAUSE = 0.5


@dataclass
class Turn:
    """A message of the user's and its answer, on the screen."""

    asked: str
    """The message."""
    answer: View
    """Where the answer grows."""
    strip: View
    """Where its strip is."""
    timeline: View
    """Where its timeline is."""
    question: View
    """Where the message's own strip is."""
    place: ui.element
    """Where a trial of a feature goes."""
    written: Written | None = None
    """The answer; None while it is being written."""
    trial: Trial | None = None
    """The trial of a feature on it, if there is one."""


@dataclass
class Chat:
    """One tab's chat; tabs have nothing in common but the model."""

    service: Service
    """The model."""
    state: ChatState
    """All that the chat depends on."""
    turns: list[Turn] = field(default_factory=list)
    """What was asked and answered."""
    _writing: asyncio.Task[Any] | None = None
    _stopped: bool = False
    _gone: bool = False

    def build(self) -> None:
        """Makes the screen; nothing is written yet."""
        self._settings()
        self._log = ui.element("div").props('role="log" aria-label="The conversation"')
        with ui.element("div").classes("bp-ask"), ui.element("div").classes("bp-row"):
            self._field = (
                ui.textarea(placeholder="Ask the model")
                .props('outlined autogrow dense aria-label="Your message" rows=1')
                .classes("bp-grow")
                .on("keydown.enter.exact.prevent", self.send)
            )
            self._send = main_button("Send", self.send)
            self._stop = quiet_button("Stop", self.stop)
            self._stop.set_visibility(False)
        ui.context.client.on_delete(self._leave)

    async def replay(self) -> None:
        """Answers what the address asked, one message after the other, until it is stopped."""
        asked, feature = self.state.asked, self.state.feature
        self.state = replace(self.state, asked=(), feature="")
        self._stopped = False
        for text in asked:
            if self._stopped or self._gone:
                return
            await self._answer(text)
        if feature and self.turns and not self._stopped:
            await self._try(self.turns[-1], feature)
            await self._run(self.turns[-1].trial.compare())  # type: ignore[union-attr]

    async def send(self) -> None:
        """Asks what stands in the field."""
        text = str(self._field.value or "")
        if not text.strip() or self._writing is not None:
            return
        self._field.value = ""
        await self._answer(text)

    def stop(self) -> None:
        """Ends what is being written."""
        self._stopped = True
        if self._writing is not None:
            self._writing.cancel()

    def _leave(self) -> None:
        """Nobody looks any more: what is being written ends, and nothing else begins."""
        self._gone = True
        self.stop()

    async def again(self) -> None:
        """Asks the whole conversation anew, under the edits and settings of now."""
        if self._writing is not None:
            return
        asked = self.state.asked
        self.turns.clear()
        self._log.clear()
        self.state = replace(self.state, asked=asked, feature="")
        await self.replay()

    def sections(self) -> list[Section]:
        """What stands on the screen, for an export."""
        made = []
        for turn in self.turns:
            parts = [message_text(turn.asked)]
            if turn.written is not None:
                parts += self._parts(turn.written)
            made.append(Section(turn.asked.strip()[:60] or "Asked", join(parts)))
            made += turn.trial.sections() if turn.trial is not None else []
        return made or [Section("", Html('<p class="bs-none">Nothing was asked yet.</p>'))]

    def _parts(self, written: Written) -> list[Html]:
        """All of an answer: what it was written under too, so that no edit goes unsaid."""
        lm, colour = self.service.lm, self.state.colour
        return [
            message_strip(written, colour),
            note(written),
            answer_strip(lm, written, colour),
            answer_timeline(lm, written),
            how_written(written.state),
        ]

    def _settings(self) -> None:
        with ui.expansion("Settings and edits").classes("bp-settings").props("dense") as box:
            if self.state.edits or self.state.off:
                box.open()
            with ui.element("div").classes("bp-row"):
                self._number("most", "Tokens at most", 1, 1)
                self._number("temperature", "Temperature", 0, 0.1)
                self._number("seed", "Seed", 0, 1)
                system = ui.input("System message", value=self.state.system)
                system.props("outlined dense").classes("bp-grow")
                system.on("change", lambda: self._change(system=str(system.value or "")))
                quiet_button("Ask all again", self.again)
            self.edits = EditList(self.service, self.state, self._edited)
            self.edits.build()

    def _number(self, name: str, label: str, least: float, step: float) -> None:
        kind = type(getattr(self.state, name))
        entry = ui.number(label, value=getattr(self.state, name), min=least, step=step)
        entry.props("outlined dense").classes("bp-number")
        entry.on("change", lambda: self._change(**{name: kind(max(entry.value or 0, least))}))

    def _change(self, **changes: Any) -> None:
        with told():
            self.state = replace(self.state, **changes)
            set_address("/", self.state.query(), LONGEST)

    def _edited(self, on: tuple[str, ...], off: tuple[str, ...]) -> None:
        self._change(edits=on, off=off)

    def _messages(self, text: str) -> list[Message]:
        messages: list[Message] = []
        if self.state.system:
            messages.append({"role": "system", "content": self.state.system})
        for turn in self.turns:
            if turn.written is not None:
                messages.append({"role": "user", "content": turn.asked})
                messages.append({"role": "assistant", "content": turn.written.text})
        return [*messages, {"role": "user", "content": text}]

    async def _answer(self, text: str) -> None:
        messages = self._messages(text)
        turn = self._new_turn(text)
        self.turns.append(turn)
        self._change(asked=(*self.state.asked, text), feature="")
        await self._run(self._written(turn, messages))
        if self._gone:
            return
        if turn.written is None:  # it cannot be asked, or was stopped before it began
            turn.answer.show(Html('<p class="bs-none">No answer.</p>'))
            self.turns.remove(turn)
            self._change(asked=self.state.asked[:-1])

    async def _written(self, turn: Turn, messages: list[Message]) -> None:
        state = self.state  # it may be changed meanwhile
        edits = await self.service.edits(state.edits)
        prompt = prompt_of(self.service.lm, messages)
        written = await write(self.service, prompt, state, edits, _Growing(turn).show, watch=True)
        if self._gone:
            return
        turn.written = written
        turn.answer.show(join([note(written), text_only(written)]))
        # Stopped or not, what is there is read; a second stop ends that too.
        turn.written = written = await with_reading(self.service, written)
        self._show(turn, written)

    def _show(self, turn: Turn, written: Written) -> None:
        lm, colour = self.service.lm, self.state.colour
        if written.pieces:
            turn.strip.show(answer_strip(lm, written, colour))
            turn.answer.show(note(written))
        turn.timeline.show(answer_timeline(lm, written))
        turn.question.show(message_strip(written, colour))

    def _new_turn(self, text: str) -> Turn:
        with self._log, ui.element("article").classes("bp-turn bp-stack"):
            View(message_text(text))
            question = View()
            answer = View(growing(""))
            strip = View(steers=True)
            lines = View()
            place = ui.element("div")
        turn = Turn(text, answer, strip, lines, question, place)

        async def steer(feature: str) -> None:
            if self._writing is None:
                with told():
                    await self._try(turn, feature)

        strip.on_chosen("steer", steer)
        strip.on_chosen("colour", lambda by: self._change(colour=by))
        return turn

    async def _try(self, turn: Turn, feature: str) -> None:
        """Opens the slider of a feature below an answer."""
        for other in self.turns:
            other.place.clear()
            other.trial = None
        if turn.written is None:
            return
        await self.service.edits([f"{feature}=1x"])
        self._change(feature=feature)
        trial = Trial(self.service, self.state, turn.written)
        turn.trial = trial
        with turn.place:
            await trial.build(
                compare=lambda: self._run(trial.compare()),
                changed=lambda strength: self._change(strength=strength),
                keep=lambda line: self.edits.add(line),
                close=lambda: self._close(turn),
            )
        ui.run_javascript(f"getHtmlElement({turn.place.id})?.scrollIntoView({{ block: 'start' }})")

    def _close(self, turn: Turn) -> None:
        turn.place.clear()
        turn.trial = None
        self._change(feature="")

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Does one thing at a time, so that it can be stopped."""
        if self._writing is not None:
            work.close()
            return
        self._send.set_visibility(False)
        self._stop.set_visibility(True)
        self._writing = asyncio.create_task(work)
        try:
            with told():
                await self._writing
        except asyncio.CancelledError:
            pass
        finally:
            self._writing = None
            self._send.set_visibility(True)
            self._stop.set_visibility(False)


class _Growing:
    """An answer while it is being written: its text, and what was watched of it."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._drawn = 0.0

    def show(self, pieces: Sequence[Piece]) -> None:
        """Shows what there is; the timeline, which is larger, less often."""
        self._turn.answer.show(growing(text_of(pieces)))
        if time.monotonic() - self._drawn > _PAUSE:
            self._drawn = time.monotonic()
            tokens = [piece.text for piece in pieces]
            self._turn.timeline.show(timeline(tokens, piece_lines(pieces), OVER))


def title_of(state: ChatState) -> str:
    """What a chat is called.

    Args:
        state: the chat's state.
    """
    return shown(state.asked[0].strip()[:60]) if state.asked else "Chat"
