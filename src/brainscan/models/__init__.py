"""Language models: loading them, reading and changing their activations, continuing text."""

from __future__ import annotations

from brainscan.models.hooks import Hook, Intervention, Site, capture, intervene, per_row
from brainscan.models.language_model import LanguageModel
from brainscan.models.loading import load

__all__ = [
    "Hook",
    "Intervention",
    "LanguageModel",
    "Site",
    "capture",
    "intervene",
    "load",
    "per_row",
]
