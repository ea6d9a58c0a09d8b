"""The chosen set's features for people: what each does alone, where it fires, what it promotes.

1. Examples are of the discovery transcripts, on which added latents were trained; the share of
   neutral text on which a latent fires says whether it means anything elsewhere. Nobody has tested
   the words.
2. A neuron is never quite silent, and says one thing when it is above zero and another below. So it
   is taken with the sign that it has where harm is done: it fires where it has that sign and at
   least half of that size, and what it promotes is that of its output with that sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from brainscan import stats
from brainscan.attribution import Decision, Ranked
from brainscan.attribution.decision import place_of
from brainscan.auditing.answers import Answered
from brainscan.auditing.arms import feature_sets
from brainscan.auditing.findings import FeatureFound
from brainscan.auditing.measure import answer_of
from brainscan.auditing.results import FrozenArm
from brainscan.auditing.room import Room
from brainscan.auditing.screen import Screened
from brainscan.auditing.trying import Tried
from brainscan.dictionaries import Address
from brainscan.dictionaries.extension import SHARED
from brainscan.dictionaries.transcripts import (
    Transcript,
    TranscriptActivations,
    read_transcripts,
)
from brainscan.features.label import promotes
from brainscan.features.outputs import has_outputs, neuron_rows, written
from brainscan.interventions import neutral_passages
from brainscan.interventions.texts import passage_tokens
from brainscan.models import capture
from brainscan.shapes import Float, Tensor
from brainscan.stats import Estimate
from brainscan.views import ActivationView, ExampleView, ScoredTokenView, TokenView

_SHOWN = 12
_PROMOTED = 5
_EXAMPLES = 3
_BEFORE, _AFTER = 10, 4
_AT_ONCE = 4096
_NEURON_TOKENS = 6000  # a wide hookpoint, and read for the examples alone
_STRIP_BEFORE, _STRIP_AFTER = 24, 12


def features_of(room: Room, tried: Tried) -> list[FeatureFound]:
    """The chosen set's features, those that matter most first.

    Args:
        room: the audit.
        tried: what was ranked and screened.
    """
    chosen = tried.features
    if chosen is None:
        return []
    kind = chosen.candidate.kind
    first = tried.ranked[kind][: min(chosen.candidate.size, _SHOWN)]
    known = _known(room, tried, kind, first)
    return [
        FeatureFound(
            ranked=one,
            label=promotes([token.text for token in told.promoted]),
            grade="U",
            effect=_alone(room, tried, chosen, one),
            firing_rate=told.firing_rate,
            neutral_rate=told.neutral_rate,
            maximum=told.maximum,
            promoted=told.promoted,
            examples=told.examples,
        )
        for one in first
        for told in [known[one.address]]
    ]


def strip_of(
    room: Room, tried: Tried, decision: Decision, untouched: FrozenArm
) -> tuple[TokenView, ...]:
    """The chosen latents on the tokens about the decision, in the first harmful answer.

    Args:
        room: the audit.
        tried: what was ranked and screened.
        decision: where answers part.
        untouched: the answers without edits.
    """
    chosen = tried.features
    if chosen is None or not decision.shared:
        return ()
    for answer in (one for one in untouched.answers if one.counts):
        place = place_of(decision.before, answer_of(answer), decision.nth)
        if place is not None:
            kind = chosen.candidate.kind
            first = tried.ranked[kind][: min(chosen.candidate.size, _SHOWN)]
            return _strip(room, _features(room, tried, kind, first), answer, place)
    return ()


@dataclass(frozen=True)
class _Known:
    """What is told of a feature."""

    firing_rate: float
    neutral_rate: Estimate
    maximum: float
    promoted: tuple[ScoredTokenView, ...]
    examples: tuple[ExampleView, ...]


@dataclass(frozen=True)
class _Features:
    """Some latents of a dictionary, or some neurons with their signs."""

    hookpoint: str
    """Where they are read."""
    addresses: tuple[str, ...]
    """Their addresses."""
    read: Callable[[Float[Tensor, "token d"]], Float[Tensor, "token chosen"]]
    """How strongly each fires, from activations there; 0 where it does not."""
    rows: Float[Tensor, "chosen d_model"] | None
    """What each adds to the residual stream per unit; None where they write elsewhere."""
    firing_rates: tuple[float, ...]
    """The share of training text on which each fires; not a number for neurons."""


def _alone(room: Room, tried: Tried, chosen: Screened, ranked: Ranked) -> Estimate:
    """How far the decision goes towards harmless if one feature alone is moved."""
    own = chosen.candidate
    kind, where = own.kind, own.where
    dictionary, trial = tried.dictionaries.get(kind), tried.trials[kind]
    sets = feature_sets(trial.material, [ranked], dictionary, kind, [1], own.ablated)
    alone = next(one for one in sets if (one.where, one.ablated) == (where, own.ablated))
    key = f"share of {ranked.address} alone, {where} x{chosen.strength:g}"
    return room.kept.estimate(key, lambda: trial.bench.shares(where, alone.at(chosen.strength))[0])


def _features(room: Room, tried: Tried, kind: str, ranked: Sequence[Ranked]) -> _Features:
    """The features as they are read."""
    addresses = tuple(one.address for one in ranked)
    found = [Address.parse(one) for one in addresses]
    index, hookpoint = [one.index for one in found], found[0].hookpoint
    dictionary = tried.dictionaries.get(kind)
    if dictionary is None:
        level = torch.tensor([one.harmful for one in ranked], device=room.lm.device)
        rows = neuron_rows(room.lm, hookpoint, index) * level.sign()[:, None]
        rates = (float("nan"),) * len(index)
        return _Features(hookpoint, addresses, partial(_signed, index, level), rows, rates)
    rates = tuple(dictionary.firing_rate[index].tolist())
    written_to = dictionary.W_dec[index] if has_outputs(room.lm, dictionary) else None
    read = partial(dictionary.activations_of, latents=index)
    return _Features(hookpoint, addresses, read, written_to, rates)


def _signed(
    index: Sequence[int], level: Float[Tensor, " chosen"], x: Float[Tensor, "token d"]
) -> Float[Tensor, "token chosen"]:
    """Neurons with the sign of a level, where they reach half of it."""
    own = x[:, list(index)] * level.sign()
    return own * (own >= level.abs() / 2)


def _known(room: Room, tried: Tried, kind: str, ranked: Sequence[Ranked]) -> Mapping[str, _Known]:
    """What is told of each feature, by its address."""
    features, sample = _features(room, tried, kind, ranked), tried.sample
    if kind not in tried.dictionaries:  # neurons are read elsewhere
        sample = read_transcripts(room.lm, tried.transcripts, features.hookpoint, _NEURON_TOKENS)
    on_sample = _activations(features, sample.activations)
    neutral = _neutral(room, features.hookpoint)
    # Tokens that passages share are of none of them.
    own = neutral.transcripts != SHARED
    fires = _activations(features, neutral.activations)[own] > 0
    owners = neutral.transcripts[own].tolist()
    promoted = _promoted(room, features)
    return {
        address: _Known(
            firing_rate=features.firing_rates[n],
            neutral_rate=stats.mean(fires[:, n].double(), owners),
            maximum=float(on_sample[:, n].max()),
            promoted=promoted[n],
            examples=tuple(_examples(room, on_sample[:, n], sample)),
        )
        for n, address in enumerate(features.addresses)
    }


def _promoted(room: Room, features: _Features) -> list[tuple[ScoredTokenView, ...]]:
    """The output tokens that each feature promotes most; none where it writes elsewhere."""
    if features.rows is None:
        return [()] * len(features.addresses)
    found = written(room.lm, features.rows, _PROMOTED)
    return [
        tuple(map(ScoredTokenView, room.lm.token_strings(ids), values))
        for ids, values in zip(found.promoted.tolist(), found.promoted_values.tolist(), strict=True)
    ]


def _neutral(room: Room, hookpoint: str) -> TranscriptActivations:
    passages = neutral_passages(room.config.cost_passages)
    rows = [Transcript(str(n), passage_tokens(room.lm, one).ids) for n, one in enumerate(passages)]
    return read_transcripts(room.lm, rows, hookpoint, sum(len(one.tokens) for one in rows))


@torch.no_grad()
def _activations(features: _Features, x: Float[Tensor, "token d"]) -> Float[Tensor, "token chosen"]:
    parts = [features.read(part.float()) for part in x.split(_AT_ONCE)]
    return torch.cat(parts).float().cpu()


def _examples(
    room: Room, values: Float[Tensor, " token"], sample: TranscriptActivations
) -> list[ExampleView]:
    """Where a latent fires most, in different words."""
    most = float(values.max())
    found: dict[tuple[str, ...], ExampleView] = {}
    for place in values.argsort(descending=True).tolist():
        if len(found) == _EXAMPLES or not values[place] > 0:
            break
        near = range(max(place - _BEFORE, 0), min(place + _AFTER + 1, len(values)))
        own = [n for n in near if sample.transcripts[n] == sample.transcripts[place]]
        words = tuple(room.lm.token_strings(sample.tokens[own].tolist()))
        if words not in found:
            shares = tuple((values[own] / most).tolist())
            found[words] = ExampleView(words, shares, own.index(place), float(values[place]))
    return list(found.values())


@torch.no_grad()
def _strip(room: Room, features: _Features, answer: Answered, place: int) -> tuple[TokenView, ...]:
    ids = [*answer.prompt, *answer.response]
    at = len(answer.prompt) + place
    with capture(room.lm, [features.hookpoint], stop=True) as seen:
        room.lm.forward(torch.tensor([ids], device=room.lm.device))
    first, last = max(at - _STRIP_BEFORE, 0), min(at + _STRIP_AFTER, len(ids))
    values = _activations(features, seen[features.hookpoint][0, first:last])
    most = values.max(0).values.clamp_min(1e-9)
    return tuple(
        TokenView(text, first + n, tuple(_active(features.addresses, values[n], most)))
        for n, text in enumerate(room.lm.token_strings(ids[first:last]))
    )


def _active(
    addresses: Sequence[str], values: Float[Tensor, " chosen"], most: Float[Tensor, " chosen"]
) -> list[ActivationView]:
    """The latents that fire on a token, strongest first."""
    rows = [
        ActivationView(name, float(value), float(value / top))
        for name, value, top in zip(addresses, values, most, strict=True)
        if value > 0
    ]
    return sorted(rows, key=lambda one: -one.share)
