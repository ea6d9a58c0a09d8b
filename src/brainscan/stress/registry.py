"""What Inspect finds of brainscan, through the entry point group ``inspect_ai``.

This module is imported in every run of Inspect, whatever the model, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

from brainscan.stress.tasks import stress

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI


__all__ = ["brainscan", "stress"]


@modelapi(name="brainscan")
def brainscan() -> type[ModelAPI]:
    """The provider of ``brainscan/NAME``."""
    from brainscan.stress.provider import BrainscanAPI

    return BrainscanAPI
