"""Random transformers of every family, a few thousand weights each, for tests without downloads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from brainscan.artifacts import ModelRef
from brainscan.errors import UnknownModelError
from brainscan.models.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

D_MODEL = 32
N_LAYERS = 4

_WORDS = ("the", "and", "ing", "ion", "you", "that", "was", "with", "not", "one", "day", "word")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COMMON = {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_HYBRID = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
_SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_next": {**_HYBRID, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": _HYBRID,
    "gemma2": {**_SLIDING, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_SLIDING, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "initializer_range": 0.15},
    "gpt_neox": {"rotary_pct": 0.5},
    "mistral": {"sliding_window": None},
    "phi3": {"resid_pdrop": 0.0},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_EXPERTS, "mlp_only_layers": [0]},
    "gpt_oss": {**_SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Each family's name in transformers, and what its configuration has beside the common sizes."""


def tiny(family: str, seed: int = 0, **settings: Any) -> LanguageModel:
    """A random model of a family, in float32 on the CPU.

    Args:
        family: one of `FAMILIES`.
        seed: the same seed gives the same weights.
        settings: more settings for the family's configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in FAMILIES:
        raise UnknownModelError(
            f"a family: {', '.join(FAMILIES)}", f"'{family}'", "choose one that is listed"
        )
    tokenizer = tiny_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    sizes = {} if family == "gpt2" else _COMMON
    config = AutoConfig.for_model(
        family,
        **{**sizes, **FAMILIES[family], **ids, **settings},
        bos_token_id=None,
        vocab_size=len(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.numpy().tobytes())
    name = f"tiny-{family}-{seed}"
    return LanguageModel(name, model, tokenizer, ModelRef(name, weights.hexdigest()))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a dozen words, three special tokens and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in (*_WORDS, *(f"Ġ{word}" for word in _WORDS)):
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                tokens.append(word[:end])
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate([*special, *tokens])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=_TEMPLATE,
    )
