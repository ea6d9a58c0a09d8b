from __future__ import annotations

import json

import pytest
import torch

from brainscan.artifacts import read_manifest
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError, UnknownDictionaryError
from brainscan.interventions import (
    Ablate,
    Add,
    Clamp,
    Direction,
    Probe,
    ProjectOut,
    Scale,
    Span,
    Swap,
    Where,
    load_edits,
    save_edits,
)


def _direction(name, mean=None):
    generator = torch.Generator().manual_seed(len(name))
    return Direction("resid_post.1", torch.randn(32, generator=generator), name, mean)


@pytest.fixture
def edits():
    return (
        Clamp("resid_post.1/3", 2.0, positions=Span(2)),
        Add(_direction("sentiment", torch.ones(32)), -0.5, positions="response"),
        Scale("neurons.2/5+", 0.25, maximum=1.5, positions=Span(1, 7)),
        Ablate("resid_post.1/4", 0.1, positions=Where("resid_post.0/9", 1.0)),
        ProjectOut(_direction("refusal"), positions=Where(Probe(_direction("probe"), 0.5), -1.0)),
        Swap("resid_post.1/3", "resid_post.1/4", sinks=True),
    )


def test_edits_come_back_as_they_were(tmp_path, edits, lm):
    save_edits(tmp_path / "edits", edits, model=lm.ref)
    assert load_edits(tmp_path / "edits") == edits
    manifest = read_manifest(tmp_path / "edits", kind="edits")
    assert manifest.model == lm.ref
    assert manifest.hookpoints == ("neurons.2", "resid_post.0", "resid_post.1")
    assert set(manifest.files) == {"edits.json", "directions.safetensors"}


def test_loaded_edits_do_the_same(tmp_path, run, dictionary, active):
    edits = (Clamp(active[0], 2.0, dictionary=dictionary), Add(_direction("x"), 0.5))
    save_edits(tmp_path / "edits", edits)
    loaded = load_edits(tmp_path / "edits", [dictionary])
    assert torch.equal(run("resid_post.1", *loaded), run("resid_post.1", *edits))


def test_edits_without_directions(tmp_path):
    edits = (Clamp("resid_post.1/3", 2.0),)
    save_edits(tmp_path / "edits", edits)
    assert load_edits(tmp_path / "edits") == edits
    save_edits(tmp_path / "none", [])
    assert load_edits(tmp_path / "none") == ()


def test_a_strength_that_is_a_tensor_is_saved_as_its_number(tmp_path):
    strength = torch.tensor(1.5, requires_grad=True)
    save_edits(tmp_path / "edits", [Add("resid_post.1/3", strength)])
    assert load_edits(tmp_path / "edits") == (Add("resid_post.1/3", 1.5),)


def test_a_dictionary_is_kept_by_name_and_digest(tmp_path):
    folder = tmp_path / "dictionary"
    random_dictionary(32).save(folder)
    from brainscan.dictionaries import Dictionary

    dictionary = Dictionary.load(folder)
    save_edits(tmp_path / "edits", [Clamp("resid_post.1/3", 1.0, dictionary=dictionary)])
    manifest = read_manifest(tmp_path / "edits")
    assert manifest.parents == {str(folder): dictionary.manifest.digest}
    (loaded,) = load_edits(tmp_path / "edits")
    assert torch.equal(loaded.dictionary.W_dec, dictionary.W_dec)
    unsaved = Clamp("resid_post.1/3", 1.0, dictionary=random_dictionary(32))
    save_edits(tmp_path / "edits", [unsaved])
    with pytest.raises(UnknownDictionaryError, match="random"):
        load_edits(tmp_path / "edits")


@pytest.mark.parametrize("name", ["edits.json", "directions.safetensors"])
def test_truncated_and_altered_files_are_refused(tmp_path, edits, name):
    save_edits(tmp_path / "edits", edits)
    file = tmp_path / "edits" / name
    whole = file.read_bytes()
    for damaged in (whole[:-3], whole[:-1] + b"?"):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"sha256.*altered"):
            load_edits(tmp_path / "edits")
    file.unlink()
    with pytest.raises(ArtifactError, match=name):
        load_edits(tmp_path / "edits")


def test_another_kind_of_artifact_is_refused(tmp_path):
    random_dictionary(32).save(tmp_path / "dictionary")
    with pytest.raises(ArtifactError, match="edits"):
        load_edits(tmp_path / "dictionary")


def test_edits_of_another_version_are_refused(tmp_path, monkeypatch):
    from brainscan.interventions import storage

    plain = json.dumps
    line = [{"edit": "Twirl", "target": "resid_post.1/3"}]
    monkeypatch.setattr(storage.json, "dumps", lambda *args, **options: plain(line))
    with pytest.raises(ArtifactError, match="Twirl"):
        try:
            save_edits(tmp_path / "edits", [])
        finally:
            monkeypatch.undo()
        load_edits(tmp_path / "edits")
