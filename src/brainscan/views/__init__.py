"""HTML and plots from plain data: a view per module, and the page that they stand on.

Each view takes frozen dataclasses of text and numbers and returns :class:`Html`; :func:`page` puts
them into one self-contained file, :func:`fragment` into a notebook's cell.
"""

from __future__ import annotations

from brainscan.views.arms import arms_against_cost
from brainscan.views.comparison import before_and_after
from brainscan.views.data import (
    ActivationView,
    ArmView,
    CardView,
    ComparisonView,
    CurveView,
    ExampleGroupView,
    ExampleView,
    GenerationView,
    HeatCellView,
    HeatMapView,
    LatentView,
    LocationView,
    NeighbourView,
    RateView,
    ScoredTokenView,
    Section,
    StretchView,
    TokenView,
    TranscriptView,
    VerdictView,
)
from brainscan.views.feature_card import feature_card
from brainscan.views.generations import side_by_side
from brainscan.views.heat_map import heat_map
from brainscan.views.html import Html, escape, join
from brainscan.views.location_map import location_map
from brainscan.views.null_plot import null_plot
from brainscan.views.page import fragment, page
from brainscan.views.plots import strength_response_plot
from brainscan.views.rates import facts, rates, table
from brainscan.views.token_strip import STRONGEST, token_strip
from brainscan.views.transcripts import transcripts
from brainscan.views.verdicts import verdicts

__all__ = [
    "STRONGEST",
    "ActivationView",
    "ArmView",
    "CardView",
    "ComparisonView",
    "CurveView",
    "ExampleGroupView",
    "ExampleView",
    "GenerationView",
    "HeatCellView",
    "HeatMapView",
    "Html",
    "LatentView",
    "LocationView",
    "NeighbourView",
    "RateView",
    "ScoredTokenView",
    "Section",
    "StretchView",
    "TokenView",
    "TranscriptView",
    "VerdictView",
    "arms_against_cost",
    "before_and_after",
    "escape",
    "facts",
    "feature_card",
    "fragment",
    "heat_map",
    "join",
    "location_map",
    "null_plot",
    "page",
    "rates",
    "side_by_side",
    "strength_response_plot",
    "table",
    "token_strip",
    "transcripts",
    "verdicts",
]
