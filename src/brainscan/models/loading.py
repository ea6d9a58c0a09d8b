"""Loading a model by a built-in name, a hub id, a folder or a GGUF file, with or without adapter.

1. A name ``base+adapter`` is cut at its last plus, unless it is a path that exists.
2. The base becomes a folder or a GGUF file on disk: the built-in one is fetched, a hub's is taken
   from the local cache and only then from the network.
3. Device and type are chosen by what is there.
4. An adapter is merged into the weights, so that what comes back is a plain transformers module.
5. The weights' hash is the sha256 of their file, remembered by path, size and time of change.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from brainscan.artifacts import ModelRef, open_artifact
from brainscan.errors import ArtifactError, MissingExtraError, UnknownModelError, UsageError
from brainscan.models import builtin, hub
from brainscan.models.hashes import remembered_sha256
from brainscan.models.language_model import LanguageModel
from brainscan.models.shipped import shipped_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The types a model can be loaded in, by name."""

_CPU_FLAGS = Path("/proc/cpuinfo")
_MULTIPLIES_BF16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class _Source(NamedTuple):
    path: Path
    weights: str


def load(
    name: str, *, device: str | None = None, dtype: torch.dtype | str | None = None
) -> LanguageModel:
    """Loads a model.

    Args:
        name: a built-in name, a hub id, a folder, or a GGUF file; then ``+`` and an
            adapter that comes with it, or a PEFT adapter's folder or hub id, if there is one.
        device: as torch names it; by default a CUDA device if there is one.
        dtype: "float32", "bfloat16" or "float16"; by default bfloat16 where the device multiplies
            it natively and faster, else float32.
    """
    where = _device(device)
    kind = _dtype(dtype, where)
    base, adapter = split_name(name)
    source = _find(base)
    patch = None if adapter is None else _find_adapter(adapter, base)
    model, tokenizer = _read(source.path, kind)
    weights = source.weights
    if patch is not None:
        model = _merge(model, patch.path)
        weights = hashlib.sha256(f"{weights}+{patch.weights}".encode()).hexdigest()
    module: nn.Module = model
    module.to(where).eval()
    return LanguageModel(name, model, tokenizer, ModelRef(name, weights))


def multiplies_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 natively, and faster than float32.

    Intel's do so with their tile units; where a virtual machine hides these, the instructions that
    are left take twice as long as those for float32 (docs/log.md).
    """
    try:
        flags = _CPU_FLAGS.read_text()
    except OSError:
        return False
    found = set(_MULTIPLIES_BF16.findall(flags))
    return bool(found - {"avx512_bf16"} if "GenuineIntel" in flags else found)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            "a device that torch has here",
            f"'{name}': {str(error).splitlines()[0]}",
            "leave the device out to have it chosen",
        ) from error
    return device


def _dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        native = multiplies_bfloat16() if device.type == "cpu" else device.type == "cuda"
        return torch.bfloat16 if native else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise UsageError(f"a type: {', '.join(DTYPES)}", f"'{dtype}'", "choose one that is listed")
    return found


def split_name(name: str) -> tuple[str, str | None]:
    """A model's name without its adapter, and the adapter if it has one.

    Args:
        name: whatever `load` takes.
    """
    if "+" not in name or Path(name).exists():
        return name, None
    base, _, adapter = name.rpartition("+")
    return base, adapter


def _find(name: str) -> _Source:
    """The folder or GGUF file of a model without adapter, and its weights' hash."""
    if name in builtin.names():
        folder = builtin.fetch(name)
        return _Source(folder, _checked(folder))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _Source(path, remembered_sha256(path))
    if path.is_dir():
        return _Source(path, _weights_hash(path, hub.weight_files(path)))
    near = difflib.get_close_matches(name, builtin.names(), n=3, cutoff=0.5)
    if not _HUB_ID.fullmatch(name) or path.is_absolute() or ("/" not in name and near):
        offered = near or builtin.names()
        raise UnknownModelError(
            "a built-in model, a hub id, a folder or a GGUF file",
            f"'{name}'",
            f"did you mean {' or '.join(offered)}?" if near else f"for example {offered[0]}",
        )
    folder = hub.fetch(name)
    return _Source(folder, _weights_hash(folder, hub.weight_files(folder)))


def _find_adapter(name: str, base: str) -> _Source:
    shipped = {path.name: path for path in shipped_adapters(base)}
    path = shipped.get(name) or Path(name).expanduser()
    if not path.is_dir() and "/" in name and _HUB_ID.fullmatch(name):
        path = hub.fetch(name, adapter=True)
    files = [path / "adapter_config.json", path / "adapter_model.safetensors"]
    if not all(file.is_file() for file in files):
        near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.5) or sorted(shipped)
        raise UnknownModelError(
            "a PEFT adapter after the plus: a folder or hub id with "
            "adapter_config.json and adapter_model.safetensors"
            + (f", or one that comes with {base}" if shipped else ""),
            f"'{name}'",
            f"did you mean {' or '.join(near)}?" if near else "check the path",
        )
    return _Source(path, _weights_hash(path, files))


def _checked(folder: Path) -> str:
    """Checks a built-in model's files against its manifest; returns the weights' hash."""
    manifest = open_artifact(folder, builtin.KIND, verify=False)
    for name, expected in manifest.files.items():
        found = remembered_sha256(folder / name)
        if found != expected:
            raise ArtifactError(
                f"sha256 {expected} for {folder / name}",
                f"sha256 {found}",
                f"delete {folder}; it is fetched again when next used",
            )
    return manifest.files[builtin.WEIGHTS]


def _weights_hash(folder: Path, files: list[Path]) -> str:
    hashes = [remembered_sha256(file) for file in sorted(files)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _read(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from brainscan.models.gguf_files import read_gguf

    with hub.quiet_transformers():
        if path.suffix == ".gguf":
            return read_gguf(path, dtype)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, local_files_only=True, use_safetensors=True
            )
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (ValueError, OSError, KeyError, SafetensorError) as error:
            raise UnknownModelError(
                "a causal language model that transformers can read",
                f"{path}: {str(error).strip().splitlines()[0]}",
                "check that the folder is whole, or update transformers",
            ) from error
    return model, tokenizer


def _merge(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError("peft", "stress") from error
    try:
        with warnings.catch_warnings():  # of transformers to peft's authors
            warnings.simplefilter("ignore", FutureWarning)
            merged: PreTrainedModel = PeftModel.from_pretrained(
                model, str(adapter)
            ).merge_and_unload()
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"an adapter made for {type(model).__name__} of this shape",
            f"{adapter}: {str(error).strip().splitlines()[0]}",
            "use the model that its adapter_config.json names",
        ) from error
    return merged
