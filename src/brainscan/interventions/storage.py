"""Edits on disk: an artifact of kind "edits".

`edits.json` lists the edits in their order, each with its kind, its fields and its positions;
a direction stands there by its number, its tensors are in `directions.safetensors` as
``<number>.vector`` and ``<number>.mean``; so do the values of an `AblateSet`, as
``<number>.values``. A dictionary that was passed with an edit is kept by its
name and loaded again by it, or from `dictionaries/`, by its digest, where edits are to be carried
elsewhere. The manifest's parents are the dictionaries' digests, those of shipped
ones that edits resolve to on their model among them; loading compares them with what is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

from brainscan import artifacts
from brainscan.artifacts import Manifest, ModelRef
from brainscan.dictionaries import Address, Dictionary
from brainscan.dictionaries.base import locate, shipped_dictionaries
from brainscan.errors import ArtifactError, UnknownDictionaryError
from brainscan.interventions.base import as_number
from brainscan.interventions.edits import EDITS, Edit, targets_of
from brainscan.interventions.positions import Positions, Probe, Span, Where
from brainscan.interventions.targets import Direction
from brainscan.shapes import Tensor

KIND = "edits"

_EDITS = "edits.json"
_DIRECTIONS = "directions.safetensors"
_DICTIONARIES = "dictionaries"


def save_edits(
    path: str | os.PathLike[str],
    edits: Sequence[Edit],
    *,
    model: ModelRef | None = None,
    carry: bool = False,
) -> None:
    """Writes edits as an artifact.

    Args:
        path: the artifact's folder.
        edits: the edits, in the order they act.
        model: the model they were made for.
        carry: whether dictionaries that do not come with the package are copied into it.

    Raises:
        DiskFullError: there is no space left.
    """
    from safetensors.torch import save_file

    writer = _Writer(model)
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
        for name, digest in writer.parents.items() if carry else ():
            if name not in shipped_dictionaries():
                shutil.copytree(locate(name), _carried(draft.path, digest))


def load_edits(
    path: str | os.PathLike[str], dictionaries: Sequence[Dictionary] = ()
) -> tuple[Edit, ...]:
    """Reads edits from an artifact.

    Args:
        path: the artifact's folder.
        dictionaries: dictionaries to take by their names before any is loaded.

    Raises:
        ArtifactError: it is missing, truncated, altered or of another kind, or a dictionary of
            the name that an edit was made with is another one now.
        UnknownDictionaryError: an edit was saved with a dictionary that is not found.
    """
    from safetensors.torch import load_file

    manifest = artifacts.open_artifact(path, kind=KIND)
    given = {dictionary.name: dictionary for dictionary in dictionaries}
    for name, digest in manifest.parents.items():
        if name not in given and _carried(path, digest).is_dir():
            given[name] = Dictionary.load(_carried(path, digest))
        _check_digest(path, name, digest, given.get(name))
    reader = _Reader(load_file(Path(path) / _DIRECTIONS), given)
    try:
        lines = json.loads((Path(path) / _EDITS).read_text(encoding="utf-8"))
        return tuple(reader.edit(line) for line in lines)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"edits in {Path(path) / _EDITS}",
            f"{type(error).__name__}: {error}",
            "it was made by another version: save the edits again",
        ) from error


def _carried(path: str | os.PathLike[str], digest: str) -> Path:
    """Where a dictionary lies that edits carry with them."""
    return Path(path) / _DICTIONARIES / digest[:16]


def _check_digest(
    path: str | os.PathLike[str], name: str, digest: str, given: Dictionary | None
) -> None:
    """Refuses a dictionary that is not the one the edits were made with; one not there passes."""
    manifest = _manifest(name) if given is None else given.manifest
    if manifest is not None and manifest.digest != digest:
        raise ArtifactError(
            f"the dictionary {name} that the edits in {os.fspath(path)} were made with, "
            f"of digest {digest}",
            f"a dictionary of that name of digest {manifest.digest}",
            "its latents have other meanings: use the first one, or make the edits again",
        )


def _manifest(name: str) -> Manifest | None:
    """The manifest of a dictionary by its name or folder, if there is one."""
    try:
        return artifacts.read_manifest(locate(name))
    except UnknownDictionaryError:
        return None


class _Writer:
    """Turns edits into JSON, collecting the tensors they need."""

    def __init__(self, model: ModelRef | None) -> None:
        self.model = model
        self.tensors: dict[str, Tensor] = {}
        self.hookpoints: set[str] = set()
        self.parents: dict[str, str] = {}
        self._numbers = count()

    def edit(self, edit: Edit) -> dict[str, Any]:
        if edit.dictionary is None:
            for target in targets_of(edit):
                self._shipped(target)
        if isinstance(edit.positions, Where) and edit.positions.dictionary is None:
            self._shipped(edit.positions.condition)
        values = {item.name: getattr(edit, item.name) for item in fields(edit)}
        return {"edit": type(edit).__name__} | {
            name: self._value(value) for name, value in values.items() if value is not None
        }

    def _shipped(self, target: str | Direction | Probe) -> None:
        """Keeps the digest of the shipped dictionary that an address stands for, if any."""
        if self.model is None or not isinstance(target, str):
            return
        name = f"{self.model.id.split('+')[0]}/{Address.parse(target).hookpoint}"
        manifest = None if name in self.parents else _manifest(name)
        if manifest is not None:
            self.parents[name] = manifest.digest

    def _value(self, value: Any) -> Any:
        match value:
            case tuple():
                return [self._value(part) for part in value]
            case Tensor() if value.ndim:
                number = next(self._numbers)
                self.tensors[f"{number}.values"] = value.detach().cpu().clone()
                return {"values": number}
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
        number = next(self._numbers)
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
        if isinstance(value, list):
            return tuple(self._value(name, part) for part in value)
        if not isinstance(value, dict):
            return value
        if "values" in value:
            return self.tensors[f"{value['values']}.values"]
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
