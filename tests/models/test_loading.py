"""Loading by folder, GGUF file, hub id and adapter; what is chosen, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from brainscan.artifacts import file_sha256
from brainscan.errors import FetchError, MissingExtraError, UnknownModelError, UsageError
from brainscan.models import hashes, load, loading
from brainscan.models.tiny import tiny

ignore_peft = pytest.mark.filterwarnings("ignore:.*checkpointing.*:FutureWarning")
TEXT = "the 2024 naïve 😀 day <|im_start|>"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(lm, tmp_path):
    """The tiny llama, saved as transformers saves it."""
    path = tmp_path / "saved"
    lm.model.save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def adapter(lm, tmp_path):
    """An adapter for the tiny llama, and the adapted model's logits."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(tiny("llama").model, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        logits = adapted(torch.tensor([[9, 41, 7]])).logits
    return tmp_path / "adapter", logits


# What comes back


def test_a_folder_gives_the_same_model(lm, folder, ids):
    found = load(str(folder), dtype="float32")
    assert torch.equal(found.forward(ids), lm.forward(ids))
    assert found.tokenize(TEXT) == lm.tokenize(TEXT)
    assert found.chat_tokens("hi") == lm.chat_tokens("hi")
    assert found.ref.id == str(folder)
    assert found.ref.weights == file_sha256(folder / "model.safetensors")
    assert not found.model.training
    assert type(found.model).__name__ == "LlamaForCausalLM"


def test_a_gguf_file_gives_the_same_model_and_digits_apart(lm, gguf_file, ids):
    found = load(str(gguf_file), dtype="float32")
    torch.testing.assert_close(found.forward(ids), lm.forward(ids), rtol=1e-4, atol=1e-5)
    assert found.ref.weights == file_sha256(gguf_file)
    assert found.decode(found.tokenize(TEXT)) == TEXT
    assert found.tokenizer.chat_template == lm.tokenizer.chat_template
    pieces = found.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a 2024")
    assert [piece for piece, _ in pieces] == ["a", "Ġ", "2", "0", "2", "4"]
    assert getattr(found.model.config, "quantization_config", None) is None
    found.model.save_pretrained(gguf_file.parent / "again")


def test_shards_are_hashed_together(lm, tmp_path):
    lm.model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    lm.tokenizer.save_pretrained(tmp_path / "sharded")
    found = load(str(tmp_path / "sharded"))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert len(found.ref.weights) == 64


def test_weights_are_hashed_once_and_again_when_they_change(folder, monkeypatch):
    first = load(str(folder)).ref.weights
    with monkeypatch.context() as patch:
        patch.setattr(hashes, "file_sha256", lambda path: pytest.fail("hashed again"))
        assert load(str(folder)).ref.weights == first
    tiny("llama", seed=1).model.save_pretrained(folder)
    assert load(str(folder)).ref.weights != first


@ignore_peft
def test_a_merged_adapter_gives_a_plain_module_with_its_logits(lm, folder, adapter):
    path, logits = adapter
    found = load(f"{folder}+{path}", dtype="float32")
    assert type(found.model).__name__ == "LlamaForCausalLM"
    assert found.hookpoints == lm.hookpoints
    torch.testing.assert_close(found.forward(torch.tensor([[9, 41, 7]])), logits)
    assert not torch.allclose(logits, lm.forward(torch.tensor([[9, 41, 7]])))
    plain = load(str(folder)).ref.weights
    assert found.ref.weights not in (plain, file_sha256(path / "adapter_model.safetensors"))
    assert found.ref.weights == load(f"{folder}+{path}").ref.weights


