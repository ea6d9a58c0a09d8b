"""What an atlas gives out: feature cards and search hits, which show themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brainscan.views import (
    CardView,
    ExampleView,
    Html,
    Section,
    feature_card,
    fragment,
    page,
)


@dataclass(frozen=True)
class FeatureCard(CardView):
    """All that an atlas says of a latent; shows itself in a notebook."""

    def to_json(self) -> Mapping[str, Any]:
        """The card as a JSON object."""
        return {
            "id": self.id,
            "label": self.label,
            "grade": self.grade,
            "firing_rate": self.firing_rate,
            "maximum": self.maximum,
            "quantiles": {f"{fraction:g}": value for fraction, value in self.quantiles},
            "examples": [
                {"group": group.name, **example_json(example)}
                for group in self.groups
                for example in group.examples
            ],
            "promoted": [{"token": t.text, "value": t.value} for t in self.promoted],
            "suppressed": [{"token": t.text, "value": t.value} for t in self.suppressed],
            "neighbours": [
                {"id": n.id, "label": n.label, "cosine": n.cosine} for n in self.neighbours
            ],
        }

    def to_html(self) -> str:
        """A page of its own."""
        return page(self.id, [Section("", feature_card(self))])

    def _repr_html_(self) -> Html:
        return fragment(feature_card(self))


@dataclass(frozen=True)
class Hit:
    """A latent that a search found."""

    id: str
    """Its address."""
    label: str
    """A few words on when it fires."""
    score: float
    """How well it matches, from 0 to 1."""
    examples: tuple[ExampleView, ...]
    """Where it fired most."""

    def to_json(self) -> Mapping[str, Any]:
        """The hit as a JSON object."""
        return {
            "id": self.id,
            "label": self.label,
            "score": self.score,
            "examples": [example_json(example) for example in self.examples],
        }


def example_json(example: ExampleView) -> Mapping[str, Any]:
    """An example as a JSON object."""
    return {
        "text": "".join(example.tokens),
        "token": example.tokens[example.peak],
        "activation": example.activation,
        "tokens": list(example.tokens),
        "shares": [round(share, 3) for share in example.shares],
    }
