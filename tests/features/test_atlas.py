"""An atlas agrees with what the model and the dictionary say themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pyarrow import parquet

from brainscan.activations import open_corpus, pack
from brainscan.artifacts import open_artifact
from brainscan.dictionaries import Address
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError, UnknownFeatureError, UsageError
from brainscan.features import Atlas, AtlasConfig, build_atlas
from brainscan.features.examples import TOP
from brainscan.features.index import dictionary_digest
from brainscan.features.outputs import neighbours, outputs
from brainscan.features.reading import read
from brainscan.features.search import FIRES
from brainscan.features.tables import DOUBT
from brainscan.features.words import words_of
from brainscan.models.tiny import tiny


@pytest.fixture(scope="module")
def dense(lm, dictionary, corpus):
    """Every latent at every token of the atlas' text, sinks at 0."""
    contexts = list(pack(lm, corpus.documents(None, 0), 128))[:32]
    rows = []
    for start in range(0, len(contexts), 4):
        tokens = torch.stack([context.tokens for context in contexts[start : start + 4]])
        reading = read(lm, tokens, dictionary.hookpoint)
        code = dictionary.dense(dictionary.encode(reading.values.flatten(0, 1)))
        rows.append(code * reading.sinks.flatten().logical_not()[:, None])
    return torch.cat(rows)


def column(path, table, name):
    return parquet.read_table(path / f"{table}.parquet")[name].to_pylist()


def test_rates_and_maxima_are_those_of_the_text(atlas, atlas_path, dense):
    fired = np.array(column(atlas_path, "latents", "fired"))
    assert np.array_equal(fired, (dense > 0).sum(0).numpy())
    manifest = atlas.manifest
    assert manifest.figures["tokens"] + manifest.figures["sinks"] == len(dense) == 4096
    card = atlas.feature(f"resid_post.1/{fired.argmax()}")
    assert card.firing_rate == pytest.approx(fired.max() / manifest.figures["tokens"])
    assert card.grade == "U"


def test_the_top_examples_are_the_strongest_of_their_documents(atlas, atlas_path, dense):
    documents = torch.tensor(column(atlas_path, "text", "document"))
    for latent in dense.sum(0).topk(3).indices.tolist():
        best = [float(dense[documents == d, latent].max()) for d in documents.unique().tolist()]
        wanted = sorted((value for value in best if value > 0), reverse=True)[:TOP]
        top = atlas.feature(f"resid_post.1/{latent}").groups[0]
        assert top.name == "highest"
        assert [e.activation for e in top.examples] == pytest.approx(wanted, rel=1e-3)


