"""The dictionaries and atlases that come with the package are what the documents say they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from brainscan.artifacts import open_artifact, read_manifest
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.base import SHIPPED, shipped_dictionaries
from brainscan.features import Atlas
from brainscan.features import atlas as atlases

MODEL = "smollm2-135m-instruct"
NAMES = [f"{MODEL}/resid_post.{layer}" for layer in (15, 22, 8)]


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_three_dictionaries_are_shipped_and_are_small_together():
    assert [name for name in shipped_dictionaries() if name.startswith(f"{MODEL}/")] == NAMES
    assert sum(size(SHIPPED / name) for name in NAMES) <= 30e6
    first, *others = (read_manifest(SHIPPED / name).settings for name in NAMES)
    assert all(settings == first for settings in others)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_dictionary_is_as_promised(name):
    manifest = open_artifact(SHIPPED / name, kind="dictionary")
    dictionary = Dictionary.load(name)
    assert (dictionary.n_latents, dictionary.k) == (4096, 32)
    assert manifest.hookpoints == (dictionary.hookpoint,) == (name.split("/")[1],)
    assert manifest.model is not None
    assert manifest.model.id == MODEL
    assert manifest.figures["tokens"] >= 5_000_000
    assert manifest.settings["sparsifier"] == "topk"
    assert manifest.settings["corpus"]["spec"] == "builtin"
    with safe_open(SHIPPED / name / "weights.safetensors", framework="pt") as file:
        for matrix in ("W_enc", "W_dec"):
            assert file.get_slice(matrix).get_dtype() == "BF16"
            assert 4096 in file.get_slice(matrix).get_shape()


@pytest.mark.parametrize("name", NAMES)
def test_its_atlas_is_shipped_small_and_of_this_very_dictionary(name):
    folder = atlases.SHIPPED / name
    assert size(folder) <= 5e6
    manifest = open_artifact(folder, kind="atlas")
    dictionary = Dictionary.load(name)
    assert dictionary.manifest is not None
    assert manifest.parents == {"dictionary": dictionary.manifest.digest}
    assert manifest.model == dictionary.manifest.model
    found = Atlas.find(dictionary)
    assert found is not None
    assert found.path == folder
    assert found.n_latents == 4096
