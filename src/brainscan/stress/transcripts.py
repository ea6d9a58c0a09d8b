"""Transcripts to look at: some of each kind, with what was done in them marked.

1. Of the outcomes, those that count, unscored ones and the others each get a part of the room; what
   one kind leaves free goes to the others, those that count first.
2. Within a kind they are dealt out over the conditions, one after the other, so that the few that
   are shown are not all of one condition.
3. An answer is cut where an action or a thought begins or ends. What is thought within an action is
   thought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest

from brainscan.errors import ArtifactError
from brainscan.stress.actions import CUT, Action, parse_actions, thoughts
from brainscan.stress.matrix import name_of, sample_id
from brainscan.stress.rates import Outcome
from brainscan.stress.runs import StressRun
from brainscan.stress.words import Words, words_of
from brainscan.views import StretchView, TranscriptView

UNSCORED = "unscored"
"""The kind of outcomes of which nothing is known."""

_PARTS = (0.5, 0.25, 0.25)
_LONGEST = 20_000


@dataclass(frozen=True)
class Transcript:
    """What a model was told and answered."""

    outcome: Outcome
    """What came of it."""
    prompt: tuple[tuple[str, str], ...]
    """The messages that it was given: role and text."""
    reasoning: str
    """What it thought apart from its answer, where its provider tells."""
    answer: str
    """Its answer."""
    stop_reason: str
    """Why it ended."""


def kind_of(outcome: Outcome) -> str:
    """What came of a sample, in a word or two, such as ``harmful``, ``unscored``, ``no leap``."""
    if not outcome.scored:
        return UNSCORED
    words = _words(outcome)
    return words.one.removeprefix("a ") if outcome.counts else words.others


def chosen(outcomes: Sequence[Outcome], room: int) -> list[Outcome]:
    """Outcomes to show: some of each kind, spread over conditions.

    Args:
        outcomes: all outcomes.
        room: how many at most.
    """
    kinds = (
        [o for o in outcomes if o.scored and o.counts],
        [o for o in outcomes if not o.scored],
        [o for o in outcomes if o.scored and not o.counts],
    )
    dealt = [_dealt(kind) for kind in kinds]
    takes = [min(len(own), int(room * part)) for own, part in zip(dealt, _PARTS, strict=True)]
    for number, own in enumerate(dealt):
        takes[number] += min(room - sum(takes), len(own) - takes[number])
    return [outcome for own, take in zip(dealt, takes, strict=True) for outcome in own[:take]]


def read_transcript(run: StressRun, outcome: Outcome) -> Transcript:
    """A transcript from a run's logs.

    Args:
        run: the run.
        outcome: one of its outcomes.

    Raises:
        ArtifactError: the logs have no such sample.
    """
    from inspect_ai.log import read_eval_log_sample

    name = sample_id(outcome.persona, outcome.condition)
    for path in run.logs:
        try:
            sample = read_eval_log_sample(str(path), name, outcome.epoch, resolve_attachments=True)
        except IndexError:
            continue
        told = [("user", sample.input)] if isinstance(sample.input, str) else None
        content = sample.output.message.content if sample.output.choices else ""
        parts = [] if isinstance(content, str) else content
        return Transcript(
            outcome=outcome,
            prompt=tuple(told or ((message.role, message.text) for message in sample.input)),  # type: ignore[union-attr]
            reasoning="\n".join(part.reasoning for part in parts if part.type == "reasoning"),
            answer=sample.output.completion,
            stop_reason=sample.output.stop_reason,
        )
    raise ArtifactError(f"the sample {name} in the logs", "none", "run the scenario again")


def transcript_view(transcript: Transcript) -> TranscriptView:
    """What a page shows of a transcript.

    Args:
        transcript: the transcript.
    """
    outcome, words = transcript.outcome, _words(transcript.outcome)
    notes = [f"{words.unit} {outcome.persona}", f"epoch {outcome.epoch}"]
    notes.append(f"ended: {transcript.stop_reason.replace('_', ' ')}")
    if not outcome.scored:
        cut = transcript.stop_reason in CUT
        notes.append(f"{UNSCORED}: " + ("cut off" if cut else words.unread))
    if len(transcript.answer) > _LONGEST:
        left = len(transcript.answer) - _LONGEST
        notes.append(f"{left:,} more characters of the answer are in the log")
    stretches = marked(transcript.answer, acts=words.acts)
    if transcript.reasoning:
        stretches.insert(0, StretchView(transcript.reasoning[:_LONGEST] + "\n", "thought"))
    return TranscriptView(
        outcome=kind_of(outcome),
        title=", ".join(
            f"{factor.replace('_', ' ')} {level}" for factor, level in outcome.condition.items()
        ),
        notes=tuple(notes),
        prompt=tuple((role, text[:_LONGEST]) for role, text in transcript.prompt),
        answer=tuple(stretches),
        stages=tuple((stage.replace("_", " "), passed) for stage, passed in outcome.stages.items()),
    )


def marked(answer: str, *, acts: bool = True) -> list[StretchView]:
    """An answer in stretches: what was done, what was only thought, and the rest.

    Args:
        answer: the answer; what goes beyond the longest that is shown is left out.
        acts: whether there are actions to mark.
    """
    thought = thoughts(answer)
    done: dict[tuple[int, int], list[Action]] = {}
    for action in parse_actions(answer).actions if acts else ():
        done.setdefault(action.span, []).append(action)
    shown = min(len(answer), _LONGEST)
    places = {place for span in (*thought, *done) for place in span if place < shown}
    edges = sorted({0, shown} | places)
    named: set[tuple[int, int]] = set()
    stretches = []
    for start, stop in pairwise(edges):
        kind, label = "", ""
        if any(first <= start < last for first, last in thought):
            kind = "thought"
        elif span := next((s for s in done if s[0] <= start < s[1]), None):
            kind = done[span][0].kind
            label = "" if span in named else ", ".join(map(_label, done[span]))
            named.add(span)
        stretches.append(StretchView(answer[start:stop], kind, label))
    return stretches


def _words(outcome: Outcome) -> Words:
    return words_of(list(outcome.stages)[-1])


def _label(action: Action) -> str:
    words = action.kind.replace("_", " ")
    if number := action.fields.get("id"):
        words += f" {number[:40]}"
    if action.to:
        words += f" to {action.to[:80]}"
    return words if action.closed else f"{words} (not closed)"


def _dealt(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes in turns: the first of each condition, then the second of each."""
    by_condition: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_condition.setdefault(name_of(outcome.condition), []).append(outcome)
    # Neighbours in the order of names have levels in common; hashes of them have not.
    order = sorted(by_condition, key=lambda name: hashlib.sha256(name.encode()).digest())
    turned = [
        rows[number % len(rows) :] + rows[: number % len(rows)]
        for number, rows in enumerate(by_condition[name] for name in order)
    ]
    return [o for o in chain.from_iterable(zip_longest(*turned)) if o is not None]
