"""The detectors screen: what each concept's detector is worth, as it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from brainscan.page.service import Service
from brainscan.stats import Estimate
from brainscan.views import Html, Section, escape, facts, join, table

NONE_YET = "There are no detectors for this model yet: run `brainscan calibrate`."

_NAMES = ("concept", "name", "title")


def cards_of(service: Service) -> Html:
    """The cards of all detectors.

    Args:
        service: the model, and its detectors.
    """
    detectors = service.detectors
    return cards_view([] if detectors is None else list(detectors.cards()))


def cards_view(cards: Sequence[Any]) -> Html:
    """Detectors' cards.

    Args:
        cards: mappings or dataclasses of words and estimates.
    """
    if not cards:
        return Html(f'<p class="bs-none">{escape(NONE_YET)}</p>')
    return join(_card(dict(_items(card))) for card in cards)


def sections_of(service: Service) -> list[Section]:
    """The same for an export.

    Args:
        service: the model, and its detectors.
    """
    return [Section("Detectors", cards_of(service))]


def _items(card: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of a card, whatever it is made of; what is nested stands in one row."""
    if is_dataclass(card) and not isinstance(card, type):
        pairs: Any = [(item.name, getattr(card, item.name)) for item in fields(card)]
    else:
        pairs = card.items()
    for name, value in pairs:
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield str(name), value


def _card(card: Mapping[str, Any]) -> Html:
    figures = [(name, str(value)) for name, value in card.items() if isinstance(value, Estimate)]
    others = [
        (name.replace("_", " "), _said(value))
        for name, value in card.items()
        if name not in _NAMES and isinstance(value, (str, int, float)) and value != ""
    ]
    name = str(card.get("concept") or card.get("name", ""))
    title = str(card.get("title") or name)
    body = table(("figure", "value"), figures) if figures else Html("")
    return Html(
        f'<article class="bs-card" aria-label="{escape(title)}"><header><h3>{escape(title)}</h3>'
        f'<code class="bs-address">{escape(name)}</code></header>{facts(others)}{body}</article>'
    )


def _said(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
