"""Interventions: edits of a running model as data, what they cost, and their controls."""

from brainscan.interventions.control import (
    Control,
    MatchedEdit,
    random_latent_control,
    sign_flipped,
)
from brainscan.interventions.edits import (
    Ablate,
    AblateSet,
    Add,
    Clamp,
    Edit,
    ProjectOut,
    Scale,
    Swap,
    targets_of,
    with_dictionary,
)
from brainscan.interventions.effects import Effects, measure_effects, measure_effects_many
from brainscan.interventions.parse import (
    format_edit,
    load_direction,
    load_probe,
    parse_edit,
    save_direction,
    save_probe,
)
from brainscan.interventions.positions import Positions, Probe, Span, Where
from brainscan.interventions.storage import load_edits, save_edits
from brainscan.interventions.targets import Direction
from brainscan.interventions.texts import Item, Passage, capability_items, neutral_passages

__all__ = [
    "Ablate",
    "AblateSet",
    "Add",
    "Clamp",
    "Control",
    "Direction",
    "Edit",
    "Effects",
    "Item",
    "MatchedEdit",
    "Passage",
    "Positions",
    "Probe",
    "ProjectOut",
    "Scale",
    "Span",
    "Swap",
    "Where",
    "capability_items",
    "format_edit",
    "load_direction",
    "load_edits",
    "load_probe",
    "measure_effects",
    "measure_effects_many",
    "neutral_passages",
    "parse_edit",
    "random_latent_control",
    "save_direction",
    "save_edits",
    "save_probe",
    "sign_flipped",
    "targets_of",
    "with_dictionary",
]
