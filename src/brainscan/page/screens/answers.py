"""What a chat shows of a message and its answer, on the screen and in an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainscan.page.screens.address import ChatState, plain
from brainscan.page.screens.conversation import Written, answer_span
from brainscan.page.screens.strips import reading_lines, reading_strip
from brainscan.page.screens.timeline import timeline
from brainscan.views import Html, escape, join
from brainscan.views.rates import facts

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

NOTHING = Html("")

OVER = "Over the answer, token by token"
"""What the timeline is called."""


def message_text(text: str) -> Html:
    """A message of the user's.

    Args:
        text: the message.
    """
    return Html(f'<p class="bp-role">You</p><div class="bp-asked" dir="auto">{escape(text)}</div>')


def growing(text: str) -> Html:
    """An answer while it is being written.

    Args:
        text: what there is of it.
    """
    return Html(
        '<p class="bp-role">The model</p>'
        f'<p class="bp-told bp-writing" dir="auto">{escape(text)}</p>'
    )


def note(written: Written) -> Html:
    """Who wrote an answer, under how many edits, and whether it was stopped.

    Args:
        written: the answer.
    """
    edits = len(written.edits)
    told = f", under {edits} edit{'s' if edits > 1 else ''}" if edits else ""
    told += ", stopped" if written.stopped else ""
    return Html(f'<p class="bp-role">The model{told}</p>')


def text_only(written: Written) -> Html:
    """An answer's text, without a strip.

    Args:
        written: the answer.
    """
    text = escape(written.text) or '<span class="bs-none">An empty answer.</span>'
    return Html(f'<p class="bp-told" dir="auto">{text}</p>')


def answer_strip(lm: LanguageModel, written: Written, colour: str) -> Html:
    """An answer token by token; its text where it was not read.

    Args:
        lm: the model.
        written: the answer.
        colour: what colours it to begin with.
    """
    start, stop = answer_span(lm, written)
    if written.reading is None or stop == start:
        return text_only(written)
    return reading_strip(written.reading, start, stop, colour)


def message_strip(written: Written, colour: str) -> Html:
    """The message that was answered, token by token, folded.

    Args:
        written: the answer.
        colour: what colours it to begin with.
    """
    start, stop = written.prompt.last
    if written.reading is None or stop == start:
        return NOTHING
    strip = reading_strip(written.reading, start, stop, colour)
    head = "<summary>The message, token by token</summary>"
    return Html(f'<details class="bs-fold">{head}{strip}</details>')


def answer_timeline(lm: LanguageModel, written: Written) -> Html:
    """Surprise, jumps and concepts over an answer, and what there is to say of them.

    Args:
        lm: the model.
        written: the answer.
    """
    start, stop = answer_span(lm, written)
    reading = written.reading
    if reading is None or stop == start:
        return NOTHING
    tokens = [token.text for token in reading.tokens[start:stop]]
    lines = timeline(tokens, reading_lines(reading, start, stop), OVER)
    names = ", ".join(reading.risks)
    risk = f"Asked about, so a risk and no jump: {names}." if names else ""
    notes = (f'<p class="bs-hint">{escape(one)}</p>' for one in (risk, reading.note) if one)
    return Html(f"{lines}{join(map(Html, notes))}")


def how_written(state: ChatState) -> Html:
    """What an answer was written under: its edits, settings and system message.

    Args:
        state: the chat's state at that time.
    """
    pairs = [("edit", line) for line in state.edits]
    pairs += [("switched off", line) for line in state.off]
    pairs += [("seed", str(state.seed)), ("temperature", plain(state.temperature))]
    pairs += [("tokens at most", str(state.most)), ("system message", state.system or "none")]
    return facts(pairs)
