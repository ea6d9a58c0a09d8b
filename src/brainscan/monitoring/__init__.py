"""Monitoring: which concepts are active as a model reads and writes, and alarms for jumps."""

from __future__ import annotations

from brainscan.monitoring.bank import Concept, Text, concept_names, load_concept, load_concepts
from brainscan.monitoring.directions import concept_directions
from brainscan.monitoring.fitting import CalibrationConfig
from brainscan.monitoring.jumps import Alarm, JumpRule
from brainscan.monitoring.making import calibrate
from brainscan.monitoring.scores import Detector, Detectors
from brainscan.monitoring.storage import (
    detectors_folder,
    find_detectors,
    load_detectors,
    open_detectors,
)
from brainscan.monitoring.watch import Watch
from brainscan.monitoring.watched import Watched, watch_answer, watch_transcripts

__all__ = [
    "Alarm",
    "CalibrationConfig",
    "Concept",
    "Detector",
    "Detectors",
    "JumpRule",
    "Text",
    "Watch",
    "Watched",
    "calibrate",
    "concept_directions",
    "concept_names",
    "detectors_folder",
    "find_detectors",
    "load_concept",
    "load_concepts",
    "load_detectors",
    "open_detectors",
    "watch_answer",
    "watch_transcripts",
]
