"""What was read and written in a model call, on disk beside the log.

A safetensors file for each call, in a folder named by the sample's uuid:

    prompt      [position]     ids of the prompt's tokens
    response    [position]     ids of the tokens drawn, the one that ended it among them
    HOOKPOINT   [position, d]  activations of the prompt and of all response tokens but the last

The metadata names model, weights, seed and edits, so that activations can be computed again where
they were not kept. The log holds the file's path and sha256, never what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainscan.artifacts import file_sha256, write_file
from brainscan.errors import ArtifactError
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models.generate import Generation

FOLDER = "brainscan"
"""The folder of recordings, beside a log."""


@dataclass(frozen=True)
class Recording:
    """One call of a model."""

    prompt: Int[Tensor, " prompt"]
    """The prompt's tokens."""
    response: Int[Tensor, " response"]
    """The tokens drawn."""
    activations: Mapping[str, Float[Tensor, "position _"]]
    """By hookpoint."""
    facts: Mapping[str, str]
    """What the call was made with."""


def write_recording(path: Path, made: Generation, facts: Mapping[str, str]) -> str:
    """Writes a call; returns the file's sha256.

    Args:
        path: the file.
        made: what the model was given and wrote.
        facts: what it was made with.
    """
    from safetensors.torch import save

    tensors = {
        "prompt": torch.tensor(made.prompt_tokens, dtype=torch.int32),
        "response": torch.tensor(made.tokens, dtype=torch.int32),
        **{name: part.cpu().contiguous() for name, part in made.activations.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, save(tensors, metadata=dict(facts)))
    return file_sha256(path)


def recording_of(note: Mapping[str, Any], log: str | Path) -> Recording:
    """The recording that a note in a log speaks of.

    Args:
        note: ``output.metadata["brainscan"]`` of a call.
        log: the log's file; a note's path is relative to its folder, so that both can be moved.

    Raises:
        ArtifactError: it is missing, or not the file that the log speaks of.
    """
    return read_recording(Path(log).parent / note["path"], note["sha256"])


def read_recording(path: str | Path, sha256: str | None = None) -> Recording:
    """Reads a call.

    Args:
        path: the file.
        sha256: what the log says of it; None to trust the file.

    Raises:
        ArtifactError: it is missing, or not the file that the log speaks of.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        if sha256 is not None and (found := file_sha256(path)) != sha256:
            raise ArtifactError(
                f"sha256 {sha256} for {path}, as the log says",
                f"sha256 {found}",
                "it was truncated or altered: run the sample again",
            )
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"a recording of a model call at {path}", str(error), "run the sample again"
        ) from error
    prompt, response = tensors.pop("prompt"), tensors.pop("response")
    return Recording(prompt, response, tensors, facts)
