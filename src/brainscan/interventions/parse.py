"""Edits as short strings, for the command line.

    edit      = ADDRESS "=" change [positions]
              | "project_out:" where [positions]
              | "add:" FILE "=" NUMBER [positions]
              | "swap:" ADDRESS "," ADDRESS [positions]
    change    = NUMBER "x"             Clamp to so many maxima      resid_post.15/1234=2x
              | NUMBER                 Ablate to this activation    resid_post.15/1234=0
              | "*" NUMBER             Scale                        resid_post.15/1234=*1.5
              | "+" NUMBER "x"         Add so many maxima           resid_post.15/1234=+-0.5x
    where     = ADDRESS | FILE
    positions = "@prompt" | "@response" | "@" START ":" [STOP]
              | "@where(" ADDRESS ">" NUMBER "x)" | "@where(" FILE ">" NUMBER ")"

Without positions an edit acts everywhere. NUMBER may be negative or have an exponent. FILE is a
safetensors file with the tensor `direction` [d] (or a single tensor of any name), optionally the
tensor `mean` [d], and the metadata `hookpoint`; `add:` counts in multiples of the token's norm.
In a condition it is a probe, whose `bias` may be in the metadata too. An ADDRESS may name its
hookpoint as TransformerLens does: blocks.15.hook_resid_post/1234.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from brainscan.dictionaries import Address
from brainscan.errors import ArtifactError, UsageError
from brainscan.interventions.base import as_number, name_of
from brainscan.interventions.edits import (
    Ablate,
    AblateSet,
    Add,
    Clamp,
    Edit,
    ProjectOut,
    Scale,
    Swap,
)
from brainscan.interventions.positions import Positions, Probe, Span, Where
from brainscan.interventions.targets import Direction

_NAMED = 8
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
"""What a number in an edit looks like."""

FEATURE = r"(?:[a-z_]+\.\d+|blocks\.\d+\.[a-z_.]+)/\d+[+-]?"
"""What a feature's address in an edit looks like."""

_POSITIONS = re.compile(
    rf"@(?:(?P<name>prompt|response)|(?P<start>\d+):(?P<stop>\d*)"
    rf"|where\((?P<condition>{FEATURE})>(?P<threshold>{NUMBER})x\)"
    rf"|where\((?!{FEATURE}>)(?P<probe>.+)>(?P<score>{NUMBER})\))$"
)
_CHANGE = re.compile(rf"(?P<target>{FEATURE})=(?P<operator>[*+]?)(?P<number>{NUMBER})(?P<unit>x?)")
_ADD = re.compile(rf"add:(?P<file>.+)=(?P<number>{NUMBER})")
_SWAP = re.compile(rf"swap:(?P<a>{FEATURE}),(?P<b>{FEATURE})")
_PROJECT_OUT = re.compile(r"project_out:(?P<where>.+)")


def parse_edit(text: str) -> Edit:
    """Reads one edit.

    Args:
        text: such as ``resid_post.15/1234=2x@prompt``; the module describes the grammar.

    Raises:
        UsageError: the text is no edit.
        ArtifactError: the file it names cannot be read.
    """
    body, positions = _split_positions(text.strip())
    if match := _CHANGE.fullmatch(body):
        return _changed(text, match, positions)
    if match := _SWAP.fullmatch(body):
        return Swap(_address(match["a"]), _address(match["b"]), positions=positions)
    if match := _ADD.fullmatch(body):
        return Add(load_direction(match["file"]), float(match["number"]), positions=positions)
    if match := _PROJECT_OUT.fullmatch(body):
        where = match["where"]
        is_feature = re.fullmatch(FEATURE, where)
        target = _address(where) if is_feature else load_direction(where)
        return ProjectOut(target, positions=positions)
    raise _unknown(text)


def format_edit(edit: Edit) -> str:
    """Writes an edit so that `parse_edit` reads it back; a direction is written as its name.

    An `AblateSet` is written for people alone: its first targets, how many more, and the strength.

    Args:
        edit: the edit.

    Raises:
        UsageError: the grammar has no words for it; `save_edits` keeps any edit.
    """
    where = _format_positions(edit)
    if edit.sinks or edit.maximum is not None:
        raise _unwritable(edit)
    match edit:
        case Clamp(target=str(target), value=value):
            return f"{target}={as_number(value)!r}x{where}"
        case Ablate(target=str(target), to=to):
            return f"{target}={as_number(to)!r}{where}"
        case Scale(target=str(target), factor=factor):
            return f"{target}=*{as_number(factor)!r}{where}"
        case Add(target=str(target), strength=strength):
            return f"{target}=+{as_number(strength)!r}x{where}"
        case Add(target=Direction(name=str(name)), strength=strength) if name:
            return f"add:{name}={as_number(strength)!r}{where}"
        case ProjectOut(target=str(target)):
            return f"project_out:{target}{where}"
        case ProjectOut(target=Direction(name=str(name))) if name:
            return f"project_out:{name}{where}"
        case Swap(a=str(a), b=str(b)):
            return f"swap:{a},{b}{where}"
        case AblateSet(targets=targets, strength=strength):
            words = f"{_listed(targets)} to given values x{as_number(strength):g}"
            return f"ablate-set {words}{where}"
    raise _unwritable(edit)


