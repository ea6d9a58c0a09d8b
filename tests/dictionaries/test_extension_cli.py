"""`dictionary train --extend`: on text, on a stress run's recordings, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from brainscan.artifacts import read_manifest
from brainscan.cli.app import main
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.extended import Extended
from brainscan.dictionaries.testing import random_dictionary
from brainscan.models.generate import Generation
from brainscan.models.tiny import D_MODEL, tiny
from brainscan.stress.recordings import write_recording

HOOKPOINT = "resid_post.1"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A tiny model, a dictionary of it, and chats."""
    folder = tmp_path_factory.mktemp("room")
    lm = tiny("llama")
    lm.model.save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    random_dictionary(D_MODEL, 32, 4, HOOKPOINT).save(folder / "base")
    chats = [
        [
            {"role": "user", "content": f"the day {n} was not one"},
            {"role": "assistant", "content": f"that word and {n * n} with you"},
        ]
        for n in range(30)
    ]
    lines = [json.dumps({"messages": chat}) for chat in chats]
    (folder / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "text.txt").write_text("the day was one that you and the word " * 20)
    for n, chat in enumerate(chats):
        prompt, answer = lm.chat_tokens(chat[:1]), lm.tokenize(chat[1]["content"])
        made = Generation(prompt, answer, chat[1]["content"], "stop", None)
        facts = {"model": "tiny", "weights": "ab", "sample": f"{n}"}
        path = folder / "run" / "logs" / "brainscan" / f"sample{n}" / "call.safetensors"
        write_recording(path, made, facts)
    return folder


@pytest.fixture
def run(room, capsys, monkeypatch, tmp_path):
    """Runs the verb; gives the exit code, what stdout holds, and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRAINSCAN_CACHE", str(tmp_path / "cache"))

    def command(*arguments, verb="train"):
        capsys.readouterr()
        code = main(["dictionary", verb, *map(str, arguments)])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def extend(room, run):
    """Extends the base on something, with few latents."""

    def command(on, *more, size=("--latents", 16, "--k", 2)):
        given = ("--extend", room / "base", "--on", on, "--model", room / "model")
        return run(*given, "--out", "out", *size, *more)

    return command


def test_chats_extend_a_dictionary(room, run, extend):
    code, out, err = extend(room / "chats.jsonl", "--json")
    assert code == 0, err
    (told,) = json.loads(out)["dictionaries"]
    assert (told["folder"], told["hookpoint"]) == ("out", HOOKPOINT)
    assert (told["latents"], told["k"]) == (48, 6)
    parts = told["figures"]["fvu"]
    assert (parts["trained_on"]["transcripts"], parts["held_out"]["transcripts"]) == (27, 3)
    for part in parts.values():
        assert part["extended"]["value"] < part["base"]["value"]
    manifest = read_manifest("out", "dictionary")
    assert manifest.parents == {"base": read_manifest(room / "base").digest}
    assert manifest.settings["on"] == str(room / "chats.jsonl")
    assert manifest.model is not None
    found, base = Dictionary.load("out"), Dictionary.load(room / "base")
    assert isinstance(found, Extended)
    x = torch.randn(9, D_MODEL)
    old = list(range(32))
    assert torch.equal(found.activations_of(x, old), base.activations_of(x, old))
    text = ("--text", room / "text.txt", "--model", room / "model", "--context", 64)
    code, out, err = run(room / "base", "out", *text, "--json", verb="compare")
    assert code == 0, err
    first, second = json.loads(out)["evaluations"]
    assert (first["dead_fraction"]["n"], second["dead_fraction"]["n"]) == (32, 48)
    assert run("out", *text, verb="evaluate")[0] == 0


def test_a_stress_runs_recordings_extend_a_dictionary(room, extend):
    code, out, err = extend(room / "run", "--seed", 3)
    assert code == 0, err
    assert "out: 48 latents of resid_post.1" in out
    for word in ("held out", "base same k", "extended"):
        assert word in out
    assert "is of tiny, and" in err
    manifest = read_manifest("out")
    assert manifest.seed == 3
    parts = manifest.figures["fvu"]
    assert parts["trained_on"]["transcripts"] + parts["held_out"]["transcripts"] == 30
    first = Path("out/weights.safetensors").read_bytes()
    assert extend(room / "run", "--seed", 3)[0] == 0
    assert Path("out/weights.safetensors").read_bytes() == first


def test_no_more_tokens_are_read_than_asked_for(room, extend):
    code, out, err = extend(room / "chats.jsonl", "--tokens", 100, "--json")
    assert code == 0, err
    parts = json.loads(out)["dictionaries"][0]["figures"]["fvu"].values()
    assert 90 <= sum(part["tokens"] for part in parts) <= 100


def failed(ran, code, *words):
    assert ran[0] == code, ran
    assert ran[1] == ""
    (line,) = ran[2].strip().splitlines()
    assert all(word in line for word in words), line


def test_options_that_do_not_go_together(room, run, extend):
    failed(run("--extend", room / "base", "--out", "x"), 2, "--on TRANSCRIPTS", "--extend alone")
    failed(run("--on", room / "run", "--out", "x"), 2, "--extend DICTIONARY", "--on alone")
    failed(run("--out", "x"), 2, "--at")
    at = ("--at", "resid_post.2", "--sparsifier", "batch-topk")
    failed(extend(room / "run", *at), 2, "leave --at and --sparsifier out")
    failed(extend(room / "run", size=("--latents", 2)), 2, "k from 1", "16")


def test_what_cannot_be_extended_or_read(room, extend, run, tmp_path):
    failed(extend("nowhere"), 1, "no such file: nowhere")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    failed(extend(room / "run"), 1, "not an artifact")
    (tmp_path / "out" / "thesis.txt").unlink()
    failed(extend(room / "model"), 1, "recordings of model calls", "model.safetensors")
    assert extend(room / "chats.jsonl")[0] == 0
    again = ("--extend", "out", "--on", room / "run", "--model", room / "model", "--out", "more")
    failed(run(*again), 2, "without added latents", "out, which has some")
