"""Token strips of what a model read or wrote: its features, its concepts and its surprise.

A concept, and the surprise, stand in a strip as latents do: each colours the text, and has as its
examples the places of this very text where it is highest.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from brainscan.page.screens.timeline import Line
from brainscan.page.service import Piece, Reading, ReadToken
from brainscan.views import ActivationView, ExampleView, Html, LatentView, TokenView, token_strip

if TYPE_CHECKING:
    from brainscan.features.scan import Scan

SURPRISE = "surprise"
"""What the surprise is called in a strip."""

JUMP = "jump"
"""What the statistic of a jump is called in a timeline."""

_LEAST = 4.0
_AROUND = 7
_PEAKS = 3
_STRONG = 1.0
_CONCEPTS = 4
_EXAMPLES = 900


def reading_strip(reading: Reading, start: int, stop: int, colour: str = "") -> Html:
    """The strip of a part of what was read.

    Args:
        reading: what was read.
        start: the part's first token.
        stop: the token after its last.
        colour: what colours it to begin with: a feature's address, a concept, the surprise, or
            `STRONGEST`.
    """
    tokens = reading.tokens[start:stop]
    strings = [token.text for token in tokens]
    measures = _measures(tokens)
    places = {} if reading.scan is None else _places(reading.scan, reading.tokens, start, stop)
    found = _latents(reading.scan, places, len(tokens), colour)
    views = tuple(
        TokenView(
            text=token.text,
            position=start + i,
            latents=(*_fired(reading.scan, places.get(i)), *_measured(measures, i)),
            sink=reading.scan is not None and i in places and reading.scan.tokens[places[i]].sink,
        )
        for i, token in enumerate(tokens)
    )
    own = [_measure_view(strings, name, measure) for name, measure in measures.items()]
    return token_strip(views, [*found, *own], colour)


def scan_strip(scan: Scan, colour: str = "") -> Html:
    """The strip of a text that was scanned alone.

    Args:
        scan: what was found.
        colour: what colours it to begin with: a feature's address, or `STRONGEST`.
    """
    return token_strip(scan.tokens, scan.latents, colour)


def piece_lines(pieces: Sequence[Piece]) -> list[Line]:
    """The figures of what was written so far, for its timeline; the last tokens may have none yet.

    Args:
        pieces: the answer's tokens.
    """
    names = dict.fromkeys(name for piece in pieces for name in piece.concepts)
    concepts = [
        Line(name, tuple(piece.concepts.get(name, math.nan) for piece in pieces)) for name in names
    ]
    jump = Line(JUMP, tuple(piece.jump for piece in pieces), kind="jump")
    return [jump, *concepts]


def reading_lines(reading: Reading, start: int, stop: int) -> list[Line]:
    """The figures of a part of what was read, for its timeline.

    Args:
        reading: what was read.
        start: the part's first token.
        stop: the token after its last.
    """
    tokens = reading.tokens[start:stop]
    onsets: dict[str, tuple[int, ...]] = {}
    for alarm in reading.alarms:
        if start <= alarm.onset < stop:
            onsets[alarm.concept] = (*onsets.get(alarm.concept, ()), alarm.onset - start)
    lines = [
        Line(
            name,
            measure.values,
            kind="surprise" if name == SURPRISE else "concept",
            onsets=onsets.get(name, ()),
        )
        for name, measure in _measures(tokens).items()
    ]
    return [*lines, Line(JUMP, tuple(token.jump for token in tokens), kind="jump")]


class _Measure(NamedTuple):
    """A figure at each token, and how strongly it colours it."""

    values: tuple[float, ...]
    shares: tuple[float, ...]


def _measures(tokens: Sequence[ReadToken]) -> Mapping[str, _Measure]:
    """Concepts and the surprise at each token."""
    names = dict.fromkeys(name for token in tokens for name in token.concepts)
    found = {name: [token.concepts.get(name, math.nan) for token in tokens] for name in names}
    found[SURPRISE] = [token.surprise for token in tokens]
    return {name: _Measure(tuple(values), _shares(values)) for name, values in found.items()}


def _shares(values: Sequence[float]) -> tuple[float, ...]:
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    unit = max(largest, _LEAST)
    return tuple(max(value, 0.0) / unit if math.isfinite(value) else 0.0 for value in values)


def _measured(measures: Mapping[str, _Measure], i: int) -> list[ActivationView]:
    """The concepts that are strong at a token, strongest first, and its surprise."""
    here = [
        ActivationView(name, measure.values[i], measure.shares[i], name)
        for name, measure in measures.items()
        if math.isfinite(measure.values[i]) and (name == SURPRISE or measure.values[i] >= _STRONG)
    ]
    concepts = sorted((a for a in here if a.id != SURPRISE), key=lambda a: -a.activation)
    return concepts[:_CONCEPTS] + [a for a in here if a.id == SURPRISE]


def _measure_view(strings: Sequence[str], name: str, measure: _Measure) -> LatentView:
    shares = measure.shares
    peaks = sorted(range(len(shares)), key=lambda i: -shares[i])[:_PEAKS]
    examples = []
    for at in (peak for peak in peaks if shares[peak] > 0):
        first, last = max(at - _AROUND, 0), at + _AROUND + 1
        part = tuple(strings[first:last])
        examples.append(ExampleView(part, shares[first:last], at - first, measure.values[at]))
    label = "how surprising the token is, in nats" if name == SURPRISE else f"concept: {name}"
    return LatentView(name, label, tuple(examples), shares=shares)


def _places(scan: Scan, tokens: Sequence[ReadToken], start: int, stop: int) -> dict[int, int]:
    """Which of the scan's tokens stands where each token of the part begins."""
    extra = len(scan.tokens) - len(tokens)
    if extra == 0 and all(a.text == b.text for a, b in zip(scan.tokens, tokens, strict=True)):
        return {i: start + i for i in range(min(stop, len(tokens)) - start)}
    # Other tokens of the same text: found by where they begin, counted from the end.
    ends = list(accumulate(len(token.text) for token in scan.tokens))
    own = list(accumulate(len(token.text) for token in tokens))
    shift = ends[-1] - own[-1] if ends and own else 0
    places = {}
    for i in range(min(stop, len(tokens)) - start):
        begins = (own[start + i - 1] if start + i else 0) + shift
        at = bisect.bisect_right(ends, begins)
        if begins >= 0 and at < len(scan.tokens):
            places[i] = at
    return places


def _fired(scan: Scan | None, at: int | None) -> tuple[ActivationView, ...]:
    return () if scan is None or at is None else scan.tokens[at].latents


def _latents(
    scan: Scan | None, places: Mapping[int, int], count: int, colour: str
) -> list[LatentView]:
    """What is told of the latents that fire in the part, with their shares there."""
    if scan is None:
        return []
    here = {latent.id for at in places.values() for latent in scan.tokens[at].latents}
    found = [latent for latent in scan.latents if latent.id in here]
    most = max(min(_EXAMPLES // max(len(found), 1), _PEAKS), 1)
    views = []
    for latent in found:
        shares: tuple[float, ...] = ()
        if latent.shares:
            shares = tuple(latent.shares[places[i]] if i in places else 0.0 for i in range(count))
        elif latent.id == colour:
            shares = tuple(_share_at(scan, places.get(i), colour) for i in range(count))
        views.append(replace(latent, examples=latent.examples[:most], shares=shares))
    return views


def _share_at(scan: Scan, at: int | None, address: str) -> float:
    return next((a.share for a in _fired(scan, at) if a.id == address), 0.0)
