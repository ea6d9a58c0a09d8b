"""Models in GGUF files, dequantised to the exact values that the file's blocks stand for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainscan.errors import UnknownModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DIGITS_APART = ("smollm",)
"""Values of ``tokenizer.ggml.pre`` whose tokenizer splits numbers into digits, which the general
conversion leaves out."""


def read_gguf(file: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer in a GGUF file; the model no longer counts as quantised.

    Args:
        file: the file.
        dtype: the type of the weights; float32 holds the file's values exactly.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=dtype, **source)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        pre = _pre_tokenizer_name(file)
    except (ValueError, KeyError, IndexError, OSError, struct.error) as error:
        raise UnknownModelError(
            "a GGUF file of an architecture that transformers can read",
            f"{file}: {_first_line(error)}",
            "convert the model to safetensors with transformers, or choose another file",
        ) from error
    for holder, attribute in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(holder, attribute):
            delattr(holder, attribute)
    if pre in _DIGITS_APART:
        _split_digits(tokenizer)
    return model, tokenizer


def _pre_tokenizer_name(file: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field else ""


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