def test_windows_hold_the_activations_of_their_tokens(lm, atlas, atlas_path, dense, dictionary):
    table = parquet.read_table(atlas_path / "examples.parquet").to_pylist()
    tokens = column(atlas_path, "text", "token")
    documents = column(atlas_path, "text", "document")
    for row in table[:: len(table) // 50]:
        start = row["peak"] - row["before"]
        places = list(range(start, start + len(row["shares"])))
        assert {documents[p] for p in places} == {documents[row["peak"]]}
        assert {p // 128 for p in places} == {row["peak"] // 128}
        shares = np.frombuffer(row["shares"], np.uint8) / 255
        wanted = dense[places, row["latent"]].clamp(max=1.0)
        assert shares == pytest.approx(wanted.numpy(), abs=0.003)
    example = atlas.feature("resid_post.1/5").groups[0].examples[0]
    strings = lm.token_strings(tokens)
    assert "".join(example.tokens) in "".join(strings)


def test_bands_hold_what_their_names_say(atlas, dense):
    for latent in range(8):
        values = dense[:, latent][dense[:, latent] > 0].numpy()
        if len(values) > 120:
            continue
        card = atlas.feature(f"resid_post.1/{latent}")
        bands = {group.name: group.examples for group in card.groups}
        for example in bands.get("below the median", ()):
            assert example.activation <= np.quantile(values, 0.55) * 1.001
        for example in bands.get("50th to 90th percentile", ()):
            assert example.activation >= np.quantile(values, 0.45) * 0.999


def test_quantiles_rise_to_the_maximum(atlas):
    for latent in range(48):
        card = atlas.feature(f"resid_post.1/{latent}")
        values = [value for _, value in card.quantiles]
        assert values == sorted(values)


def test_two_builds_are_byte_identical(lm, dictionary, corpus, atlas, tmp_path):
    again = build_atlas(lm, dictionary, corpus, AtlasConfig(4000, None, 128), out=tmp_path / "a")
    assert open_artifact(again).files == atlas.manifest.files
    assert open_artifact(again).digest == atlas.manifest.digest


def test_the_manifest_names_the_dictionary(atlas, dictionary, lm):
    assert atlas.manifest.kind == "atlas"
    assert atlas.manifest.parents == {"dictionary": dictionary_digest(dictionary)}
    assert atlas.manifest.model == lm.ref
    assert not any(name.endswith(".tmp") for name in atlas.manifest.files)


def test_search_ranks_by_share_and_recall(atlas, atlas_path, lm, dense):
    """The score, counted out again from every activation of the text."""
    tokens = column(atlas_path, "text", "token")
    words = []
    for start in range(0, len(tokens), 128):
        words += words_of(lm.token_strings(tokens[start : start + 128]))
    here = torch.tensor([word == "heaven" for word in words])
    share = dense[here].sum(0) / (dense.sum(0) + DOUBT)
    recall = (dense[here] > 0).sum(0) / here.sum()
    score = (2 * share * recall / (share + recall)).nan_to_num() * FIRES
    hits = atlas.search("heaven", limit=5)
    best = score.topk(5)
    assert [hit.id for hit in hits] == [f"resid_post.1/{n}" for n in best.indices.tolist()]
    assert [hit.score for hit in hits] == pytest.approx(best.values.tolist(), rel=2e-3)


def test_search_is_deaf_to_case_and_signs(atlas):
    hits = atlas.search("heaven", limit=3)
    assert hits == atlas.search(" HEAVEN? ", limit=3)
    assert len(hits) == 3 and all(hit.examples for hit in hits)
    json.dumps([hit.to_json() for hit in hits])
    both = atlas.search("heaven light", limit=48)
    assert [hit.score for hit in both] == sorted((hit.score for hit in both), reverse=True)


def test_search_for_what_is_not_there_finds_nothing(atlas):
    assert atlas.search("zyzzyva") == []


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_search_is_refused(atlas, query):
    with pytest.raises(UsageError):
        atlas.search(query)


@pytest.mark.parametrize("query", ["'; DROP TABLE words; --", '"', "%", "\\", "$term", "😀"])
def test_hostile_searches_are_only_text(atlas, query):
    atlas.search(query)
    assert atlas.search("heaven")


@pytest.mark.parametrize("address", ["resid_post.1/48", "resid_post.2/0", "resid_post.1/3+"])
def test_a_latent_that_is_not_there_is_named(atlas, address):
    with pytest.raises(UnknownFeatureError, match=address.replace("+", r"\+")):
        atlas.feature(address)
    with pytest.raises(UnknownFeatureError):
        atlas.label(Address.parse(address))


def test_a_card_is_json_and_html(atlas):
    card = atlas.feature("resid_post.1/5")
    told = json.loads(json.dumps(card.to_json()))
    assert told["id"] == "resid_post.1/5"
    assert told["label"] == atlas.label("resid_post.1/5")
    assert len(told["promoted"]) == len(told["suppressed"]) == 10
    assert len(told["neighbours"]) == 6
    assert "resid_post.1/5" in card.to_html()
    assert card._repr_html_().startswith("<div")


def test_an_altered_atlas_is_refused(atlas_path, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(atlas_path, copy)
    with (copy / "text.parquet").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(ArtifactError, match="sha256"):
        Atlas.open(copy)


def test_an_atlas_is_built_once_and_found_again(lm, dictionary, corpus, tmp_path, monkeypatch):
    from brainscan import activations

    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path))
    monkeypatch.setattr(activations, "open_corpus", lambda: corpus)
    monkeypatch.setattr("brainscan.features.index.DEFAULT_CONTEXT", 128)
    assert Atlas.find(dictionary) is None
    with pytest.raises(UsageError, match="give the model"):
        Atlas.for_dictionary(dictionary)
    built = Atlas.for_dictionary(dictionary, lm)
    assert Atlas.for_dictionary(dictionary).manifest == built.manifest
    other = random_dictionary(lm.d_model, n_latents=48, k=4, hookpoint="resid_post.1", seed=1)
    assert Atlas.find(other) is None


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_promoted_tokens_are_those_whose_logits_rise(family):
    """Predict, intervene on the last layer's output, compare."""
    lm = tiny(family)
    last = f"resid_post.{lm.n_layers - 1}"
    dictionary = random_dictionary(lm.d_model, n_latents=4, k=2, hookpoint=last)
    predicted = outputs(lm, dictionary, 5)
    ids = torch.tensor([lm.tokenize("the day that you was")])
    stream = read(lm, ids, last).values[0, -1]
    norm = stream.norm()
    for latent in range(4):
        row = dictionary.W_dec[latent]
        change = _logits_with(lm, ids, last, 1e-3 * norm * row) - _logits_with(
            lm, ids, last, -1e-3 * norm * row
        )
        change = change - change.mean()
        # The norm's division also turns the stream itself down; that part is not the latent's.
        own = _logits_with(lm, ids, last, 1e-3 * stream) - _logits_with(
            lm, ids, last, -1e-3 * stream
        )
        assert own.abs().max() < change.abs().max()
        up = predicted.promoted[latent]
        assert change[up].mean() > change.quantile(0.8)
        assert change[predicted.suppressed[latent]].mean() < change.quantile(0.2)


def _logits_with(lm, ids, hookpoint, added):
    class Push:
        def attach(self, lm):
            return [(hookpoint, lambda x, site: x + added)]

    with lm.edit(Push()):
        return lm.forward(ids)[0, -1]


def test_neighbours_are_the_nearest_others(dictionary):
    rows = torch.nn.functional.normalize(dictionary.W_dec)
    cosines = rows @ rows.T - 3 * torch.eye(len(rows))
    found = neighbours(dictionary, 4)
    assert torch.equal(found.latents, cosines.topk(4).indices)
    assert torch.allclose(found.cosines, cosines.topk(4).values, atol=1e-6)


def test_a_corpus_of_one_short_text_will_do(lm, dictionary, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("one day that you was not")
    config = AtlasConfig(100, None, 128)
    out = build_atlas(lm, dictionary, open_corpus(file), config, out=tmp_path / "a")
    assert Atlas.open(out).feature("resid_post.1/0")


def test_no_tokens_are_refused():
    with pytest.raises(UsageError, match="1 token"):
        AtlasConfig(0)
