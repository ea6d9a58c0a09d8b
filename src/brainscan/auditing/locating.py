"""Where the audited model decides, which dictionary is there, and what arms are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from brainscan.attribution import (
    Context,
    Decision,
    Location,
    Pair,
    decision_contexts,
    find_decision,
    locate,
)
from brainscan.attribution.location import residuals
from brainscan.auditing.measure import Measured
from brainscan.auditing.room import Room
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.base import shipped_dictionaries
from brainscan.errors import UsageError
from brainscan.models.loading import split_name
from brainscan.stats import Estimate

_PAIRS = 16
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Located:
    """Where the model decides."""

    decision: Decision
    """The token."""
    words: tuple[str, str, str]
    """The tokens before it, the harmful and the harmless continuation, in text."""
    location: Location
    """The share of the decision that residuals restore, by layer and token."""
    hookpoint: str
    """Where arms edit."""
    dictionary: Dictionary | None
    """A dictionary there, if there is one."""


def find_place(room: Room, discovery: Measured, dictionary: Dictionary | None) -> Located | None:
    """Finds the decision's token and layer on discovery wordings; None where there is no such.

    Args:
        room: the audit.
        discovery: its answers.
        dictionary: the dictionary to use; a shipped one when left out.
    """
    try:
        decision = find_decision(room.lm, _of_each_factor(discovery.pairs(), _PAIRS))
    except UsageError as error:
        room.tell(str(error))
        return None
    if not decision.pairs:
        return None
    words = words_of(room, decision)
    room.tell(f"it decides after {words[0]!r}: {words[1]!r} or {words[2]!r}")
    location = _location(room, decision.pairs[: room.config.pairs])
    found = dictionary or _nearest(room, location)
    hookpoint = found.hookpoint if found else location.hookpoints[location.settled]
    room.tell(f"settled at {location.hookpoints[location.settled]}; arms edit {hookpoint}")
    if found is None:
        train = f"brainscan dictionary train --model {room.lm.name} --at {hookpoint} --out D"
        room.tell(f"no dictionary is shipped: neurons and directions alone; for latents, `{train}`")
    return Located(decision, words, location, hookpoint, found)


def contexts_of(room: Room, decision: Decision, measured: Measured) -> list[Context]:
    """The contexts of a split's answers at the decision.

    Args:
        room: the audit.
        decision: where the model decides.
        measured: the split's answers.
    """
    if decision.shared:
        return decision_contexts(decision, measured.as_answers())
    return list(dict.fromkeys(one for pair in pairs_of(room, decision, measured) for one in pair))


def pairs_of(room: Room, decision: Decision, measured: Measured) -> list[tuple[Context, Context]]:
    """Harmful contexts of a split beside those of their twins.

    Args:
        room: the audit.
        decision: where the model decides.
        measured: the split's answers.
    """
    pairs = measured.pairs()
    if not decision.shared:
        try:
            return list(find_decision(room.lm, pairs).pairs)
        except UsageError:
            return []
    both = [decision_contexts(decision, [pair.harmful, pair.harmless]) for pair in pairs]
    return [(one[0], one[1]) for one in both if len(one) == 2]


def words_of(room: Room, decision: Decision) -> tuple[str, str, str]:
    """The decision's tokens in text.

    Args:
        room: the audit.
        decision: the decision.
    """
    if decision.shared:
        parts = (decision.before, decision.harmful, decision.harmless)
    else:
        first = decision.pairs[0][0]
        parts = (first.tokens[-3:], first.harmful, first.harmless)
    before, harmful, harmless = (room.lm.decode(part) for part in parts)
    return before, harmful, harmless


def _of_each_factor(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """At most so many pairs, in turns of each factor that was changed."""
    by_factor: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_factor.setdefault(pair.changed, []).append(pair)
    each = [spread(own, -(-n // len(by_factor))) for own in by_factor.values()]
    turns = zip_longest(*each)
    return [pair for turn in turns for pair in turn if pair is not None][:n]


def spread(items: Sequence[_Item], n: int) -> list[_Item]:
    """At most so many items, evenly from all of them.

    Args:
        items: the items.
        n: how many.
    """
    if len(items) <= n:
        return list(items)
    return [items[number * len(items) // n] for number in range(n)]


def _location(room: Room, pairs: Sequence[tuple[Context, Context]]) -> Location:
    def measure() -> dict[str, object]:
        hookpoints = residuals(room.lm, room.config.layers)
        found = locate(room.lm, pairs, hookpoints, prompt=room.config.prompt)
        return {
            "hookpoints": found.hookpoints,
            "columns": found.columns,
            "restored": [[cell.to_json() for cell in row] for row in found.restored],
        }

    kept = room.kept("location", measure)
    return Location(
        tuple(kept["hookpoints"]),
        tuple(kept["columns"]),
        tuple(tuple(map(Estimate.from_json, row)) for row in kept["restored"]),
    )


def _nearest(room: Room, location: Location) -> Dictionary | None:
    """The shipped dictionary of the first layer from where it is settled on, or the last one."""
    owner = split_name(room.lm.name)[0]
    layers = sorted(
        int(name.rpartition(".")[2])
        for name in shipped_dictionaries()
        if name.startswith(f"{owner}/resid_post.")
    )
    if not layers:
        return None
    settled = int(location.hookpoints[location.settled].rpartition(".")[2])
    layer = next((one for one in layers if one >= settled), layers[-1])
    return Dictionary.for_model(room.lm, f"resid_post.{layer}")
