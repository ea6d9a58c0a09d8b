"""brainscan: see, test and change what a language model represents.

    import brainscan as bs

    lm = bs.load("smollm2-135m-instruct")
    bs.scan(lm, "In the beginning God created the heaven.")
    with lm.edit(bs.Clamp("resid_post.15/1234", 2.0)):
        print(lm.chat("Describe your day."))

Everything public is listed in ``__all__`` and loaded when first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainscan.auditing import audit, test_edit
    from brainscan.dictionaries import Address, Dictionary
    from brainscan.errors import BrainscanError
    from brainscan.features import Atlas
    from brainscan.features.scan import scan
    from brainscan.interventions import (
        Ablate,
        AblateSet,
        Add,
        Clamp,
        Direction,
        Probe,
        ProjectOut,
        Scale,
        Span,
        Swap,
        Where,
        measure_effects,
    )
    from brainscan.models import capture, intervene, load
    from brainscan.models.generate import Sampling, generate
    from brainscan.monitoring import Watch, calibrate, open_detectors, watch_transcripts

__version__ = "0.1.0"

__all__ = [
    "Ablate",
    "AblateSet",
    "Add",
    "Address",
    "Atlas",
    "BrainscanError",
    "Clamp",
    "Dictionary",
    "Direction",
    "Probe",
    "ProjectOut",
    "Sampling",
    "Scale",
    "Span",
    "Swap",
    "Watch",
    "Where",
    "__version__",
    "audit",
    "calibrate",
    "capture",
    "generate",
    "intervene",
    "load",
    "measure_effects",
    "open_detectors",
    "scan",
    "test_edit",
    "watch_transcripts",
]

_ROOMS = {
    "brainscan.auditing": ("audit", "test_edit"),
    "brainscan.dictionaries": ("Address", "Dictionary"),
    "brainscan.errors": ("BrainscanError",),
    "brainscan.features": ("Atlas",),
    "brainscan.features.scan": ("scan",),
    "brainscan.interventions": (
        "Ablate",
        "AblateSet",
        "Add",
        "Clamp",
        "Direction",
        "Probe",
        "ProjectOut",
        "Scale",
        "Span",
        "Swap",
        "Where",
        "measure_effects",
    ),
    "brainscan.models": ("capture", "intervene", "load"),
    "brainscan.models.generate": ("Sampling", "generate"),
    "brainscan.monitoring": ("Watch", "calibrate", "open_detectors", "watch_transcripts"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'brainscan' has no attribute {name!r}")
    return getattr(import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
