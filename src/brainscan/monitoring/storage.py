"""Detectors on disk: an artifact of kind "detectors".

`detectors.json` lists the detectors, the rule for jumps and the figures; the detectors' weights are
in `weights.safetensors`, by the concept's name.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from brainscan.artifacts import ModelRef, cache_dir, open_artifact, read_manifest
from brainscan.artifacts.manifest import MANIFEST
from brainscan.errors import ArtifactError, UsageError
from brainscan.models import LanguageModel
from brainscan.monitoring.jumps import JumpRule
from brainscan.monitoring.scores import Detector, Detectors
from brainscan.stats import Estimate

KIND = "detectors"

SHIPPED = Path(__file__).parent / "shipped"
"""Detectors that come with the package, a folder for each model."""

_FILE, _WEIGHTS = "detectors.json", "weights.safetensors"


def write_files(folder: Path, detectors: Detectors) -> None:
    """Writes detectors' files into an artifact's folder.

    Args:
        folder: the draft's folder.
        detectors: the detectors.
    """
    from safetensors.torch import save_file

    told = {
        "model": asdict(detectors.model),
        "dictionaries": dict(detectors.dictionaries),
        "rule": None if detectors.rule is None else asdict(detectors.rule),
        "detectors": [
            {f.name: getattr(one, f.name) for f in fields(Detector) if f.name != "weights"}
            for one in detectors.each
        ],
        "figures": _told(detectors.figures),
        "jump_figures": _told(detectors.jump_figures),
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    (folder / _FILE).write_text(text, encoding="utf-8")
    weights = {one.concept: torch.tensor(one.weights) for one in detectors.each}
    save_file(weights, folder / _WEIGHTS)


def read_files(folder: Path) -> Detectors:
    """Reads what `write_files` wrote.

    Args:
        folder: the folder.

    Raises:
        ArtifactError: it is of another version.
    """
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / _WEIGHTS)
        told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Detectors(
            model=ModelRef(**told["model"]),
            each=tuple(_detector(row, weights) for row in told["detectors"]),
            dictionaries=told["dictionaries"],
            rule=_rule(told["rule"]),
            figures=_read(told["figures"]),
            jump_figures=_read(told["jump_figures"]),
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtifactError(
            f"detectors in {folder}",
            f"{type(error).__name__}: {error}",
            "they were made by another version: run `brainscan calibrate` again",
        ) from error


def load_detectors(path: str | os.PathLike[str]) -> Detectors:
    """Reads detectors from an artifact.

    Args:
        path: the artifact's folder.

    Raises:
        ArtifactError: it is missing, truncated, altered, of another kind or of another version.
    """
    open_artifact(path, kind=KIND)
    return read_files(Path(path))


def detectors_folder(lm: LanguageModel) -> Path:
    """Where `calibrate` puts a model's detectors unless told otherwise.

    Args:
        lm: the model.
    """
    return cache_dir() / KIND / lm.ref.weights[:16]


def find_detectors(lm: LanguageModel) -> Detectors | None:
    """A model's detectors: those that were calibrated here, else those that come with the package.

    An adapter's model has the base model's if it has none of its own: they read it, but were not
    calibrated on it.

    Args:
        lm: the model.
    """
    if (own := detectors_folder(lm)).is_dir():
        return load_detectors(own)
    base = lm.name.partition("+")[0]
    for folder in sorted((cache_dir() / KIND).glob("*/")):
        if (folder / MANIFEST).is_file():
            ref = read_manifest(folder, KIND).model
            if ref is not None and ref.id == base:
                return load_detectors(folder)
    shipped = SHIPPED / base
    return load_detectors(shipped) if base in _shipped() else None


def _shipped() -> list[str]:
    """The models whose detectors come with the package."""
    return [folder.name for folder in SHIPPED.glob("*/")]


def open_detectors(lm: LanguageModel, path: str | os.PathLike[str] | None) -> Detectors:
    """The detectors of a folder, or a model's own.

    Args:
        lm: the model.
        path: the folder; None for the model's own.

    Raises:
        ArtifactError: there are none, or they are of a model of another shape.
    """
    found = find_detectors(lm) if path is None else load_detectors(path)
    if found is None:
        raise ArtifactError(
            f"detectors of {lm.name}", "none", f"run `brainscan calibrate --model {lm.name}`"
        )
    if found.model.weights != lm.ref.weights and found.model.id != lm.name.partition("+")[0]:
        warnings.warn(
            f"detectors of {found.model.id} read {lm.name}: their log-odds are not calibrated",
            stacklevel=2,
        )
    for one in found.each:
        try:
            width = sum(map(lm.width, one.reads))
        except UsageError as error:
            raise _other(lm, found) from error
        if not one.latents and len(one.weights) != width:
            raise _other(lm, found)
    return found


def _other(lm: LanguageModel, detectors: Detectors) -> ArtifactError:
    return ArtifactError(
        f"detectors of {lm.name}",
        f"detectors of {detectors.model.id}, of another shape",
        f"run `brainscan calibrate --model {lm.name}`",
    )


def _detector(row: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Detector:
    return Detector(
        **{
            **row,
            "weights": tuple(weights[row["concept"]].tolist()),
            "latents": tuple(row["latents"]),
            "neutral": {role: (pair[0], pair[1]) for role, pair in row["neutral"].items()},
            "line": (row["line"][0], row["line"][1]),
        }
    )


def _rule(row: Mapping[str, Any] | None) -> JumpRule | None:
    if row is None:
        return None
    lists = {name: tuple(row[name]) for name in ("usual", "spread", "danger")}
    return JumpRule(**{**row, **lists})


def _told(figures: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {name: {k: v.to_json() for k, v in own.items()} for name, own in figures.items()}


def _read(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
    return {name: {k: Estimate.from_json(v) for k, v in own.items()} for name, own in rows.items()}
