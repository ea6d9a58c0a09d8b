"""`calibrate` and `watch` at the command line, on a tiny model."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from brainscan.artifacts import create, read_manifest
from brainscan.cli.app import main
from brainscan.cli.calibrate import print_detectors
from brainscan.dictionaries.testing import random_dictionary
from brainscan.interventions import Direction, save_direction
from brainscan.models.tiny import D_MODEL
from brainscan.monitoring import JumpRule, load_detectors
from brainscan.monitoring.storage import KIND, write_files

CONCEPT = """
name: {name}
title: {name}
danger: {danger}
about: of a test
words: [{word}]
texts:
{texts}
near:
{near}
"""


def few(patch):
    """A few benign dialogues instead of all."""
    from brainscan.monitoring import dialogues

    line = "that and one was not with you and that was {} and more"
    pairs = tuple((f"was that you {n}", line.format(n)) for n in range(16))
    patch.setattr(dialogues, "_benign", lambda: dialogues._Benign(pairs, ("was that you",)))
    patch.setattr(dialogues, "_PEOPLE", {"train": 0, "select": 1, "test": 1})


def concept(folder, name, danger, word):
    rows = [f'  - {{register: note, text: "{word} the {word} {word} {n}"}}' for n in range(30)]
    near = [f'  - {{register: note, text: "you {word} {n}"}}' for n in range(8)]
    path = folder / f"{name}.yaml"
    told = {"name": name, "danger": str(danger).lower(), "word": word}
    path.write_text(CONCEPT.format(**told, texts="\n".join(rows), near="\n".join(near)))
    return path


class Calibrated(NamedTuple):
    """What `calibrate` did."""

    told: Any
    """What it printed."""
    read: list[tuple[str, str]]
    """The dictionaries whose latents it tried."""
    folder: Path
    """The detectors."""


def calibration(folder, model):
    """The arguments of a small calibration."""
    paths = [concept(folder, "sun", False, "day"), concept(folder, "dark", True, "earth")]
    told = ["calibrate", *(part for path in paths for part in ("--concept", path))]
    return [*told, "--model", model, "--at", "resid_post.2", "--answers", 2, "--json"]


@pytest.fixture(scope="module")
def calibrated(model, dictionary, tmp_path_factory):
    """Detectors that may read the latents of a dictionary of one's own."""
    from brainscan.monitoring import fitting

    folder = tmp_path_factory.mktemp("calibrated")
    sparse, read = fitting.sparse_candidate, []

    def noted(corpus, found, *rest):
        read.append((found.hookpoint, found.name))
        return sparse(corpus, found, *rest)

    told = [*calibration(folder, model), "--dictionary", dictionary, "--out", folder / "det"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        few(patch)
        patch.setenv("BRAINSCAN_CACHE", str(folder / "cache"))
        patch.setattr(fitting, "sparse_candidate", noted)
        assert main(list(map(str, told))) == 0
    return Calibrated(json.loads(out.getvalue()), read, folder / "det")


@pytest.fixture
def detectors(calibrated):
    return calibrated.folder


@pytest.fixture
def eager(calibrated, tmp_path):
    """The same, but each token adds one to the sum, and the fifth of an answer raises an alarm."""
    found = load_detectors(calibrated.folder)
    rule = JumpRule(
        "cusum", 4.5, found.rule.usual, (1e9,) * len(found.names), found.rule.danger, kappa=-1.0
    )
    with create(tmp_path / "eager", kind=KIND) as draft:
        write_files(draft.path, replace(found, rule=rule))
    return tmp_path / "eager"


def test_detectors_are_told_of(calibrated, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    told = calibrated.told
    assert [one["concept"] for one in told["detectors"]] == ["sun", "dark"]
    assert told["rule"]["statistic"] and told["path"] == str(calibrated.folder)
    assert told["detectors"][0]["figures"]["auroc"]["n"] > 0
    print_detectors(load_detectors(calibrated.folder))
    shown = capsys.readouterr().out
    assert "(the rule)" in shown and "dark (danger)" in shown
    missed = [name for name in told["jumps"]["evasion"] if name.startswith("missed: ")]
    rows = [line for line in shown.splitlines() if any(m[8:] in line for m in missed)]
    assert "way to slip by" in shown and len(rows) == len(missed) > 1
    value = told["jumps"]["evasion"]["missed: base64"]["value"]
    assert any("base64" in row and f"{value:.2f} [" in row for row in rows)


def test_latents_of_a_dictionary_of_ones_own_are_read_too(
    run, model, dictionary, tmp_path, calibrated
):
    assert calibrated.read == [("resid_post.1", str(dictionary))]
    manifest = read_manifest(calibrated.folder, kind=KIND)
    assert manifest.hookpoints == ("resid_post.2", "resid_post.1")
    assert list(manifest.settings["dictionaries"]) == [str(dictionary)]
    told = [*calibration(tmp_path, model), "--out", "other", "--dictionary"]
    random_dictionary(D_MODEL + 8, 32, 4, "resid_post.1").save(tmp_path / "wide")
    run(*told, tmp_path / "wide").failed(1, f"width {D_MODEL + 8}")
    random_dictionary(D_MODEL, 32, 4, "resid_post.1").save(tmp_path / "same")
    run(*told, dictionary, "-d", "same").failed(2, "one dictionary for a hookpoint")
    run(*told, "nowhere").failed(1, "a dictionary's name or folder", "nowhere'")


def said(transcript):
    """The tokens of the answer."""
    return [one["text"] for one in transcript["tokens"] if one["role"] == "assistant"]


@pytest.fixture
def answers(run, model, eager, tmp_path):
    """A function that gives a watched answer of 12 tokens, by what is done at its alarm."""
    push = Direction("resid_post.3", torch.randn(D_MODEL, generator=torch.manual_seed(0)))
    save_direction(tmp_path / "push.safetensors", push)

    def answered(*options):
        told = ("--model", model, "--detectors", eager, "--max-new-tokens", 12, "--json")
        return run("watch", "was that you", *told, *options).json["transcripts"][0]

    return answered


def test_an_alarm_is_told_of_and_the_answer_goes_on(answers):
    plain = answers()
    (alarm,) = plain["alarms"]
    assert set(alarm) == {"concept", "onset", "token", "score"}
    first = len(plain["tokens"]) - 12
    assert (alarm["concept"], alarm["onset"], alarm["token"]) == ("dark", first, first + 4)
    assert alarm["score"] == pytest.approx(5)
    assert len(said(plain)) == 12
    assert answers("--on-alarm", "log") == plain


def test_an_alarm_stops_the_answer(answers):
    stopped = answers("--on-alarm", "stop")
    assert said(stopped) == said(answers())[:5]
    assert len(stopped["alarms"]) == 1


def test_an_alarm_switches_edits_on(answers):
    plain, edits = said(answers()), ("--edit", "add:push.safetensors=30@response")
    edited = said(answers("--on-alarm", "edit", *edits))
    assert edited[:5] == plain[:5] and edited[5:] != plain[5:]


def test_logs_of_inspect_are_watched(run, model, eager, tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

    config = log.EvalConfig()
    spec = log.EvalSpec(
        task="t",
        dataset=log.EvalDataset(),
        model="m",
        created="2025-01-01T00:00:00Z",
        config=config,
    )
    talk = [
        ChatMessageUser(content="was that you"),
        ChatMessageAssistant(content="earth the day and one word and more"),
    ]
    sample = log.EvalSample(id=1, epoch=1, input="x", target="", messages=talk)
    log.write_eval_log(log.EvalLog(eval=spec, samples=[sample]), str(tmp_path / "one.eval"))
    found = ("--model", model, "--detectors", eager)
    (one,) = run("watch", "--transcripts", "one.eval", *found, "--json").json["transcripts"]
    assert "".join(said(one)) == talk[1].content
    (alarm,) = one["alarms"]
    assert set(alarm) == {"concept", "onset", "token", "score"}


def test_detectors_are_made_and_watch_with_them(run, model, tmp_path, detectors):
    talks = tmp_path / "talks.jsonl"
    talk = [
        {"role": "user", "content": "was that you"},
        {"role": "assistant", "content": "\x1b[31mearth earth the day"},
    ]
    talks.write_text(json.dumps({"messages": talk}) + "\n")
    found = ("--model", model, "--detectors", detectors)
    (one,) = run("watch", "--transcripts", talks, *found, "--json").json["transcripts"]
    assert {"tokens", "alarms", "asked"} <= set(one)
    assert {"text", "role", "concepts", "jump"} == set(one["tokens"][0])
    shown = run("watch", "--transcripts", talks, *found, "--html", "strip.html")
    assert shown.code == 0
    assert "\x1b[31mearth" not in shown.out
    assert "<script src" not in (tmp_path / "strip.html").read_text()
    talks.write_text(json.dumps({"messages": [{"role": "[/b]", "content": "the day"}]}))
    assert "[/b]" in run("watch", "--transcripts", talks, *found).out
    answer = run("watch", "was that you", *found, "--max-new-tokens", 4, "--json").json
    assert len([t for t in answer["transcripts"][0]["tokens"] if t["role"] == "assistant"]) <= 4


def test_an_answer_is_shown_as_it_is_written(run, model, tmp_path, detectors):
    found = ("--model", model, "--detectors", detectors, "--max-new-tokens", 4)
    ran = run("watch", "was that you", *found, "--html", "answer.html")
    assert ran.code == 0, ran.err
    assert "alarm" in ran.out.lower()
    assert "bs-token" in (tmp_path / "answer.html").read_text()


def test_a_chat_goes_on_until_an_empty_line(run, model, detectors, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("was that you\nand you\n\n"))
    ran = run("watch", "--model", model, "--detectors", detectors, "--max-new-tokens", 3)
    assert ran.code == 0, ran.err
    assert ran.out.lower().count("alarm") >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("watch", "a", "--transcripts", "b"), ("a prompt or --transcripts",)),
        (("watch", " "), ("a prompt", "an empty one")),
        (("watch", "a", "--on-alarm", "edit"), ("--on-alarm edit without edits",)),
        (("watch", "a", "--set", "resid_post.1/3=0"), ("edits without it",)),
        (("watch", "--transcripts", "b", "--on-alarm", "stop"), ("--on-alarm log",)),
    ],
)
def test_options_that_do_not_go_together(run, arguments, words):
    run(*arguments).failed(2, *words)


def test_a_model_without_detectors_says_how_to_make_them(run, model):
    run("watch", "a", "--model", model).failed(1, "brainscan calibrate")


def test_transcripts_that_are_none(run, model, tmp_path, detectors):
    (tmp_path / "bad.jsonl").write_text("no\n")
    told = ("--model", model, "--detectors", detectors)
    run("watch", "--transcripts", "bad.jsonl", *told).failed(1, "line 1")
    run("watch", "--transcripts", "none.jsonl", *told).failed(1, "none.jsonl")


def test_an_unknown_concept_lists_the_banks(run, model):
    run("calibrate", "--model", model, "--concept", "fishes").failed(2, "'fishes'", "bridges")


def test_a_concept_without_texts_in_some_split(run, model, tmp_path):
    path = tmp_path / "thin.yaml"
    told = {"name": "thin", "danger": "false", "word": "day"}
    row = '  - {register: note, text: "one"}'
    path.write_text(CONCEPT.format(**told, texts=row, near=row))
    other = concept(tmp_path, "sun", False, "day")
    told = ("--concept", path, "--concept", other, "--answers", 0, "--out", "d")
    run("calibrate", "--model", model, *told).failed(2, "texts of thin")
