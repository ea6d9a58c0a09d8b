"""``brainscan watch``: concepts token by token while a model answers, and an alarm for jumps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from brainscan.cli.options import DictionaryName, Html, Json, Model, Seed
from brainscan.cli.output import console, heat, note, print_json, visible, working, write_page
from brainscan.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel
    from brainscan.models.generate import Sampling
    from brainscan.monitoring import Detectors, Watched
    from brainscan.monitoring.watched import OnScore

EXAMPLE = 'Example: brainscan watch "Give me a plan for a rainy Sunday." --on-alarm stop'


class OnAlarm(StrEnum):
    """What an alarm does to the answer."""

    LOG = "log"
    STOP = "stop"
    EDIT = "edit"


class _Session(NamedTuple):
    """What every answer of a call has in common."""

    lm: LanguageModel
    detectors: Detectors
    sampling: Sampling
    action: OnAlarm
    edits: tuple[Edit, ...]


Prompt = Annotated[
    str | None, typer.Argument(help="What the model is asked; left out, a chat begins.")
]
Transcripts = Annotated[
    Path | None,
    typer.Option(
        "--transcripts",
        help='Read instead: lines of {"messages": [...]}, an .eval log, or a folder of such.',
    ),
]
Action = Annotated[
    OnAlarm, typer.Option("--on-alarm", help="Say so, end the answer, or switch edits on.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="With --on-alarm edit: a feature's change, as in steer."),
]
OtherEdits = Annotated[
    list[str] | None, typer.Option("--edit", help="With --on-alarm edit: another edit.")
]
SavedEdits = Annotated[
    Path | None, typer.Option("--edits", help="With --on-alarm edit: saved edits.")
]
DetectorsFolder = Annotated[
    Path | None,
    typer.Option("--detectors", help="Folder of detectors. Default: the model's own."),
]
Length = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Length of an answer at most.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0.0, help="0 takes the most probable token.")
]


def watch(
    prompt: Prompt = None,
    transcripts: Transcripts = None,
    on_alarm: Action = OnAlarm.LOG,
    settings: Settings = None,
    edit: OtherEdits = None,
    edits: SavedEdits = None,
    model: Model = None,
    dictionary: DictionaryName = None,
    detectors: DetectorsFolder = None,
    max_new_tokens: Length = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Show the concepts in a model as it answers; an alarm where danger comes unasked.

    The colour of a token is the strongest danger in it. What the user asked for counts as a risk
    and raises no alarm. Detectors come with the default model; `calibrate` makes them for others.
    """
    lines = [*(settings or ()), *(edit or ())]
    _check(prompt, transcripts, on_alarm, bool(lines or edits))
    chat = prompt is None and transcripts is None
    if chat and (as_json or html is not None):
        raise UsageError("a prompt or --transcripts with --json or --html", "neither", "give one")
    with working():
        from brainscan.cli.parts import open_edits
        from brainscan.models.generate import Sampling
        from brainscan.monitoring import open_detectors

        lm, chosen = open_edits(model, dictionary, lines, edits)
        found = open_detectors(lm, detectors)
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        if found.rule is None:
            raise UsageError(
                "detectors with a rule for jumps", "detectors of no danger", "calibrate with one"
            )
        session = _Session(lm, found, sampling, on_alarm, chosen)
        live = not (as_json or transcripts)
        result = [] if live else _seen(session, prompt, transcripts)
    if live:
        result = _chat(session) if prompt is None else [_spoken(session, prompt)]
    if html is not None:
        _write(html, result)
    if as_json:
        print_json({"model": lm.name, "transcripts": [one.to_json() for one in result]})
    for number, one in enumerate(() if as_json or live else result, 1):
        print_watched(one, number)


