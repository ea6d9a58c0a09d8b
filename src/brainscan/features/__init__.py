"""Features: atlases of described latents, search in them, and scans of text."""

from __future__ import annotations

from brainscan.features.atlas import Atlas
from brainscan.features.card import FeatureCard, Hit
from brainscan.features.index import AtlasConfig, build_atlas
from brainscan.features.scan import Scan, scan

__all__ = ["Atlas", "AtlasConfig", "FeatureCard", "Hit", "Scan", "build_atlas", "scan"]
