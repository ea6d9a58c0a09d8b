"""Bad input: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from brainscan.artifacts import file_sha256, read_manifest
from brainscan.dictionaries.testing import random_dictionary
from brainscan.models.tiny import D_MODEL

HARVEST = ("activations", "harvest", "--context", "32", "--tokens", "500", "--out", "acts")


def harvest(model, text, at="resid_post.1"):
    return (*HARVEST, "--model", model, "--corpus", text, "--at", at)


def test_an_unknown_model_offers_names_near_it(run):
    run("scan", "a text", "--model", "smollm2-135m-instrct").failed(
        1, "'smollm2-135m-instrct'", "did you mean smollm2-135m-instruct?"
    )


def test_an_unknown_hookpoint_lists_the_models(run, model, text):
    run(*harvest(model, text, "resid_past.1")).failed(1, "resid_past.1", "resid_post", "mlp_out")


def test_a_layer_out_of_range(run, model, text):
    run(*harvest(model, text, "resid_post.99")).failed(1, "resid_post.99", "resid_post.0..3")


def test_an_empty_corpus(run, model, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    run(*harvest(model, empty)).failed(1, "empty.txt")


def test_a_corpus_that_is_not_there(run, model):
    run(*harvest(model, "nowhere.txt")).failed(1, "nowhere.txt")


def test_a_text_shorter_than_a_context_is_harvested_and_said_to_be_short(run, model, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("the day was one that you")
    ran = run(*harvest(model, short), "--json")
    assert 0 < ran.json["tokens"] < 32
    assert "warning: the corpus has" in ran.err


def test_an_empty_text_to_evaluate_on(run, model, dictionary, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" ")
    run("dictionary", "evaluate", dictionary, "--model", model, "--text", empty).failed(
        1, "empty.txt"
    )


def test_an_empty_text_to_scan(run, model, dictionary):
    run("scan", "  ", "--model", model, "--dictionary", dictionary).failed(1, "some text")
    run("scan", "--model", model).failed(2, "a text or --file")


def test_a_file_that_is_not_utf8_is_named_with_the_byte(run, model, dictionary, tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9 and more".encode("latin-1"))
    run(*harvest(model, latin)).failed(1, "latin.txt", "UTF-8")
    scan = ("scan", "--file", latin, "--model", model, "--dictionary", dictionary)
    run(*scan).failed(1, "latin.txt", "UTF-8", "offset 3")


def altered(folder: Path, change) -> Path:
    copy = folder.parent / f"{folder.name}-altered"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(change(weights.read_bytes()))
    return copy


@pytest.mark.parametrize(
    "change", [lambda data: data[:-100], lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_a_truncated_or_altered_artifact_is_named_with_its_hash(
    run, model, dictionary, text, change
):
    folder = altered(dictionary, change)
    weights = folder / "weights.safetensors"
    recorded = read_manifest(dictionary).files[weights.name]
    run("dictionary", "evaluate", folder, "--model", model, "--text", text).failed(
        1,
        f"expected sha256 {recorded} for {weights}",
        f"got sha256 {file_sha256(weights)}",
        "truncated or altered",
    )


def test_an_artifact_of_another_kind(run, model, text, dictionary):
    assert run(*harvest(model, text)).code == 0
    run("dictionary", "evaluate", "acts", "--model", model, "--text", text).failed(
        1, "dictionary", "activations"
    )


def test_an_unknown_dictionary(run, model):
    run("scan", "a text", "--model", model, "--dictionary", "nothing").failed(1, "'nothing'")


def test_a_dictionary_of_another_shape(run, model, tmp_path):
    random_dictionary(D_MODEL + 8, 16, 2, "resid_post.1").save(tmp_path / "wide")
    run("scan", "a text", "--model", model, "--dictionary", tmp_path / "wide").failed(
        1, "width 32", "width 40"
    )


def test_a_latent_out_of_range(run, model, dictionary):
    steer = ("steer", "the day", "--model", model, "--dictionary", dictionary)
    run(*steer, "--set", "resid_post.1/32=2x").failed(1, "resid_post.1/32", "resid_post.1/31")


def test_a_dictionary_that_no_edit_is_of_is_wrong_usage(run, model, dictionary):
    steer = ("steer", "the day", "--model", model, "--dictionary", dictionary)
    run(*steer, "--set", "neurons.1/3=0").failed(2, "resid_post.1/0=2x", "neurons.1/3=0.0")


def test_an_edit_that_cannot_be_read_is_wrong_usage(run, model, dictionary):
    steer = ("steer", "the day", "--model", model, "--dictionary", dictionary)
    run(*steer, "--set", "resid_post.1/3:2x").failed(2, "resid_post.1/3:2x")
    run(*steer).failed(2, "at least one edit")


def test_wrong_usage_is_one_line_that_points_to_the_help(run):
    run("activations", "harvst").failed(2, "harvst", "brainscan activations --help")
    run("dictionary", "train", "--out", "d").failed(2, "--at")
    run(*HARVEST, "--at", "resid_post.1", "--tokens", "many").failed(2, "200k", "'many'")


@contextmanager
def full_disk(name, writes):
    """The disk is full from one write on of the files whose names contain a word."""
    real = Path.open
    opened = []

    def full(self, mode="r", *args, **kwargs):
        if "w" in mode and name in self.name:
            opened.append(self.name)
            if len(opened) > writes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", full)
        yield
    assert len(opened) == writes + 1


def test_a_full_disk_loses_nothing(run, model, text):
    command = (*harvest(model, text), "--tokens", "2400")
    with full_disk("shard", writes=1):
        run(*command).failed(1, "space to write", "full disk")
    assert not Path("acts").exists()
    (first,) = Path("acts.partial").glob("shard-*.safetensors")
    written = (first.stat().st_mtime_ns, first.stat().st_ino, first.read_bytes())
    assert run(*command, "--json").json["tokens"] > 2000
    first = Path("acts") / first.name
    assert (first.stat().st_mtime_ns, first.stat().st_ino, first.read_bytes()) == written
    assert len(list(Path("acts").glob("shard-*.safetensors"))) == 3


@pytest.mark.parametrize(("file", "writes"), [("state.safetensors", 1), ("manifest.json", 0)])
def test_a_full_disk_loses_no_training(run, model, text, monkeypatch, file, writes):
    monkeypatch.setattr("brainscan.dictionaries.training._CHECKPOINT_SECONDS", 0.0)
    train = ("dictionary", "train", "--model", model, "--at", "resid_post.1", "--corpus", text)
    train = (*train, "--context", "8", "--tokens", "2k", "--latents", "16", "--k", "2", "--out")
    assert run(*train, "whole").code == 0
    with full_disk(file, writes):
        run(*train, "cut").failed(1, "space to write", "full disk")
    assert not Path("cut").exists()
    assert list(Path("cut.checkpoint").glob("*.safetensors"))

    def started_again(*args):
        raise AssertionError("it started again instead of going on")

    with monkeypatch.context() as patch:
        patch.setattr("brainscan.dictionaries.trainer.Trainer.started", started_again)
        assert run(*train, "cut").code == 0
    assert not Path("cut.checkpoint").exists()
    for name in ("weights.safetensors", "manifest.json"):
        assert (Path("cut") / name).read_bytes() == (Path("whole") / name).read_bytes()


def test_an_unforeseen_failure_is_one_line_with_a_hint(run, model, text, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("brainscan.activations.open_corpus", broken)
    run(*harvest(model, text)).failed(1, "RuntimeError: two lines", "BRAINSCAN_TRACEBACK=1")
    monkeypatch.setenv("BRAINSCAN_TRACEBACK", "1")
    ran = run(*harvest(model, text))
    assert ran.code == 1
    assert "Traceback" in ran.err


def test_ctrl_c_says_whether_the_command_goes_on(run, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("brainscan.cli.parts.open_model", interrupted)
    run("scan", "a text").failed(130, "starts again")
    train = ("dictionary", "train", "--at", "resid_post.1", "--out", "d")
    run(*train).failed(130, "run the same command again to go on")


def test_ctrl_c_in_mid_harvest_is_130_and_the_same_command_goes_on(model, text, tmp_path, run):
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join(text.read_text() + f" {n}" for n in range(14)))
    command = [str(part) for part in (*harvest(model, long), "--tokens", "20k", "--json")]
    environment = {**os.environ, "BRAINSCAN_QUIET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "brainscan", *command],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job is born deaf to Ctrl-C; the test may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    shards = tmp_path / "acts.partial"
    deadline = time.monotonic() + 60
    while not list(shards.glob("shard-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip() == "brainscan: interrupted; run the same command again to go on"
    done = {path: path.stat().st_mtime_ns for path in shards.glob("shard-*.safetensors")}
    assert done
    whole = run(*command).json
    assert whole["tokens"] > 15_000
    for path, stamp in done.items():
        assert (tmp_path / "acts" / path.name).stat().st_mtime_ns == stamp
