"""Monitoring: which concepts are active as a model reads and writes."""

from __future__ import annotations

from brainscan.monitoring.bank import Concept, Text, concept_names, load_concept, load_concepts
from brainscan.monitoring.directions import concept_directions

__all__ = [
    "Concept",
    "Text",
    "concept_directions",
    "concept_names",
    "load_concept",
    "load_concepts",
]
