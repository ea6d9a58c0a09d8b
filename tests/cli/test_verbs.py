"""Every verb on a tiny model: what it prints, and stdout that holds JSON alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import brainscan
from brainscan.artifacts import cache_dir, read_manifest
from brainscan.cli.app import app
from brainscan.cli.options import parse_count
from brainscan.dictionaries import Dictionary
from brainscan.interventions import (
    Direction,
    parse_edit,
    save_direction,
    save_edits,
    with_dictionary,
)
from brainscan.models import load
from brainscan.models.generate import Sampling

ESTIMATE = {"value", "low", "high", "n", "method"}


@pytest.fixture
def known(model, dictionary):
    return ("--model", model, "--dictionary", dictionary)


def verbs():
    names = [(command.callback.__name__,) for command in app.registered_commands]
    for group in app.registered_groups:
        commands = group.typer_instance.registered_commands
        names += [(group.typer_instance.info.name, c.name or c.callback.__name__) for c in commands]
    return sorted(names)


def test_all_verbs_are_there():
    assert [" ".join(verb) for verb in verbs()] == [
        "activations harvest",
        "atlas build",
        "atlas search",
        "atlas show",
        "audit",
        "calibrate",
        "demo",
        "dictionary compare",
        "dictionary evaluate",
        "dictionary train",
        "models fetch",
        "models list",
        "models path",
        "organism build",
        "organism list",
        "scan",
        "serve",
        "steer",
        "stress list",
        "stress report",
        "stress run",
        "stress show",
        "stress validate-judge",
        "watch",
    ]


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_has_help_with_an_example_and_json(run, verb):
    ran = run(*verb, "--help")
    assert ran.code == 0
    assert f"Example: brainscan {' '.join(verb)}" in " ".join(ran.out.split())
    assert "--json" in ran.out


def test_version(run):
    assert run("--version").out == f"brainscan {brainscan.__version__}\n"


def test_help_imports_neither_torch_nor_numpy():
    script = (
        "import sys; from brainscan.cli.app import main; code = main(['--help']);"
        "assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert ran.returncode == 0, ran.stderr


def test_a_reader_that_goes_away_is_no_failure():
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "brainscan", "models", "path", "smollm2-135m-instruct"]
    ran = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert ran.returncode == 0
    assert ran.stderr == b""


@pytest.mark.parametrize(
    ("text", "count"),
    [("5000", 5000), ("200k", 200_000), ("1.5M", 1_500_000), ("5_000", 5000), (7, 7)],
)
def test_counts(text, count):
    assert parse_count(text) == count


def test_models(run):
    listed = run("models", "list", "--json").json["models"]
    assert listed[0]["name"] == "smollm2-135m-instruct"
    assert listed[0]["precision"] == "Q4_1, dequantised"
    assert "Q4_1" in run("models", "list").out
    found = run("models", "path", "smollm2-135m-instruct", "--json").json
    assert found["fetched"] is False
    assert found["path"] in run("models", "path", "smollm2-135m-instruct").out


def test_harvest_then_train_from_the_store_and_live(run, model, text):
    at = ("--at", "resid_post.1", "--at", "mlp_out.2")
    common = ("--corpus", text, "--context", "32", "--tokens", "2k")
    harvested = run(
        "activations", "harvest", "--model", model, *at, *common, "--out", "acts", "--json"
    ).json
    assert harvested["hookpoints"] == ["resid_post.1", "mlp_out.2"]
    assert 1500 < harvested["tokens"] <= 2048
    size = ("--latents", "16", "--k", "2", "--json")
    stored = run(
        *("dictionary", "train", "--store", "acts", "--at", "mlp_out.2"),
        *("--tokens", "1k", "--out", "one", *size),
    ).json
    assert [d["folder"] for d in stored["dictionaries"]] == ["one"]
    live = run("dictionary", "train", "--model", model, *at, *common, "--out", "two", *size).json
    assert [d["folder"] for d in live["dictionaries"]] == ["two/resid_post.1", "two/mlp_out.2"]
    run("dictionary", "train", "--store", "acts", "--model", model, *at, "--out", "x").failed(
        2, "--store or --model"
    )


def test_evaluate_and_compare(run, model, dictionary, text):
    common = ("--model", model, "--text", text, "--context", "32", "--tokens", "500")
    found = run("dictionary", "evaluate", dictionary, *common, "--json").json
    for name in ("fvu", "l0", "dead_fraction", "ce_recovered_zero", "ce_recovered_mean", "kl"):
        assert set(found[name]) == ESTIMATE
    assert found["tokens"] > 400
    both = run("dictionary", "compare", dictionary, dictionary, *common, "--json").json
    assert [e["fvu"]["value"] for e in both["evaluations"]] == [found["fvu"]["value"]] * 2
    assert "ce_recovered_mean" in run("dictionary", "compare", dictionary, dictionary, *common).out


def test_scan_reads_an_argument_a_file_stdin_and_a_chat(run, known, text, monkeypatch):
    found = run("scan", "the day was one", *known, "--top", "2", "--json").json
    assert "".join(token["text"] for token in found["tokens"]) == "the day was one"
    active = [latent for token in found["tokens"] for latent in token["latents"]]
    assert active
    assert set(active[0]) == {"id", "activation", "label"}
    assert active[0]["id"].startswith("resid_post.1/")
    Path("words.txt").write_text("the day was one")
    assert run("scan", "--file", "words.txt", *known, "--top", "2", "--json").json == found
    stdin = SimpleNamespace(buffer=io.BytesIO(b"the day was one"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        assert run("scan", "-", *known, "--top", "2", "--json").json == found
    chat = run("scan", "the day was one", *known, "--chat", "--json").json
    assert len(chat["tokens"]) > len(found["tokens"])
    ran = run("scan", "the day was one", *known, "--html", "pages/strip.html")
    assert "the day was one" in ran.out
    assert "<!doctype html>" in Path("pages/strip.html").read_text()


def test_no_terminal_is_commanded_by_a_scanned_text(run, known):
    assert "\x1b]0" not in run("scan", "the \x1b]0;title\x07 day", *known).out


def test_atlas_build_search_show(run, known, text):
    built = run(
        *("atlas", "build", *known, "--corpus", text, "--split", "all"),
        *("--tokens", "2k", "--out", "atlas", "--json"),
    ).json
    assert built["figures"]["latents"] == 32
    found = run("atlas", "search", "the day", "--atlas", "atlas", "--json").json
    assert set(found["results"][0]) == {"id", "label", "score", "examples"}
    identity = found["results"][0]["id"]
    assert identity in run("atlas", "search", "the day", "--atlas", "atlas").out
    assert "no latent" in run("atlas", "search", "zebra", "--atlas", "atlas").out
    shown = run("atlas", "show", identity, "--atlas", "atlas", "--html", "card.html")
    assert identity in shown.out
    assert "<!doctype html>" in Path("card.html").read_text()
    assert run("atlas", "show", identity, "--atlas", "atlas", "--json").json["id"] == identity
    run("atlas", "show", "resid_post.1/99", "--atlas", "atlas").failed(1, "resid_post.1/31")


def test_steer_prints_both_answers_the_cost_and_a_control(run, known, monkeypatch):
    monkeypatch.setattr("brainscan.cli.steer.QUICK", 4)
    common = ("the day", *known, "--max-new-tokens", "6")
    ran = run("steer", *common, "--set", "resid_post.1/3=2x", "--save-edits", "edits", "--json")
    found = ran.json
    assert found["edits"] == ["resid_post.1/3=2.0x"]
    assert isinstance(found["baseline"], str)
    assert isinstance(found["steered"], str)
    for costs in (found["effects"], found["control"]):
        for name in ("kl", "perplexity_ratio", "capability"):
            assert set(costs[name]) == ESTIMATE
    assert found["effects"]["kl"]["n"] == 4
    norms = found["control"]["change_of_norm"][0]
    assert norms["control"]["value"] == pytest.approx(norms["edit"]["value"], rel=0.01)
    assert found["control"]["latents"][0] != "resid_post.1/3"
    again = run(
        "steer", *common, "--edits", "edits", "--effects", "none", "--json", "--html", "s.html"
    ).json
    assert again["steered"] == found["steered"]
    assert again["effects"] is None
    assert "<!doctype html>" in Path("s.html").read_text()
    shown = run("steer", *common, "--set", "resid_post.1/3=0", "--effects", "none").out
    assert "without the edit" in shown


def test_steer_takes_a_setting_a_saved_direction_and_saved_edits_together(
    run, model, known, dictionary
):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    save_direction("dir.safetensors", Direction("resid_post.2", vector))
    random = Dictionary.load(dictionary)
    save_edits("edits", with_dictionary([parse_edit("resid_post.1/5=2x")], random))
    found = run(
        *("steer", "the day", *known, "--max-new-tokens", "24", "--temperature", "1"),
        *("--set", "resid_post.1/3=2x", "--edit", "project_out:dir.safetensors"),
        *("--edits", "edits", "--effects", "none", "--json"),
    ).json
    words = ["resid_post.1/3=2.0x", "project_out:dir.safetensors", "resid_post.1/5=2.0x"]
    assert found["edits"] == words
    assert len(found["control"]["change_of_norm"]) == 3
    lm = load(str(model))
    edits = with_dictionary([parse_edit(word) for word in words], random)

    def answer(*chosen):
        arms = [(), chosen, ()]  # the verb's batch, so that rounding is the same
        prompts, how = [lm.chat_tokens("the day")] * 3, Sampling(24, 1.0)
        return lm.generate(prompts, how, edits=arms, seeds=[0] * 3)[1].text

    assert answer(*edits) == found["steered"]
    for left_out in edits:
        assert answer(*(edit for edit in edits if edit is not left_out)) != found["steered"]


def test_a_bar_counts_the_tokens_of_the_three_answers(run, known, monkeypatch):
    totals, advances = [], []

    @contextmanager
    def bar(label, total, unit=""):
        totals.append(total)
        yield advances.append

    monkeypatch.setattr("brainscan.cli.steer.progress", bar)
    common = ("the day", *known, "--max-new-tokens", "6", "--effects", "none")
    assert run("steer", *common, "--set", "resid_post.1/3=2x").code == 0
    assert totals == [None, 18]
    assert 6 < sum(advances) <= 18


def test_the_same_seed_gives_the_same_answers(run, known):
    common = ("steer", "the day", *known, "--max-new-tokens", "8", "--effects", "none", "--json")
    edit = ("--set", "resid_post.1/3=2x", "--temperature", "1")
    first = run(*common, *edit, "--seed", "3").json
    assert run(*common, *edit, "--seed", "3").json == first
    assert run(*common, *edit, "--seed", "4").json["baseline"] != first["baseline"]


def test_demo_writes_a_report(run, known, text, dictionary, monkeypatch):
    monkeypatch.setattr("brainscan.demo.results.JUDGING_PROMPTS", ("the day", "not one", "you"))
    monkeypatch.setattr("brainscan.demo.results.CHOOSING_PROMPTS", ("that word",))
    built = ("atlas", "build", *known, "--corpus", text, "--split", "all", "--tokens", "2k")
    folder = cache_dir() / "atlases" / read_manifest(dictionary).digest
    assert run(*built, "--out", folder).code == 0
    ran = run("demo", *known, "--concept", "the day", "--out", "report", "--json")
    found = ran.json
    assert "a first picture" in ran.err
    assert found["latent"].startswith("resid_post.1/")
    assert {claim["verdict"] for claim in found["claims"]} <= {
        "supported",
        "inconclusive",
        "not supported",
    }
    page = Path("report/report.html").read_text()
    assert "What can be said" in page
    written = json.loads(Path("report/report.json").read_text())
    assert written["experiment"]["latent"] == found["latent"]
    assert len(written["passage"]["tokens"]) > 50
