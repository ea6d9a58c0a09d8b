"""Finding the decision token: where harmful and harmless answers part.

1. A harmful answer is laid beside a harmless one to a twin prompt, and their tokens are aligned.
   Wherever they part after some tokens in common is a candidate: the tokens before it, the token
   that the harmful answer goes on with and the one that the harmless answer does. They may part
   at once, after the last tokens of the prompt.
2. At each candidate the log-odds of the two tokens are read after the harmful answer so far and
   after the harmless one so far. The model has decided there if the first are above 0 and the
   second below: each answer's own token is the more probable one, and neither was drawn by chance.
3. Where answers follow a form, the same candidate comes in most pairs. Of those that come in at
   least `_OFTEN` of the pairs, whichever factor was changed, and are decided in at least `_MOSTLY`
   of these, the earliest is the decision: what comes later follows from it, and what came before
   depends on which factor was changed.
4. Where no candidate comes so often, each pair has a decision of its own: the earliest candidate
   that is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from statistics import fmean, mode
from typing import NamedTuple

import torch

from brainscan import stats
from brainscan.attribution.contexts import Context, log_odds
from brainscan.errors import UsageError
from brainscan.interventions.batches import by_length, logits_at, padded
from brainscan.models import LanguageModel
from brainscan.shapes import Float, Tensor
from brainscan.stats import Estimate

_OFTEN, _MOSTLY = 0.5, 0.7
_BEFORE = 3
_ROWS_AT_ONCE = 16
_CANDIDATES = 12  # of a pair: answers that share little part everywhere


class Answer(NamedTuple):
    """A prompt and what a model answered, in tokens; the rest as in `Context`."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    unit: str = ""
    cell: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """The answer, with the last tokens of the prompt before it."""
        return (*self.prompt[-_BEFORE:], *self.response)


@dataclass(frozen=True)
class Pair:
    """A harmful answer and a harmless one to its twin."""

    harmful: Answer
    """The harmful answer."""
    harmless: Answer
    """The harmless one."""
    changed: str = ""
    """The factor in which the prompts differ."""


class Parting(NamedTuple):
    """A place where two answers part."""

    before: tuple[int, ...]
    harmful: int
    harmless: int


class Placed(NamedTuple):
    """A parting, and where it is in each of the two answers."""

    parting: Parting
    in_harmful: int
    in_harmless: int


class _Odds(NamedTuple):
    """The log-odds of a parting's two tokens."""

    after_harmful: float
    after_harmless: float

    @property
    def decided(self) -> bool:
        """Whether each answer's own token is the more probable one."""
        return self.after_harmful > 0 > self.after_harmless


@dataclass(frozen=True)
class Decision:
    """Where a model decides."""

    before: tuple[int, ...]
    """The tokens before it; none where each pair has its own decision."""
    nth: int
    """How often these stand in an answer before they stand there."""
    harmful: tuple[int, ...]
    """Tokens that begin a harmful continuation."""
    harmless: tuple[int, ...]
    """Tokens that begin a harmless one."""
    found: Estimate
    """The share of pairs that part there."""
    separation: Estimate
    """The log-odds after harmful answers less those after harmless ones."""
    pairs: tuple[tuple[Context, Context], ...]
    """The pairs up to there: the harmful context and the harmless one."""

    @property
    def shared(self) -> bool:
        """Whether it is the same place in all pairs."""
        return bool(self.before)


def find_decision(lm: LanguageModel, pairs: Sequence[Pair]) -> Decision:
    """Where harmful and harmless answers part.

    Args:
        lm: the model, without edits.
        pairs: answers to twins.

    Raises:
        UsageError: there are no pairs, or no two answers have a beginning in common.
    """
    placed = [partings(pair.harmful, pair.harmless) for pair in pairs]
    if not any(placed):
        raise UsageError(
            "harmful and harmless answers that have tokens in common before they part",
            f"{len(pairs)} pairs, none of which has",
            "run more conditions, or a test whose answers follow a form",
        )
    apart = _log_odds(lm, pairs, placed)
    chosen = _common(pairs, placed, apart)
    if chosen is not None:
        return _decision(pairs, placed, apart, chosen)
    own = [_own(found, values) for found, values in zip(placed, apart, strict=True)]
    kept = [(pair, one) for pair, one in zip(pairs, own, strict=True) if one is not None]
    return Decision(
        before=(),
        nth=0,
        harmful=(),
        harmless=(),
        found=stats.proportion(len(kept), len(pairs)),
        separation=_separation([odds for _, (_, odds) in kept], [p.harmful.unit for p, _ in kept]),
        pairs=tuple(_contexts(pair, place) for pair, (place, _) in kept),
    )


