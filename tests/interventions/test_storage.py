from __future__ import annotations

import json
import shutil

import pytest
import torch

from brainscan.artifacts import read_manifest
from brainscan.dictionaries import Dictionary, base
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError, UnknownDictionaryError
from brainscan.interventions import (
    Ablate,
    AblateSet,
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
        AblateSet(("neurons.1/3+", "neurons.1/5"), torch.tensor([0.25, -1e-7]), -0.5),
        AblateSet(
            (_direction("one", torch.ones(32)), _direction("three")),
            torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
            positions=Where(Probe(_direction("probe"), 0.5), -1.0, within="response"),
        ),
    )


def test_edits_come_back_as_they_were(tmp_path, edits, lm):
    save_edits(tmp_path / "edits", edits, model=lm.ref)
    assert load_edits(tmp_path / "edits") == edits
    manifest = read_manifest(tmp_path / "edits", kind="edits")
    assert manifest.model == lm.ref
    assert manifest.hookpoints == ("neurons.1", "neurons.2", "resid_post.0", "resid_post.1")
    assert set(manifest.files) == {"edits.json", "directions.safetensors"}


def test_loaded_edits_do_the_same(tmp_path, run, dictionary, active):
    means = torch.rand(4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    edits = (
        Clamp(active[0], 2.0, dictionary=dictionary),
        Add(_direction("x"), 0.5),
        AblateSet(tuple(active), means, 0.7, dictionary=dictionary),
    )
    save_edits(tmp_path / "edits", edits)
    loaded = load_edits(tmp_path / "edits", [dictionary])
    assert torch.equal(run("resid_post.1", *loaded), run("resid_post.1", *edits))
    assert not loaded[2].to.requires_grad
    assert loaded[2].dictionary is dictionary


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


def test_a_dictionary_is_carried_along_where_asked_for(tmp_path):
    folder = tmp_path / "dictionary"
    random_dictionary(32).save(folder)
    dictionary = Dictionary.load(folder)
    edit = Clamp("resid_post.1/3", 1.0, dictionary=dictionary)
    save_edits(tmp_path / "edits", [edit], carry=True)
    shutil.rmtree(folder)
    (tmp_path / "edits").rename(tmp_path / "elsewhere")
    (loaded,) = load_edits(tmp_path / "elsewhere")
    assert torch.equal(loaded.dictionary.W_dec, dictionary.W_dec)
    assert loaded.dictionary.manifest.digest == dictionary.manifest.digest


def test_another_dictionary_of_the_same_name_is_refused(tmp_path):
    folder = tmp_path / "dictionary"
    random_dictionary(32).save(folder)
    first = Dictionary.load(folder)
    save_edits(tmp_path / "edits", [Clamp("resid_post.1/3", 1.0, dictionary=first)])
    random_dictionary(32, seed=1).save(folder)
    second = Dictionary.load(folder)
    digests = rf"{first.manifest.digest}.*{second.manifest.digest}"
    with pytest.raises(ArtifactError, match=digests):
        load_edits(tmp_path / "edits")
    with pytest.raises(ArtifactError, match=digests):
        load_edits(tmp_path / "edits", [second])
    (edit,) = load_edits(tmp_path / "edits", [first])
    assert edit.dictionary is first


def test_the_shipped_dictionary_is_recorded_where_none_was_passed(tmp_path, lm, monkeypatch):
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    folder = tmp_path / "shipped" / lm.name / "resid_post.1"
    folder.parent.mkdir(parents=True)
    random_dictionary(32).save(folder)
    digest = read_manifest(folder).digest
    edits = (
        Clamp("resid_post.1/3", 1.0),
        Clamp("resid_post.2/3", 1.0),
        Clamp("neurons.1/3", 1.0),
        Add(_direction("x"), 0.5, positions=Where("resid_post.1/2", 0.5)),
    )
    swap = Swap("resid_post.1/1", "resid_post.1/2")
    ablated = AblateSet(("resid_post.1/1", "resid_post.1/2"), torch.zeros(2))
    for chosen in (edits, edits[1:], (swap,), (ablated,)):
        save_edits(tmp_path / "edits", chosen, model=lm.ref)
        parents = read_manifest(tmp_path / "edits").parents
        assert parents == {f"{lm.name}/resid_post.1": digest}
        assert load_edits(tmp_path / "edits") == chosen
    random_dictionary(32, seed=1).save(folder)
    with pytest.raises(ArtifactError, match=rf"{digest}.*{read_manifest(folder).digest}"):
        load_edits(tmp_path / "edits")
    save_edits(tmp_path / "edits", edits)
    assert read_manifest(tmp_path / "edits").parents == {}


def test_the_shipped_dictionarys_digest_is_read_once_for_a_set(tmp_path, lm, monkeypatch):
    from brainscan.interventions import storage

    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    folder = tmp_path / "shipped" / lm.name / "resid_post.1"
    folder.parent.mkdir(parents=True)
    random_dictionary(32).save(folder)
    asked, manifest = [], storage._manifest
    monkeypatch.setattr(storage, "_manifest", lambda name: asked.append(name) or manifest(name))
    targets = tuple(f"resid_post.1/{latent}" for latent in range(20))
    save_edits(tmp_path / "edits", [AblateSet(targets, torch.zeros(20))], model=lm.ref)
    assert asked == [f"{lm.name}/resid_post.1"]


def test_conditions_saved_before_they_had_a_part_of_the_text(tmp_path, monkeypatch):
    from brainscan.interventions import storage

    plain = json.dumps
    edit = Clamp("resid_post.1/3", 2.0, positions=Where("resid_post.0/9", 1.0))

    def without(value, **options):
        if isinstance(value, list):
            assert value[0]["positions"]["where"].pop("within") == "all"
        return plain(value, **options)

    monkeypatch.setattr(storage.json, "dumps", without)
    save_edits(tmp_path / "edits", [edit])
    monkeypatch.undo()
    assert "within" not in (tmp_path / "edits" / "edits.json").read_text()
    assert load_edits(tmp_path / "edits") == (edit,)


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
