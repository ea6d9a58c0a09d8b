from __future__ import annotations

import json
import sys
from contextlib import contextmanager

import pytest
import torch

from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import DictionaryMismatchError, UnknownFeatureError, UsageError
from brainscan.features import scan
from brainscan.features.reading import read

TEXT = "the day that you was not one with"


def test_each_token_has_its_most_active_latents(lm, dictionary, atlas):
    result = scan(lm, TEXT, dictionary, atlas, top=3)
    ids = lm.tokenize(TEXT)
    reading = read(lm, torch.tensor([ids]), dictionary.hookpoint)
    dense = dictionary.dense(dictionary.encode(reading.values[0]))
    assert "".join(token.text for token in result.tokens) == TEXT
    assert [token.position for token in result.tokens] == list(range(len(ids)))
    for i, token in enumerate(result.tokens):
        assert token.sink == bool(reading.sinks[0, i])
        if token.sink:
            assert token.latents == ()
            continue
        best = dense[i].topk(3)
        found = [(a.id, a.activation) for a in token.latents]
        assert [a for a, _ in found] == [f"resid_post.1/{n}" for n in best.indices.tolist()]
        assert [v for _, v in found] == pytest.approx(best.values.tolist(), rel=1e-4)
        assert all(a.label == atlas.label(a.id) for a in token.latents)


def test_a_scan_is_json_and_html(lm, dictionary, atlas):
    result = scan(lm, TEXT, dictionary, atlas)
    told = json.loads(json.dumps(result.to_json()))
    assert told["tokens"][0]["sink"] is True
    assert told["tokens"][1].keys() == {"text", "position", "sink", "latents"}
    assert told["tokens"][1]["latents"][0].keys() == {"id", "activation", "label"}
    assert result.to_html().startswith("<!doctype html>")
    assert "bs-strip" in result._repr_html_()
    assert result.n_sinks >= 1


def test_without_an_atlas_labels_say_what_is_promoted(lm, dictionary, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path))
    result = scan(lm, TEXT, dictionary)
    labels = [a.label for token in result.tokens for a in token.latents]
    assert labels and all(text.startswith("promotes ") for text in labels)


def test_a_long_text_is_read_in_windows_with_context(lm, dictionary, atlas, monkeypatch):
    module = sys.modules["brainscan.features.scan"]
    monkeypatch.setattr(module, "WINDOW", 40)
    monkeypatch.setattr(module, "OVERLAP", 10)
    text = " ".join([TEXT] * 20)
    result = scan(lm, text, dictionary, atlas)
    assert "".join(token.text for token in result.tokens) == text
    assert [token.position for token in result.tokens] == list(range(len(result.tokens)))
    assert result.n_sinks < len(result.tokens) / 10
    ids = lm.tokenize(text)
    reading = read(lm, torch.tensor([ids[30:70]]), dictionary.hookpoint)
    dense = dictionary.dense(dictionary.encode(reading.values[0, 10:]))
    token = result.tokens[40]
    assert token.latents[0].activation == pytest.approx(float(dense[0].max()), rel=1e-4)


def test_a_chat_goes_through_the_template(lm, dictionary, atlas):
    messages = [{"role": "user", "content": "the day"}]
    result = scan(lm, messages, dictionary, atlas)
    assert result.tokens[0].text == "<|im_start|>"
    assert result.tokens[-2].text == "<|im_end|>"


def test_every_window_of_a_text_begins_as_in_training(opening_lm, dictionary, monkeypatch):
    module = sys.modules["brainscan.features.scan"]
    monkeypatch.setattr(module, "WINDOW", 41)
    monkeypatch.setattr(module, "OVERLAP", 10)
    result = scan(opening_lm, " ".join([TEXT] * 10), dictionary)
    assert result.tokens[0].text == "<|endoftext|>" and result.tokens[0].sink
    assert "".join(token.text for token in result.tokens[1:]) == " ".join([TEXT] * 10)
    ids = opening_lm.tokenize(" ".join([TEXT] * 10))
    for start, at in ((0, 5), (30, 10)):
        row = torch.tensor([[*opening_lm.opening, *ids[start : start + 40]]])
        x = read(opening_lm, row, dictionary.hookpoint).values[0, 1 + at]
        found = result.tokens[1 + start + at].latents[0].activation
        assert found == pytest.approx(float(dictionary.encode(x).values.max()), rel=1e-4)


def test_a_bar_counts_every_token_of_a_long_text_once(opening_lm, dictionary, monkeypatch):
    module = sys.modules["brainscan.features.scan"]
    monkeypatch.setattr(module, "WINDOW", 41)
    monkeypatch.setattr(module, "OVERLAP", 10)
    totals, advances = [], []

    @contextmanager
    def bar(label, total, unit):
        totals.append(total)
        yield advances.append

    monkeypatch.setattr(module, "progress", bar)
    result = scan(opening_lm, " ".join([TEXT] * 10), dictionary)
    assert totals == [len(result.tokens)]
    assert sum(advances) == len(result.tokens)
    assert len(advances) > 2


def test_bad_input_is_refused(lm, dictionary, atlas):
    with pytest.raises(UsageError, match="empty"):
        scan(lm, "", dictionary, atlas)
    with pytest.raises(UsageError, match="top"):
        scan(lm, TEXT, dictionary, atlas, top=0)
    with pytest.raises(DictionaryMismatchError):
        scan(lm, TEXT, random_dictionary(16, hookpoint="resid_post.1"))


def test_a_single_token_can_be_scanned(lm, dictionary, atlas):
    result = scan(lm, "the", dictionary, atlas)
    assert len(result.tokens) == 1 and result.tokens[0].sink


def test_followed_latents_come_first_with_their_shares(lm, dictionary, atlas):
    result = scan(lm, TEXT, dictionary, atlas, top=1, follow=["resid_post.1/9"])
    assert result.latents[0].id == "resid_post.1/9"
    reading = read(lm, torch.tensor([lm.tokenize(TEXT)]), dictionary.hookpoint)
    exact = dictionary.activations_of(reading.values[0], [9])[:, 0] * ~reading.sinks[0]
    assert result.latents[0].shares == pytest.approx(exact.clamp(max=1).tolist(), rel=1e-4)
    for address in ("resid_post.2/9", "resid_post.1/48", "resid_post.1/9+"):
        with pytest.raises(UnknownFeatureError):
            scan(lm, TEXT, dictionary, atlas, follow=[address])
