"""What the steps of an audit found on their way, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brainscan import stats
from brainscan.attribution import Ranked
from brainscan.stats import Estimate, finite
from brainscan.views import ExampleView, ScoredTokenView


@dataclass(frozen=True)
class Behaviour:
    """How often harm was done in each cell of crossed factors, on one split."""

    split: str
    """Whose wordings."""
    factors: tuple[str, ...]
    """The crossed factors."""
    counts: Mapping[tuple[str, ...], tuple[int, int]]
    """How many of how many scored answers, by cell."""
    unscored: int
    """Answers that could not be scored."""
    target: tuple[str, ...]
    """The cell with the highest rate on discovery."""
    twins: tuple[tuple[str, ...], ...]
    """The cells that it is held against."""
    contrast: Estimate
    """The rate in the target less that in its twins."""

    def to_json(self) -> dict[str, Any]:
        """The behaviour as a JSON object."""
        return {
            "split": self.split,
            "unscored": self.unscored,
            "target": dict(zip(self.factors, self.target, strict=True)),
            "contrast": self.contrast.to_json(),
            "cells": [
                {
                    "factors": dict(zip(self.factors, cell, strict=True)),
                    "harmful": stats.proportion(*count).to_json(),
                }
                for cell, count in self.counts.items()
            ],
        }


@dataclass(frozen=True)
class Null:
    """A set of features among random ones that match it, on wordings that it was not chosen on."""

    of: str
    """The set."""
    own: float
    """How far it takes the decision towards harmless."""
    values: tuple[float, ...]
    """How far each of the random sets does."""

    @property
    def rank(self) -> int:
        """Its place among them, 1 for the farthest."""
        return 1 + sum(value >= self.own for value in self.values)

    @property
    def p(self) -> float:
        """How probable that place is if the set were one of them."""
        return self.rank / (len(self.values) + 1)

    def to_json(self) -> dict[str, Any]:
        """The null as a JSON object."""
        ordered = sorted(self.values)
        middle = ordered[len(ordered) // 2] if ordered else float("nan")
        return {
            "of": self.of,
            "n": len(self.values),
            "rank": self.rank,
            "p": self.p,
            "own": self.own,
            "median": finite(middle),
            "most": finite(max(ordered, default=float("nan"))),
        }


@dataclass(frozen=True)
class Explained:
    """How much of the decision's log-odds each part of the twin's activation restores."""

    dictionary: str
    """The dictionary, or the hookpoint of a layer's neurons."""
    whole: Estimate
    """The twin's activation put in whole."""
    code: Estimate | None = None
    """Only what the dictionary says of the difference; None for neurons, as in what follows."""
    error: Estimate | None = None
    """Only what it does not."""
    chosen: Estimate | None = None
    """Only the chosen set's part; None where no set of these was chosen."""
    rest: Estimate | None = None
    """Only the other features' part."""
    without_chosen: Estimate | None = None
    """All but the chosen set's part."""
    without_rest: Estimate | None = None
    """All but the other features' part; all but the error is the code."""
    cosine: float = float("nan")
    """Of the difference with what the dictionary says of it."""
    fvu: Estimate | None = None
    """Variance of the discovery transcripts' activations that the dictionary leaves unexplained."""

    def to_json(self) -> dict[str, Any]:
        """The shares as a JSON object."""
        return {
            "dictionary": self.dictionary,
            "whole": self.whole.to_json(),
            "code": self.code.to_json() if self.code else None,
            "error": self.error.to_json() if self.error else None,
            "chosen": self.chosen.to_json() if self.chosen else None,
            "rest": self.rest.to_json() if self.rest else None,
            "without_chosen": self.without_chosen.to_json() if self.without_chosen else None,
            "without_rest": self.without_rest.to_json() if self.without_rest else None,
            "cosine": finite(self.cosine),
            "fvu": self.fvu.to_json() if self.fvu else None,
        }


@dataclass(frozen=True)
class FeatureFound:
    """A feature of the chosen set."""

    ranked: Ranked
    """What the decision hangs on it."""
    label: str
    """A few words on when it fires."""
    grade: str
    """How well that was tested."""
    effect: Estimate
    """How far the decision goes towards harmless if it alone is moved."""
    firing_rate: float = float("nan")
    """The share of training text's tokens on which it fires; not a number for a neuron."""
    neutral_rate: Estimate | None = None
    """The share of neutral text's tokens; a neuron fires where it has the sign and half of the size
    that it has where harm is done."""
    maximum: float = float("nan")
    """Its largest activation in the discovery transcripts."""
    promoted: tuple[ScoredTokenView, ...] = ()
    """The output tokens that it promotes most."""
    examples: tuple[ExampleView, ...] = ()
    """Where it fires most in the discovery transcripts."""

    def to_json(self) -> dict[str, Any]:
        """The feature as a JSON object."""
        return {
            "id": self.ranked.address,
            "label": self.label,
            "grade": self.grade,
            "effect": self.effect.to_json(),
            "attribution": self.ranked.effect,
            "interaction": self.ranked.interaction,
            "harmful_mean": self.ranked.harmful,
            "harmless_mean": self.ranked.harmless,
            "firing_rate": finite(self.firing_rate),
            "neutral_rate": self.neutral_rate.to_json() if self.neutral_rate else None,
            "promoted": [token.text for token in self.promoted],
            "examples": [
                {"tokens": list(one.tokens), "peak": one.peak, "activation": one.activation}
                for one in self.examples
            ],
        }


@dataclass(frozen=True)
class Elsewhere:
    """What an edit moves at one place."""

    place: str
    """The scenario, and the levels of its factors."""
    untouched: Estimate
    """How often harm is done without the edit, unscored answers counted as harmful."""
    edited: Estimate
    """How often with it."""
    fell: Estimate
    """The first less the second, over wordings."""
    scored: Estimate
    """The share of answers that can be scored with the edit, less that without."""
    same: Estimate
    """The share of answers that are the same word for word."""

    def to_json(self) -> dict[str, Any]:
        """The place as a JSON object."""
        return {
            "place": self.place,
            "untouched": self.untouched.to_json(),
            "edited": self.edited.to_json(),
            "fell": self.fell.to_json(),
            "scored_change": self.scored.to_json(),
            "same": self.same.to_json(),
        }
