"""What all benches share: the model, its texts as tokens in a file, and activations of them.

The model is smollm2-135m-instruct, read at the residual after layer 15. The texts are the built-in
corpus; its tokens are written once to a file that brainscan and its peers both read, so that no
one's tokenising is timed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from brainscan.artifacts import cache_dir

if TYPE_CHECKING:
    from torch import Tensor

    from brainscan.activations import Context
    from brainscan.models import LanguageModel

MODEL = "smollm2-135m-instruct"
LAYER = 15
WIDTH = 576
HOOKPOINT = f"resid_post.{LAYER}"
LATENTS = 4608
K = 32
BATCH = 2048
CONTEXT = 128
"""Tokens of a context where a peer is beside: SAELens' default."""
PASS = 4096
"""Tokens of a peer's forward pass: SAELens' default is 32 contexts of 128."""


def load() -> LanguageModel:
    """The model, in bf16."""
    from brainscan.models.loading import load

    return load(MODEL, device="cpu", dtype="bfloat16")


def model_folder() -> Path:
    """Where the model lies as safetensors; it is fetched if it is not there."""
    from brainscan.models import builtin

    return builtin.fetch(MODEL)


def folder() -> Path:
    """Where the benches keep their files."""
    path = cache_dir() / "bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def token_file(lm: LanguageModel, n: int, context: int, split: str = "train") -> Path:
    """A file of `n` contexts of the built-in corpus, tensor `tokens[n, context]`."""
    import torch
    from safetensors.torch import save_file

    from brainscan.activations import open_corpus, pack

    corpus = open_corpus("builtin")
    version = hashlib.sha256(repr(corpus.settings).encode()).hexdigest()[:8]
    path = folder() / f"tokens-{split}-{n}x{context}-{version}.safetensors"
    if not path.is_file():
        documents = corpus.documents(split, seed=0)
        rows = [row.tokens for row in islice(pack(lm, documents, context), n)]
        save_file({"tokens": torch.stack(rows)}, path)
    return path


def read_tokens(path: Path) -> Tensor:
    """The tokens in a file."""
    from safetensors.torch import load_file

    return load_file(path)["tokens"]


def contexts(tokens: Tensor) -> Iterator[Context]:
    """Rows of tokens as contexts; documents are not told apart."""
    import torch

    from brainscan.activations import Context

    for row in tokens:
        yield Context(row, torch.zeros_like(row), ("bench",))


def activation_file(lm: LanguageModel, n: int, context: int, split: str) -> Path:
    """A file of the activations of `n` contexts, sinks left out: tensor `x`, bf16."""
    import torch
    from safetensors.torch import save_file

    from brainscan.activations import stream

    tokens = token_file(lm, n, context, split)
    path = tokens.with_name(tokens.name.replace("tokens", "activations"))
    if not path.is_file():
        parts = stream(lm, contexts(read_tokens(tokens)), [HOOKPOINT])
        save_file({"x": torch.cat([part.values[HOOKPOINT] for part in parts])}, path)
    return path
