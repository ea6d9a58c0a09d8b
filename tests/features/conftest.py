from __future__ import annotations

import json
import random

import pytest

from brainscan.activations import open_corpus
from brainscan.dictionaries.testing import random_dictionary
from brainscan.features import Atlas, AtlasConfig, build_atlas
from brainscan.models.tiny import tiny

TEXT = "the day that you was not one with word and god light earth heaven"
WORDS = TEXT.split(" ")


@pytest.fixture(scope="session")
def lm():
    return tiny("llama")


@pytest.fixture(scope="session")
def dictionary(lm):
    return random_dictionary(lm.d_model, n_latents=48, k=4, hookpoint="resid_post.1")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    lines = []
    chance = random.Random(0)
    for _ in range(200):
        words = chance.choices(WORDS, k=20)
        lines.append(json.dumps({"text": " ".join(words) + ".\n"}))
    path.write_text("\n".join(lines))
    return open_corpus(path)


@pytest.fixture(scope="session")
def atlas_path(lm, dictionary, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas") / "atlas"
    return build_atlas(lm, dictionary, corpus, AtlasConfig(4000, None, 128), out=out)


@pytest.fixture(scope="session")
def atlas(atlas_path):
    return Atlas.open(atlas_path)
