"""What all steps of an audit have at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from brainscan.auditing.answers import Answered
from brainscan.auditing.config import AuditConfig
from brainscan.auditing.design import Design
from brainscan.auditing.kept import Kept
from brainscan.models import LanguageModel

Tell: TypeAlias = Callable[[str], None]
"""Called with a line whenever there is something to say."""


@dataclass(frozen=True)
class Room:
    """What all steps of an audit have at hand."""

    lm: LanguageModel
    """The model."""
    design: Design
    """The prompts."""
    config: AuditConfig
    """How thorough it is."""
    folder: Path
    """Where it keeps what it measured."""
    out: Path
    """Where that will be when it is done."""
    kept: Kept
    """Figures that were measured already."""
    tell: Tell
    """Says what is going on."""
    recorded: Mapping[str, tuple[Answered, ...]] = field(default_factory=dict)
    """Answers of runs that were made already, by split; they stand for those of the first steps."""