def decision_contexts(decision: Decision, answers: Sequence[Answer]) -> list[Context]:
    """The contexts of answers that come to a decision which is the same place in all.

    Args:
        decision: the decision.
        answers: answers, some of which may never come to it.
    """
    found = []
    for answer in answers:
        place = place_of(decision.before, answer, decision.nth)
        if place is not None:
            context = _context(answer, place, Parting(decision.before, 0, 0))
            found.append(replace(context, harmful=decision.harmful, harmless=decision.harmless))
    return found


def place_of(before: Sequence[int], answer: Answer, nth: int = 0) -> int | None:
    """Where in an answer the decision is, if it comes to it: the place after these tokens.

    Args:
        before: the tokens.
        answer: the answer; the tokens may be the last of its prompt.
        nth: how often they stand there before.
    """
    n, tokens = len(before), answer.read
    ends = [end for end in range(n, len(tokens) + 1) if tokens[end - n : end] == tuple(before)]
    return ends[nth] - len(tokens) + len(answer.response) if len(ends) > nth else None


def partings(harmful: Answer, harmless: Answer) -> list[Placed]:
    """Where two answers part, after tokens that they have in common.

    Args:
        harmful: the harmful answer.
        harmless: the harmless one.
    """
    a, b = harmful.read, harmless.read
    before_a, before_b = len(a) - len(harmful.response), len(b) - len(harmless.response)
    found: dict[Parting, Placed] = {}
    for kind, i, _, j, _ in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal" or not before_a <= i < len(a) or not before_b <= j < len(b):
            continue
        before = a[i - _BEFORE : i]
        if len(before) == _BEFORE and before == b[j - _BEFORE : j] and a[i] != b[j]:
            parting = Parting(before, a[i], b[j])
            found.setdefault(parting, Placed(parting, i - before_a, j - before_b))
    return list(found.values())[:_CANDIDATES]


def _log_odds(
    lm: LanguageModel, pairs: Sequence[Pair], placed: Sequence[Sequence[Placed]]
) -> list[list[_Odds]]:
    """At each candidate of each pair the log-odds after the harmful answer, and the harmless."""
    rows: list[Context] = []
    for pair, found in zip(pairs, placed, strict=True):
        for one in found:
            rows += _contexts(pair, one)
    values = iter(_read(lm, rows))
    return [[_Odds(next(values), next(values)) for _ in found] for found in placed]


def _read(lm: LanguageModel, contexts: Sequence[Context]) -> list[float]:
    """The log-odds of contexts, of which those that begin another share its pass."""
    longest: dict[tuple[int, ...], list[int]] = {}
    for number in sorted(range(len(contexts)), key=lambda n: -len(contexts[n].tokens)):
        tokens = contexts[number].tokens
        host = next((row for row in longest if row[: len(tokens)] == tokens), tokens)
        longest.setdefault(host, []).append(number)
    hosts = list(longest)
    found = [0.0] * len(contexts)
    for group in by_length(lm, [len(row) for row in hosts], _ROWS_AT_ONCE):
        batch = padded([hosts[index] for index in group], lm.device)
        kept = torch.zeros_like(batch.mask, dtype=torch.bool)
        for slot, index in enumerate(group):
            kept[slot, [len(contexts[n].tokens) - 1 for n in longest[hosts[index]]]] = True
        order = [
            sorted(longest[hosts[index]], key=lambda n: len(contexts[n].tokens)) for index in group
        ]
        logits = _spread(logits_at(lm, batch, kept), order, contexts)
        numbers = [n for numbers in order for n in numbers]
        odds = log_odds(logits, [contexts[n] for n in numbers])
        for number, value in zip(numbers, odds.tolist(), strict=True):
            found[number] = value
    return found


