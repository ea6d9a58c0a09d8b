"""What a model makes of a text: how surprising each token is, its concepts, its latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brainscan.errors import UsageError
from brainscan.models.hooks import intervene

if TYPE_CHECKING:
    from brainscan.dictionaries import Dictionary
    from brainscan.features.atlas import Atlas
    from brainscan.features.scan import Scan
    from brainscan.interventions import Edit
    from brainscan.models import LanguageModel
    from brainscan.monitoring.jumps import Alarm
    from brainscan.monitoring.scores import Detectors

_TOO_LONG = (
    "Features are left out: the text is longer than they are read in one go, and edits act on a "
    "part of it."
)
_ANYWHERE = "resid_post.0"


@dataclass(frozen=True)
class ReadToken:
    """A token of a text that was read."""

    token: int
    """The token."""
    text: str
    """Its text."""
    surprise: float
    """The negative of its log-probability, in nats; nan for the first, which nothing precedes."""
    concepts: Mapping[str, float] = field(default_factory=dict)
    """By concept, in z; empty without detectors, and for tokens that belong to no message."""
    jump: float = math.nan
    """The statistic of a jump after this token; nan outside of answers and without detectors."""


@dataclass(frozen=True)
class Reading:
    """What one forward pass over a text tells."""

    tokens: tuple[ReadToken, ...]
    """The text's tokens."""
    scan: Scan | None = None
    """Its latents; None without a dictionary. Its tokens are those that the tokenizer makes of the
    text, which for a text that the model drew may be others."""
    alarms: tuple[Alarm, ...] = ()
    """What the watch noticed."""
    risks: tuple[str, ...] = ()
    """The dangers that were asked about, which are no jumps."""
    note: str = ""
    """What there is to say of what is left out."""


@dataclass(frozen=True)
class Instruments:
    """What a text is read with."""

    dictionary: Dictionary | None
    """Whose latents are looked for."""
    atlas: Atlas | None
    """Where their labels come from."""
    detectors: Detectors | None
    """Of the concepts."""


def read_text(
    lm: LanguageModel,
    tokens: Sequence[int],
    edits: Sequence[Edit],
    instruments: Instruments,
    *,
    roles: Sequence[str] = (),
    written: int = 0,
) -> Reading:
    """Reads a text in one forward pass, and another for its latents.

    Args:
        lm: the model.
        tokens: the text's tokens.
        edits: what is changed meanwhile.
        instruments: what it is read with.
        roles: the role of each token; without them, the written ones are the assistant's and the
            others the user's.
        written: how many of the last tokens are an answer, for edits that act on answers.

    Raises:
        UsageError: the text is empty, or longer than the context window.
    """
    window = lm.context_window or len(tokens)
    if not 1 <= len(tokens) <= window:
        raise UsageError(
            f"a text of 1 to {window} tokens", f"{len(tokens)} tokens", "shorten it or give some"
        )
    given = len(tokens) - written
    if not 0 <= given <= len(tokens):
        raise UsageError(
            f"at most {len(tokens)} written tokens", str(written), "count the answer's tokens"
        )
    roles = list(roles) or ["user"] * given + ["assistant"] * written
    with intervene(lm, edits, prompt_lengths=[given]):
        concepts = _concepts(lm, tokens, roles, instruments.detectors)
        given_up = instruments.dictionary is not None and _depends_on_place(lm, tokens, edits)
        found = None if given_up else _scan(lm, tokens, instruments)
    texts = lm.token_strings(tokens)
    read = tuple(
        ReadToken(token, text, -logprob, scores, jump)
        for token, text, logprob, scores, jump in zip(
            tokens, texts, concepts.logprobs, concepts.scores, concepts.jumps, strict=True
        )
    )
    note = _TOO_LONG if given_up else ""
    return Reading(read, found, concepts.alarms, concepts.risks, note)


def _depends_on_place(lm: LanguageModel, tokens: Sequence[int], edits: Sequence[Edit]) -> bool:
    """Whether the windows of a scan would hide from edits where in the text they are."""
    from brainscan.features.scan import WINDOW

    def anywhere(positions: Any) -> bool:
        return positions == "all" or getattr(positions, "within", None) == "all"

    if all(anywhere(getattr(edit, "positions", None)) for edit in edits):
        return False
    return max(len(tokens), len(lm.tokenize(lm.decode(list(tokens))))) > WINDOW


@dataclass(frozen=True)
class _Concepts:
    logprobs: Sequence[float]
    scores: Sequence[Mapping[str, float]]
    jumps: Sequence[float]
    alarms: tuple[Alarm, ...] = ()
    risks: tuple[str, ...] = ()


def _concepts(
    lm: LanguageModel, tokens: Sequence[int], roles: Sequence[str], detectors: Detectors | None
) -> _Concepts:
    from brainscan.monitoring.following import follow, trace
    from brainscan.monitoring.jumps import asked_for, risks_of
    from brainscan.monitoring.readings import read_rows
    from brainscan.monitoring.roles import MarkedTokens, message_numbers

    unknown = [math.nan] * len(tokens)
    if detectors is None:
        (row,) = read_rows(lm, [tokens], [_ANYWHERE], logprobs=True)
        return _Concepts(_listed(row.logprobs), [{} for _ in tokens], unknown)
    nowhere = [-1] * len(tokens)
    marked = MarkedTokens(list(tokens), list(roles), message_numbers(roles), nowhere)
    (followed,) = follow(lm, detectors, [marked], logprobs=True)
    scores = [named(detectors.names, row) for row in followed.z.tolist()]
    if detectors.rule is None:
        return _Concepts(_listed(followed.logprobs), scores, unknown)
    traced = trace(followed, detectors.rule, detectors.names)
    asked = asked_for(detectors.rule, detectors.names, followed.z, roles, marked.messages)
    return _Concepts(
        _listed(followed.logprobs),
        scores,
        traced.jumps,
        tuple(traced.alarms),
        risks_of(detectors, asked),
    )


def _listed(numbers: Any) -> list[float]:
    return [float(number) for number in numbers]


def named(names: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """A token's scores by concept, without those that are no finite numbers.

    Args:
        names: the concepts.
        scores: of each.
    """
    pairs = zip(names, scores, strict=True)
    return {name: float(score) for name, score in pairs if math.isfinite(score)}


def _scan(lm: LanguageModel, tokens: Sequence[int], instruments: Instruments) -> Scan | None:
    from brainscan.features.scan import scan

    opening = len(lm.opening) if tuple(tokens[: len(lm.opening)]) == lm.opening else 0
    text = lm.decode(tokens[opening:])
    if instruments.dictionary is None or not text:
        return None
    return scan(lm, text, instruments.dictionary, instruments.atlas)
