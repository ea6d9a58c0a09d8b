"""Codes, round trips through the disk, and what is wrong with a dictionary is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainscan.artifacts import ModelRef
from brainscan.dictionaries import Address, Dictionary
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import (
    ArtifactError,
    DictionaryMismatchError,
    UnknownDictionaryError,
    UnknownFeatureError,
    UsageError,
)
from brainscan.models.tiny import tiny


@given(
    st.sampled_from(["resid_post", "neurons", "attn_out"]),
    st.integers(0, 99),
    st.integers(0, 10**6),
    st.sampled_from(["", "+", "-"]),
)
def test_addresses_survive_printing(site: str, layer: int, index: int, sign: str) -> None:
    address = Address(f"{site}.{layer}", index, sign)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "resid_post/3", "resid_post.1/", "resid_post.1/x", "1/2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOOKPOINT/NUMBER"):
        Address.parse(text)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_at_most_k_latents_are_active(k: int, seed: int) -> None:
    dictionary = random_dictionary(16, 64, k, seed=seed)
    code = dictionary.encode(torch.randn(7, 16, generator=torch.Generator().manual_seed(seed)))
    assert code.indices.shape == (7, k)
    assert (code.values >= 0).all()


def test_no_tokens_have_an_empty_code() -> None:
    for threshold in (None, 0.5):
        dictionary = replace(random_dictionary(16, 64, 4), threshold=threshold)
        assert dictionary.encode(torch.zeros(2, 0, 16)).values.shape == (2, 0, 4)


def test_many_tokens_are_encoded_as_few_are() -> None:
    dictionary = random_dictionary(32, 512, 8)
    x = torch.randn(300, 32)
    with torch.no_grad():
        many = dictionary.encode(x)
        few = [dictionary.encode(part) for part in x.split(50)]
    torch.testing.assert_close(many.values.sum(1), torch.cat([code.values for code in few]).sum(1))
    same = many.indices == torch.cat([code.indices for code in few])
    assert same.float().mean() > 0.999


def test_a_threshold_decides_for_each_token_alone() -> None:
    dictionary = replace(random_dictionary(16, 64, 4), threshold=0.8)
    x = torch.randn(200, 16)
    with torch.no_grad():
        together = dictionary.dense(dictionary.encode(x))
        alone = torch.cat([dictionary.dense(dictionary.encode(row)) for row in x.split(1)])
    torch.testing.assert_close(together, alone)
    assert together[together > 0].min() > 0.8


def test_decoding_is_the_weighted_sum_of_rows() -> None:
    dictionary = random_dictionary(16, 64, 4)
    code = dictionary.encode(torch.randn(2, 3, 16))
    expected = dictionary.dense(code) @ dictionary.W_dec + dictionary.b_dec
    torch.testing.assert_close(dictionary.decode(code), expected)


def test_activations_of_chosen_latents_are_those_of_the_code() -> None:
    dictionary = random_dictionary(16, 64, 4)
    x = torch.randn(2, 3, 16)
    dense = dictionary.dense(dictionary.encode(x))
    torch.testing.assert_close(dictionary.activations_of(x, [5, 60]), dense[..., [5, 60]])
    with pytest.raises(UnknownFeatureError, match="from 0 to 63"):
        dictionary.activations_of(x, [64])


def test_saving_and_loading_gives_the_same_dictionary(tmp_path: Path) -> None:
    dictionary = replace(random_dictionary(16, 64, 4), model=ModelRef("tiny", "ab"))
    dictionary.save(tmp_path / "d")
    loaded = Dictionary.load(tmp_path / "d")
    assert (loaded.k, loaded.hookpoint, loaded.model) == (4, "resid_post.1", ModelRef("tiny", "ab"))
    assert torch.equal(loaded.W_dec, dictionary.W_dec.bfloat16().float())
    loaded.save(tmp_path / "again")
    assert Dictionary.load(tmp_path / "again").manifest == loaded.manifest


def test_an_altered_dictionary_is_refused(tmp_path: Path) -> None:
    random_dictionary(16).save(tmp_path / "d")
    path = tmp_path / "d" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        Dictionary.load(tmp_path / "d")
    path.write_bytes(data[:100])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        Dictionary.load(tmp_path / "d")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownDictionaryError, match="nonesuch"):
        Dictionary.load("nonesuch/resid_post.1")


def test_another_width_is_an_error_and_other_weights_one_warning() -> None:
    lm = tiny("llama")
    with pytest.raises(DictionaryMismatchError, match="of width 16"):
        random_dictionary(16).check_model(lm)
    stranger = replace(random_dictionary(lm.d_model), model=ModelRef("other", "cd"))
    with pytest.warns(UserWarning, match=r"was trained on other.* FVU here is \d"):
        stranger.check_model(lm)
    stranger.check_model(lm)  # warnings are errors here: each edit asks again
