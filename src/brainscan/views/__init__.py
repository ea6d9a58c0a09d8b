"""HTML and plots from plain data: token strip, feature card, rates, transcripts, and their page.

Each view takes frozen dataclasses of text and numbers and returns :class:`Html`; :func:`page` puts
them into one self-contained file, :func:`fragment` into a notebook's cell.
"""

from __future__ import annotations

from brainscan.views.data import (
    ActivationView,
    CardView,
    CurveView,
    ExampleGroupView,
    ExampleView,
    GenerationView,
    HeatCellView,
    HeatMapView,
    LatentView,
    NeighbourView,
    RateView,
    ScoredTokenView,
    Section,
    StretchView,
    TokenView,
    TranscriptView,
)
from brainscan.views.feature_card import feature_card
from brainscan.views.generations import side_by_side
from brainscan.views.heat_map import heat_map
from brainscan.views.html import Html, escape, join
from brainscan.views.page import fragment, page
from brainscan.views.plots import strength_response_plot
from brainscan.views.rates import facts, rates, table
from brainscan.views.token_strip import token_strip
from brainscan.views.transcripts import transcripts

__all__ = [
    "ActivationView",
    "CardView",
    "CurveView",
    "ExampleGroupView",
    "ExampleView",
    "GenerationView",
    "HeatCellView",
    "HeatMapView",
    "Html",
    "LatentView",
    "NeighbourView",
    "RateView",
    "ScoredTokenView",
    "Section",
    "StretchView",
    "TokenView",
    "TranscriptView",
    "escape",
    "facts",
    "feature_card",
    "fragment",
    "heat_map",
    "join",
    "page",
    "rates",
    "side_by_side",
    "strength_response_plot",
    "table",
    "token_strip",
    "transcripts",
]
