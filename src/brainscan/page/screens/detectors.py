"""The detectors screen: what each concept's detector is worth, as it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from brainscan.page.service import Service
from brainscan.stats import Estimate
from brainscan.views import Html, Section, escape, facts, join, table
from brainscan.views.html import NONE

if TYPE_CHECKING:
    from brainscan.monitoring.scores import Detectors

NONE_YET = "There are no detectors for this model yet: run `brainscan calibrate`."

_RULE = ("statistic", "threshold", "kappa", "clip")
_NAMES = ("concept", "name", "title")


def cards_of(service: Service) -> Html:
    """The cards of all detectors.

    Args:
        service: the model, and its detectors.
    """
    detectors = service.detectors
    if detectors is None:
        return cards_view([])
    return join([cards_view(list(detectors.cards())), jumps_view(detectors)])


def cards_view(cards: Sequence[Any]) -> Html:
    """Detectors' cards.

    Args:
        cards: mappings or dataclasses of words and estimates.
    """
    if not cards:
        return Html(f'<p class="bs-none">{escape(NONE_YET)}</p>')
    return join(_card(dict(_items(card))) for card in cards)


def jumps_view(detectors: Detectors) -> Html:
    """The rule for jumps, and what it and simpler ones were measured to be worth.

    Args:
        detectors: the detectors.
    """
    rule, figures = detectors.rule, detectors.jump_figures
    if rule is None and not figures:
        return Html("")
    told = [] if rule is None else [(name, _said(getattr(rule, name))) for name in _RULE]
    danger = [detectors.names[n] for n in rule.danger] if rule is not None else []
    told += [("an alarm is for", ", ".join(danger))] if danger else []
    columns = tuple(dict.fromkeys(figure for own in figures.values() for figure in own))
    rows = [
        (name, *(str(own[figure]) if figure in own else NONE for figure in columns))
        for name, own in figures.items()
    ]
    heads = ("jumps by", *(figure.replace("_", " ") for figure in columns))
    body = table(heads, rows) if rows else Html("")
    return Html(
        '<article class="bs-card" aria-label="Jumps"><header><h3>Jumps</h3></header>'
        f"{facts(told)}{body}</article>"
    )


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
