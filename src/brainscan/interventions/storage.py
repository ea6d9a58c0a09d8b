"""Edits on disk: an artifact of kind "edits".

`edits.json` lists the edits in their order, each with its kind, its fields and its positions;
a direction stands there by its number, its tensors are in `directions.safetensors` as
``<number>.vector`` and ``<number>.mean``. A dictionary that was passed with an edit is kept by its
name and loaded again by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from brainscan import artifacts
from brainscan.artifacts import ModelRef
from brainscan.dictionaries import Dictionary
from brainscan.errors import ArtifactError
from brainscan.interventions.edits import EDITS, Edit, as_number
from brainscan.interventions.positions import Positions, Probe, Span, Where
from brainscan.interventions.targets import Direction
from brainscan.shapes import Tensor

KIND = "edits"

_EDITS = "edits.json"
_DIRECTIONS = "directions.safetensors"


def save_edits(
    path: str | os.PathLike[str], edits: Sequence[Edit], *, model: ModelRef | None = None
) -> None:
    """Writes edits as an artifact.

    Args:
        path: the artifact's folder.
        edits: the edits, in the order they act.
        model: the model they were made for.

    Raises:
        DiskFullError: there is no space left.
    """
    from safetensors.torch import save_file

    writer = _Writer()
    lines = [writer.edit(edit) for edit in edits]
    with artifacts.create(
        path,
        kind=KIND,
        model=model,
        parents=writer.parents,
        hookpoints=tuple(sorted(writer.hookpoints)),
    ) as draft:
        text = json.dumps(lines, indent=1, ensure_ascii=False) + "\n"
        (draft.path / _EDITS).write_text(text, encoding="utf-8")
        save_file(writer.tensors, draft.path / _DIRECTIONS)


def load_edits(
    path: str | os.PathLike[str], dictionaries: Sequence[Dictionary] = ()
) -> tuple[Edit, ...]:
    """Reads edits from an artifact.

    Args:
        path: the artifact's folder.
        dictionaries: dictionaries to take by their names before any is loaded.

    Raises:
        ArtifactError: it is missing, truncated, altered or of another kind.
        UnknownDictionaryError: an edit was saved with a dictionary that is not found.
    """
    from safetensors.torch import load_file

    artifacts.open_artifact(path, kind=KIND)
    tensors = load_file(Path(path) / _DIRECTIONS)
    reader = _Reader(tensors, {dictionary.name: dictionary for dictionary in dictionaries})
    try:
        lines = json.loads((Path(path) / _EDITS).read_text(encoding="utf-8"))
        return tuple(reader.edit(line) for line in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"edits in {Path(path) / _EDITS}",
            f"{type(error).__name__}: {error}",
            "it was made by another version: save the edits again",
        ) from error


class _Writer:
    """Turns edits into JSON, collecting the tensors they need."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.hookpoints: set[str] = set()
        self.parents: dict[str, str] = {}
        self._directions = 0

    def edit(self, edit: Edit) -> dict[str, Any]:
        values = {item.name: getattr(edit, item.name) for item in fields(edit)}
        return {"edit": type(edit).__name__} | {
            name: self._value(value) for name, value in values.items() if value is not None
        }

    def _value(self, value: Any) -> Any:
        match value:
            case Tensor():
                return as_number(value)
            case Direction():
                return self._direction(value)
            case Dictionary():
                if value.manifest is not None:
                    self.parents[value.name] = value.manifest.digest
                return value.name
            case Span():
                return {"span": [value.start, value.stop]}
            case Probe():
                return {"probe": self._direction(value.direction), "bias": float(value.bias)}
            case Where():
                values = {item.name: getattr(value, item.name) for item in fields(value)}
                return {"where": {key: self._value(part) for key, part in values.items()}}
            case str() if "/" in value:
                self.hookpoints.add(value.split("/")[0])
        return value

    def _direction(self, direction: Direction) -> dict[str, Any]:
        number = self._directions
        self._directions += 1
        self.hookpoints.add(direction.hookpoint)
        self.tensors[f"{number}.vector"] = direction.vector.detach().cpu().clone()
        if direction.mean is not None:
            self.tensors[f"{number}.mean"] = direction.mean.detach().cpu().clone()
        return {
            "direction": number,
            "hookpoint": direction.hookpoint,
            "name": direction.name,
        }


class _Reader:
    """Turns JSON into edits."""

    def __init__(self, tensors: Mapping[str, Tensor], dictionaries: dict[str, Dictionary]) -> None:
        self.tensors = tensors
        self.dictionaries = dictionaries

    def edit(self, line: Mapping[str, Any]) -> Edit:
        values = {name: self._value(name, value) for name, value in line.items() if name != "edit"}
        return EDITS[line["edit"]](**values)

    def _value(self, name: str, value: Any) -> Any:
        if name == "dictionary":
            return self._dictionary(value)
        if not isinstance(value, dict):
            return value
        if "direction" in value:
            return self._direction(value)
        if "probe" in value:
            return Probe(self._direction(value["probe"]), value["bias"])
        return self._positions(value)

    def _positions(self, value: Mapping[str, Any]) -> Positions:
        if "span" in value:
            return Span(*value["span"])
        return Where(**{name: self._value(name, part) for name, part in value["where"].items()})

    def _direction(self, value: Mapping[str, Any]) -> Direction:
        number = value["direction"]
        vector, mean = self.tensors[f"{number}.vector"], self.tensors.get(f"{number}.mean")
        return Direction(value["hookpoint"], vector, name=value["name"], mean=mean)

    def _dictionary(self, name: str | None) -> Dictionary | None:
        if name is None:
            return None
        if name not in self.dictionaries:
            self.dictionaries[name] = Dictionary.load(name)
        return self.dictionaries[name]