def _spread(
    logits: Float[Tensor, "kept vocab"],
    order: Sequence[Sequence[int]],
    contexts: Sequence[Context],
) -> Float[Tensor, "context vocab"]:
    """A row for each context; several contexts may end at the same token."""
    rows, at = [], -1
    for numbers in order:
        last = -1
        for number in numbers:
            length = len(contexts[number].tokens)
            at += length != last
            last = length
            rows.append(at)
    return logits[rows]


def _common(
    pairs: Sequence[Pair], placed: Sequence[Sequence[Placed]], apart: Sequence[Sequence[_Odds]]
) -> Parting | None:
    """The parting that comes in most pairs, whichever factor was changed; None if there is none."""
    values: dict[Parting, list[_Odds]] = {}
    places: dict[Parting, list[int]] = {}
    met: dict[Parting, dict[str, int]] = {}
    for pair, found, own in zip(pairs, placed, apart, strict=True):
        for one, value in zip(found, own, strict=True):
            values.setdefault(one.parting, []).append(value)
            places.setdefault(one.parting, []).append(one.in_harmful)
            by_factor = met.setdefault(one.parting, {})
            by_factor[pair.changed] = by_factor.get(pair.changed, 0) + 1
    totals: dict[str, int] = {}
    for pair in pairs:
        totals[pair.changed] = totals.get(pair.changed, 0) + 1
    often = [
        parting
        for parting, by_factor in met.items()
        if all(by_factor.get(factor, 0) >= _OFTEN * n for factor, n in totals.items())
    ]
    good = [
        parting for parting in often if fmean(odds.decided for odds in values[parting]) >= _MOSTLY
    ]
    return min(good, key=lambda parting: fmean(places[parting]), default=None)


def _own(found: Sequence[Placed], apart: Sequence[_Odds]) -> tuple[Placed, _Odds] | None:
    """A pair's own decision: the earliest place that is decided."""
    return next((both for both in zip(found, apart, strict=True) if both[1].decided), None)


def _separation(odds: Sequence[_Odds], units: Sequence[str]) -> Estimate:
    if not odds:
        return Estimate(math.nan, math.nan, math.nan, 0, "none")
    return stats.mean([one.after_harmful - one.after_harmless for one in odds], units)


def _decision(
    pairs: Sequence[Pair],
    placed: Sequence[Sequence[Placed]],
    apart: Sequence[Sequence[_Odds]],
    chosen: Parting,
) -> Decision:
    contexts, values, units, earlier = [], [], [], []
    for pair, found, own in zip(pairs, placed, apart, strict=True):
        for one, value in zip(found, own, strict=True):
            if one.parting == chosen:
                contexts.append(_contexts(pair, one))
                values.append(value)
                units.append(pair.harmful.unit)
                until = pair.harmful._replace(response=pair.harmful.response[: one.in_harmful])
                earlier.append(_count(chosen.before, until.read) - 1)
    return Decision(
        before=chosen.before,
        nth=mode(earlier),
        harmful=(chosen.harmful,),
        harmless=(chosen.harmless,),
        found=stats.proportion(len(contexts), len(pairs)),
        separation=_separation(values, units),
        pairs=tuple(contexts),
    )


def _count(tokens: tuple[int, ...], row: tuple[int, ...]) -> int:
    """How often some tokens stand in a row."""
    n = len(tokens)
    return sum(row[end - n : end] == tokens for end in range(n, len(row) + 1))


def _contexts(pair: Pair, placed: Placed) -> tuple[Context, Context]:
    return (
        _context(pair.harmful, placed.in_harmful, placed.parting),
        _context(pair.harmless, placed.in_harmless, placed.parting),
    )


def _context(answer: Answer, place: int, parting: Parting) -> Context:
    return Context(
        tokens=(*answer.prompt, *answer.response[:place]),
        prompt_length=len(answer.prompt),
        harmful=(parting.harmful,),
        harmless=(parting.harmless,),
        unit=answer.unit,
        cell=answer.cell,
    )