def _check(prompt: str | None, transcripts: Path | None, action: OnAlarm, has_edits: bool) -> None:
    if prompt is not None and transcripts is not None:
        raise UsageError("a prompt or --transcripts", "both", "leave one out")
    if prompt is not None and not prompt.strip():
        raise UsageError("a prompt", "an empty one", "give some text")
    if (action is OnAlarm.EDIT) != has_edits:
        raise UsageError(
            "edits with --on-alarm edit, and with it alone",
            "edits without it" if has_edits else "--on-alarm edit without edits",
            "add --on-alarm edit, or --set, --edit or --edits",
        )
    if transcripts is not None and action is not OnAlarm.LOG:
        raise UsageError(
            "--on-alarm log with --transcripts", f"'{action}'", "what was written stays written"
        )


def _seen(session: _Session, prompt: str | None, path: Path | None) -> list[Watched]:
    """The transcripts, or the answer to a prompt."""
    from brainscan.monitoring import watch_transcripts
    from brainscan.stress.conversations import read_conversations

    if path is None:
        return [_answer(session, prompt or "")]
    return watch_transcripts(session.lm, session.detectors, read_conversations(path))


def _answer(
    session: _Session,
    prompt: str,
    before: Sequence[dict[str, str]] = (),
    on_score: OnScore | None = None,
) -> Watched:
    from brainscan.monitoring import watch_answer

    return watch_answer(
        session.lm,
        session.detectors,
        [*before, {"role": "user", "content": prompt}],
        session.sampling,
        on_alarm=session.edits,
        stop=session.action is OnAlarm.STOP,
        on_score=on_score,
    )


def _chat(session: _Session) -> list[Watched]:
    """A conversation at the terminal, until an empty line or the end of input."""
    note("an empty line ends the chat")
    messages: list[dict[str, str]] = []
    while True:
        try:
            prompt = input("> ") if sys.stdin.isatty() else sys.stdin.readline().strip()
        except EOFError:
            return []
        if not prompt.strip():
            return []
        result = _spoken(session, prompt, messages)
        messages += [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": result.answer},
        ]


def _spoken(session: _Session, prompt: str, before: Sequence[dict[str, str]] = ()) -> Watched:
    """An answer, shown as it is written, and its alarms."""
    dangers = [n for n, one in enumerate(session.detectors.each) if one.danger]

    def show(text: str, z: NDArray[np.float32]) -> None:
        console().print(heat([text], [_chance(float(z[dangers].max()))]), end="")

    result = _answer(session, prompt, before, show)
    console().print()
    _print_alarms(result)
    return result


def print_watched(one: Watched, number: int | None = None) -> None:
    """Prints a conversation, coloured by its strongest danger, and its alarms."""
    out = console()
    if number is not None:
        out.print(f"conversation {number}", style="bold")
    shown = [n for n, role in enumerate(one.roles) if role]
    dangers = [n for n, name in enumerate(one.concepts) if name in one.dangers]
    chances = one.chances()[:, dangers or slice(None)].max(1)
    before = ""
    line: list[int] = []
    for n in [*shown, None]:
        role = "" if n is None else one.roles[n]
        if line and role != before:
            out.print(f"{visible(before)}: ", end="", style="dim", markup=False)
            out.print(heat([one.texts[i] for i in line], [float(chances[i]) for i in line]))
            line = []
        before = role
        if n is not None:
            line.append(n)
    _print_alarms(one)


def _print_alarms(one: Watched) -> None:
    out = console()
    for alarm in one.alarms:
        began = visible("".join(one.texts[alarm.onset : alarm.onset + 8])).replace("\n", " ")
        out.print(
            f"ALARM: {alarm.concept}, noticed at token {alarm.token}, "
            f"statistic {alarm.score:.1f}, from {began!r} on",
            style="bold red",
            markup=False,
        )
    for name in one.risks:
        out.print(
            f"risk: {name} was asked about, log-odds {one.asked[name]:.1f}",
            style="yellow",
            markup=False,
        )
    if not one.alarms:
        out.print("no alarm", style="green")


def _write(path: Path, found: Sequence[Watched]) -> None:
    from brainscan.views import Section, page

    sections = [Section(f"Conversation {n}", one.strip()) for n, one in enumerate(found, 1)]
    write_page(path, page("watch", sections))


def _chance(log_odds: float) -> float:
    from math import exp

    return 0.0 if log_odds != log_odds else 1 / (1 + exp(-max(-30.0, min(30.0, log_odds))))