def load_direction(path: str | os.PathLike[str]) -> Direction:
    """Reads a direction from a safetensors file; its name is the path.

    Args:
        path: the file.

    Raises:
        ArtifactError: it is missing, truncated, or not of the form that the module describes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), framework="pt") as file:
            names = list(file.keys())
            vectors = [name for name in names if name != "mean"]
            chosen = "direction" if "direction" in names else vectors[0] if vectors else ""
            if not chosen or (chosen != "direction" and len(vectors) > 1):
                raise _no_direction(path, f"tensors {', '.join(names) or 'none'}")
            hookpoint = (file.metadata() or {}).get("hookpoint")
            vector = file.get_tensor(chosen)
            mean = file.get_tensor("mean") if "mean" in names else None
    except (OSError, SafetensorError) as error:
        raise _no_direction(path, str(error)) from error
    if hookpoint is None or vector.ndim != 1:
        raise _no_direction(path, f"shape {list(vector.shape)} and hookpoint {hookpoint!r}")
    return Direction(hookpoint, vector, name=os.fspath(path), mean=mean)


def save_direction(path: str | os.PathLike[str], direction: Direction) -> None:
    """Writes a direction so that `load_direction` reads it.

    Args:
        path: the file.
        direction: the direction.
    """
    _save(path, direction, {})


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """Reads a probe: a direction's file, with the metadata `bias` if it has one.

    Args:
        path: the file.

    Raises:
        ArtifactError: it holds no direction, or the bias is no number.
    """
    from safetensors import safe_open

    direction = load_direction(path)
    with safe_open(Path(path), framework="pt") as file:
        bias = file.metadata().get("bias", "0")
    if not re.fullmatch(NUMBER, bias):
        raise _no_direction(path, f"a bias {bias!r} that is no number")
    return Probe(direction, float(bias))


def save_probe(path: str | os.PathLike[str], probe: Probe) -> None:
    """Writes a probe so that `load_probe` reads it.

    Args:
        path: the file.
        probe: the probe.
    """
    _save(path, probe.direction, {"bias": repr(float(probe.bias))})


def _save(path: str | os.PathLike[str], direction: Direction, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    tensors = {"direction": direction.vector.detach().cpu().contiguous()}
    if direction.mean is not None:
        tensors["mean"] = direction.mean.detach().cpu().contiguous()
    save_file(tensors, path, metadata={"hookpoint": direction.hookpoint, **metadata})


def _address(text: str) -> str:
    """The address with our name of its hookpoint."""
    return str(Address.parse(text))


def _changed(text: str, match: re.Match[str], positions: Positions) -> Edit:
    target, number = _address(match["target"]), float(match["number"])
    match match["operator"], match["unit"]:
        case "", "x":
            return Clamp(target, number, positions=positions)
        case "", "":
            return Ablate(target, number, positions=positions)
        case "*", "":
            return Scale(target, number, positions=positions)
        case "+", "x":
            return Add(target, number, positions=positions)
    raise _unknown(text)


def _split_positions(text: str) -> tuple[str, Positions]:
    match = _POSITIONS.search(text)
    if match is None:
        return text, "all"
    body = text[: match.start()]
    if match["name"]:
        return body, "prompt" if match["name"] == "prompt" else "response"
    if match["condition"]:
        return body, Where(_address(match["condition"]), float(match["threshold"]))
    if match["probe"]:
        return body, Where(load_probe(match["probe"]), float(match["score"]))
    return body, Span(int(match["start"]), int(match["stop"]) if match["stop"] else None)


def _format_positions(edit: Edit) -> str:
    match edit.positions:
        case "all":
            return ""
        case "prompt" | "response" as name:
            return f"@{name}"
        case Span(start=start, stop=stop):
            return f"@{start}:{'' if stop is None else stop}"
        case Where(condition=str(address), threshold=threshold, maximum=None, within="all"):
            return f"@where({Address.parse(address)}>{float(threshold)!r}x)"
        case Where(
            condition=Probe(direction=Direction(name=str(name))), threshold=score, within="all"
        ) if name:
            return f"@where({name}>{float(score)!r})"
    raise _unwritable(edit)


def _listed(targets: Sequence[str | Direction]) -> str:
    names = ",".join(map(name_of, targets[:_NAMED]))
    more = len(targets) - _NAMED
    return f"{names} and {more} more" if more > 0 else names


def _unknown(text: str) -> UsageError:
    return UsageError(
        "an edit such as resid_post.15/1234=2x, =0, =*1.5 or =+2x, project_out:FILE, "
        "add:FILE=0.5 or swap:ADDRESS,ADDRESS, with @prompt, @response, @12:40 or "
        "@where(ADDRESS>1x) or @where(FILE>0.5) after it if wanted",
        repr(text),
        "write it in one of these forms",
    )


def _unwritable(edit: Edit) -> UsageError:
    return UsageError(
        "an edit that can be said in one line",
        repr(edit),
        "save it with save_edits and pass the folder as --edits",
    )


def _no_direction(path: str | os.PathLike[str], got: str) -> ArtifactError:
    return ArtifactError(
        f"a safetensors file {os.fspath(path)} with a tensor 'direction' [d] and metadata "
        "'hookpoint'",
        got,
        "write one with save_direction",
    )