@ignore_peft
def test_an_adapter_that_comes_with_a_model_is_found_by_name(
    folder, adapter, tmp_path, monkeypatch
):
    path, logits = adapter
    base = "smollm2-135m-instruct"
    (tmp_path / "shipped" / base).mkdir(parents=True)
    path.rename(tmp_path / "shipped" / base / "mine")
    monkeypatch.setattr("brainscan.models.shipped.SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr("brainscan.models.loading.builtin.fetch", lambda name: folder)
    monkeypatch.setattr("brainscan.models.loading._checked", lambda folder: "0" * 64)
    found = load(f"{base}+mine", dtype="float32")
    torch.testing.assert_close(found.forward(torch.tensor([[9, 41, 7]])), logits)
    with pytest.raises(UnknownModelError, match="did you mean mine"):
        load(f"{base}+mien")
    with pytest.raises(UnknownModelError, match="adapter_config"):
        load(f"{folder}+mine")


def test_a_folder_with_a_plus_in_its_name_is_a_folder(folder):
    plus = folder.with_name("c++")
    folder.rename(plus)
    assert load(str(plus)).n_layers == 4


def test_a_model_in_the_hubs_local_cache_needs_no_network(folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load("someone/tiny").ref.id == "someone/tiny"
    (snapshot / "model.safetensors").unlink()  # a snapshot that is not whole
    with pytest.raises(FetchError, match="someone/tiny"):
        load("someone/tiny")


# What is chosen


def test_the_type_is_chosen_by_what_the_processor_multiplies(folder, tmp_path, monkeypatch):
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(loading, "_CPU_FLAGS", flags)
    for text, expected in (
        ("flags : fma avx512f avx512_bf16 sse", torch.bfloat16),
        ("flags : amx_bf16 amx_tile", torch.bfloat16),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16 amx_tile", torch.bfloat16),
        ("vendor_id : GenuineIntel\nflags : fma avx512_bf16", torch.float32),  # slower there
        ("Features : asimd bf16 i8mm", torch.bfloat16),
        ("flags : fma avx512f", torch.float32),
        (None, torch.float32),
    ):
        flags.unlink(missing_ok=True)
        if text is not None:
            flags.write_text(text)
        assert load(str(folder), device="cpu").dtype == expected
    assert load(str(folder), dtype=torch.float16).dtype == torch.float16
    assert load(str(folder), dtype="bfloat16", device="cpu").device == torch.device("cpu")


def test_a_cuda_device_computes_in_bf16_whatever_the_processor_multiplies(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_CPU_FLAGS", tmp_path / "absent")
    assert loading._dtype(None, torch.device("cpu")) == torch.float32
    assert loading._dtype(None, torch.device("cuda")) == torch.bfloat16
    assert loading._dtype(None, torch.device("cuda:1")) == torch.bfloat16
    assert loading._dtype("float32", torch.device("cuda")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading._device(None) == torch.device("cuda")


@pytest.mark.parametrize(
    "options", [{"dtype": "int8"}, {"dtype": "bf"}, {"device": "abacus"}, {"device": "cuda:99"}]
)
def test_a_device_or_type_that_is_not_there_is_refused(folder, options):
    with pytest.raises(UsageError) as error:
        load(str(folder), **options)
    assert "\n" not in str(error.value)


# What is refused


def _one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_near_names_are_offered():
    with pytest.raises(UnknownModelError) as error:
        load("smollm-135m-instruct")
    assert "did you mean smollm2-135m-instruct?" in _one_line(error)
    with pytest.raises(UnknownModelError) as error:
        load("/nowhere/at all")
    assert "for example smollm2-135m-instruct" in _one_line(error)


def test_a_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch):
    for offline in (True, False):  # told so, and found so: conftest lets nothing out
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        with pytest.raises(FetchError) as error:
            load("someone/a-model-nobody-has")
        assert "go online" in _one_line(error)


def test_a_folder_that_is_no_model_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownModelError, match=r"no config\.json"):
        load(str(tmp_path / "empty"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnknownModelError) as error:
        load(str(folder))
    assert str(folder) in _one_line(error)
    weights.unlink()
    with pytest.raises(UnknownModelError, match=r"no model\.safetensors"):
        load(str(folder))


def test_an_architecture_that_nobody_knows_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    with pytest.raises(UnknownModelError) as error:
        load(str(folder))
    assert "unheard-of" in _one_line(error)


def test_a_gguf_file_that_cannot_be_read_is_refused(tmp_path):
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF but not really")
    with pytest.raises(UnknownModelError) as error:
        load(str(file))
    assert "bad.gguf" in _one_line(error)


@ignore_peft
def test_an_adapter_that_is_none_or_does_not_fit_or_cannot_be_read(
    folder, adapter, tmp_path, monkeypatch
):
    path, _ = adapter
    with pytest.raises(UnknownModelError, match="adapter_config"):
        load(f"{folder}+{folder}")
    other = tmp_path / "other"
    tiny("llama", hidden_size=16, head_dim=4).model.save_pretrained(other)
    tiny("llama").tokenizer.save_pretrained(other)
    with pytest.raises(UsageError, match="of this shape") as error:
        load(f"{other}+{path}")
    _one_line(error)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"brainscan\[stress\]"):
        load(f"{folder}+{path}")


# Text and tokens


def test_token_strings_show_the_bytes_of_a_split_character(lm):
    ids = lm.tokenize("the é <|im_end|>")
    assert lm.token_strings(ids) == ["the", " ", "\\xc3", "\\xa9", " ", "<|im_end|>"]
    assert lm.decode(ids) == "the é <|im_end|>"
    assert len(lm.tokenize("<|im_end|>")) == 1


def test_the_opening_is_what_the_tokenizer_puts_before_a_text(lm, opening_lm):
    assert lm.opening == ()
    assert opening_lm.opening == (opening_lm.tokenizer.convert_tokens_to_ids("<|endoftext|>"),)
    assert opening_lm.tokenize("the day") == lm.tokenize("the day")


def test_chats_go_through_the_template_or_are_plain_text(lm):
    turns = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
    expected = "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    assert lm.decode(lm.chat_tokens(turns, generation_prompt=False)) == expected
    assert lm.decode(lm.chat_tokens(turns)) == f"{expected}<|im_start|>assistant\n"
    lm.tokenizer.chat_template = None
    assert lm.decode(lm.chat_tokens("hi")) == "User: hi\n\nAssistant:"
    lm.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UsageError, match="no system role"):
        lm.chat_tokens(turns)


def test_generation_and_chat(lm):
    assert isinstance(lm.chat("the day"), str)
    assert len(lm.generate([[9, 41], [7]])) == 2
