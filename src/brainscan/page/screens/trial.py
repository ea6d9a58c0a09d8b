"""A feature turned up or down: the answer without and with it, and what that costs.

Both answers have the same seed, so that they differ by the edit alone. The cost is the KL from the
untouched model on a few neutral passages: quick, so with a wide interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from nicegui import ui

from brainscan.page.screens.address import ChatState, plain
from brainscan.page.screens.conversation import Written, text_of, write
from brainscan.page.screens.frame import View, main_button, quiet_button
from brainscan.page.service import Piece, Service
from brainscan.views import GenerationView, Html, Section, escape, side_by_side
from brainscan.views.costs import cost_text
from brainscan.views.examples import answer, name

if TYPE_CHECKING:
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel
    from brainscan.stats import Estimate

PASSAGES = 8
"""Neutral passages that the cost is measured on."""

_UNTOUCHED = "untouched, the same seed"
_RANGE = (-4.0, 8.0)
_MUCH = 1.0


class Trial:
    """One feature, one strength, two answers."""

    def __init__(self, service: Service, state: ChatState, written: Written) -> None:
        """Nothing is written yet.

        Args:
            service: the model.
            state: the chat's, with the feature and its strength.
            written: the answer that the feature was found in.
        """
        self._service = service
        self._state = state
        self._written = written
        self.strength = state.strength
        self._answers: tuple[GenerationView, GenerationView] | None = None
        self._cost: Estimate | None = None
        self._compared = ""

    @property
    def line(self) -> str:
        """The edit as one types it."""
        return f"{self._state.feature}={plain(self.strength)}x"

    async def build(
        self,
        *,
        compare: Callable[[], Awaitable[None]],
        changed: Callable[[float], None],
        keep: Callable[[str], Awaitable[Any]],
        close: Callable[[], None],
    ) -> None:
        """Makes the slider and the places of the answers.

        Args:
            compare: begins `compare`, one thing at a time.
            changed: called with a new strength.
            keep: takes the edit over into the chat's.
            close: takes the trial away.
        """

        def slid(event: Any) -> None:
            self.strength = float(event.value)
            says.show(self._says())
            changed(self.strength)

        title = await self._title()
        with ui.element("section").classes("bp-panel bp-stack").props('aria-label="A trial"'):
            View(title)
            with ui.element("div").classes("bp-row"):
                low, high = _RANGE
                slider = ui.slider(min=low, max=high, step=0.25, value=self.strength)
                slider.props('aria-label="Strength, in multiples of the maximum"')
                slider.classes("bp-slider").on_value_change(slid)
                says = View(self._says())
                main_button("Compare", compare)
                quiet_button("Keep this edit", lambda: keep(self.line))
                quiet_button("Close", close)
            with ui.element("div").classes("bp-columns"):
                self._left, self._meter, self._right = View(), View(), View()

    async def compare(self) -> None:
        """Writes both answers, and measures the cost; stopped, what is there stays."""
        self._answers = self._cost = None
        line = self.line  # the slider may be moved meanwhile
        self._meter.show(_meter(None))
        self._left.show(_column(_UNTOUCHED, "", control=True))
        self._right.show(_column(line, "", control=False))
        own = await self._service.edits([line])
        edits = (*self._written.edits, *own)
        left, right = await collected([self._untouched(), self._with(edits, line)])
        same = _same(left.pieces, right.pieces)
        note = f"the same for {same} token{'' if same == 1 else 's'}"
        self._answers = (
            GenerationView(_UNTOUCHED, (left.text,), notes=_ended(left), control=True),
            GenerationView(line, (right.text,), notes=(note, *_ended(right))),
        )
        self._compared = line
        self._left.show(_generation(self._answers[0]))
        self._right.show(_generation(self._answers[1]))
        try:
            if not (left.stopped or right.stopped):
                self._cost = await self._service.run(lambda lm: cost_of(lm, edits))
        except asyncio.CancelledError:
            pass
        self._meter.show(_meter(self._cost, ended=True))

    def sections(self) -> list[Section]:
        """The comparison, for an export."""
        if self._answers is None:
            return []
        body = side_by_side(self._compared, self._answers)
        meter = _meter(self._cost, ended=True)
        return [Section("Turned up or down", Html(f"{meter}{body}"))]

    async def _untouched(self) -> Written:
        if not self._written.edits and not self._written.stopped:
            return self._written
        return await self._write(
            (), lambda text: self._left.show(_column(_UNTOUCHED, text, control=True))
        )

    async def _with(self, edits: tuple[Edit, ...], line: str) -> Written:
        return await self._write(
            edits, lambda text: self._right.show(_column(line, text, control=False))
        )

    async def _write(self, edits: tuple[Edit, ...], tell: Callable[[str], None]) -> Written:
        """An answer to the same, drawn in the same way."""
        was = self._written
        return await write(
            self._service, was.prompt, was.state, edits, lambda pieces: tell(text_of(pieces))
        )

    async def _title(self) -> Html:
        feature, atlas = self._state.feature, self._service.atlas
        known = atlas is not None and feature.startswith(f"{atlas.hookpoint}/")
        label = await self._service.run(lambda lm: atlas.label(feature)) if atlas and known else ""
        return Html(f"<h3>{name(feature, label)}</h3>")

    def _says(self) -> Html:
        return Html(
            f'<output class="bs-value">{escape(plain(self.strength))}&times; its maximum</output>'
        )


async def collected(answers: Sequence[Coroutine[Any, Any, Written]]) -> list[Written]:
    """Answers that are written beside each other; cancelled, as much of each as there is.

    Args:
        answers: each gives what there is when it is cancelled; where one fails, all end.
    """
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    left = set(tasks)
    while left:
        try:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_EXCEPTION)
            failed = any(one.cancelled() or one.exception() for one in done)
        except asyncio.CancelledError:
            failed = True
        for task in left if failed else ():
            task.cancel()
    return [task.result() for task in tasks]


def cost_of(lm: LanguageModel, edits: tuple[Edit, ...]) -> Estimate:
    """KL from the untouched model, in nats per token of a few neutral passages.

    Args:
        lm: the model.
        edits: the edits, applied together.
    """
    from brainscan import stats
    from brainscan.interventions import neutral_passages
    from brainscan.interventions.scoring import score_passages

    sums = score_passages(lm, [edits], neutral_passages(PASSAGES), PASSAGES)
    return stats.ratio(sums.kl[0].numpy(), sums.tokens.numpy())


def _same(left: tuple[Piece, ...], right: tuple[Piece, ...]) -> int:
    """How many tokens two answers begin with in common."""
    pairs = zip(left, right, strict=False)
    return next(
        (i for i, (a, b) in enumerate(pairs) if a.token != b.token), min(len(left), len(right))
    )


def _ended(written: Written) -> tuple[str, ...]:
    return ("stopped",) if written.stopped else ()


def _column(title: str, text: str, *, control: bool) -> Html:
    kind = "bs-generation bs-control" if control else "bs-generation"
    return Html(
        f'<section class="{kind}"><h4>{escape(title)}</h4>'
        f'<p class="bs-answer bp-writing" dir="auto">{escape(text)}</p></section>'
    )


def _generation(view: GenerationView) -> Html:
    kind = "bs-generation bs-control" if view.control else "bs-generation"
    notes = "".join(f"<li>{escape(note)}</li>" for note in view.notes)
    return Html(
        f'<section class="{kind}"><h4>{escape(view.title)}</h4>{answer(view)}'
        f'<ul class="bs-notes">{notes}</ul></section>'
    )


def _meter(cost: Estimate | None, *, ended: bool = False) -> Html:
    if cost is None:
        told = "Stopped before the cost was known." if ended else "The cost follows."
        return Html(f'<div class="bp-meter"><span>{told}</span></div>')
    value = min(max(cost.value, 0.0), _MUCH)
    return Html(
        '<div class="bp-meter"><span>cost</span>'
        f'<meter min="0" max="{_MUCH:g}" low="0.1" high="0.5" optimum="0" value="{value:.4f}" '
        'aria-label="KL on neutral text"></meter>'
        f"<span>KL {escape(cost_text(cost))}, nats per token of neutral text</span></div>"
    )
