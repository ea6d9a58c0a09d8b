"""`calibrate` and `watch` at the command line, on a tiny model."""

from __future__ import annotations

import json

import pytest

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


@pytest.fixture
def few(monkeypatch):
    """A few benign dialogues instead of all."""
    from brainscan.monitoring import dialogues

    line = "that and one was not with you and that was {} and more"
    pairs = tuple((f"was that you {n}", line.format(n)) for n in range(16))
    monkeypatch.setattr(dialogues, "_benign", lambda: dialogues._Benign(pairs, ("was that you",)))
    monkeypatch.setattr(dialogues, "_PEOPLE", {"train": 0, "select": 1, "test": 1})


def concept(folder, name, danger, word):
    rows = [f'  - {{register: note, text: "{word} the {word} {word} {n}"}}' for n in range(30)]
    near = [f'  - {{register: note, text: "you {word} {n}"}}' for n in range(8)]
    path = folder / f"{name}.yaml"
    told = {"name": name, "danger": str(danger).lower(), "word": word}
    path.write_text(CONCEPT.format(**told, texts="\n".join(rows), near="\n".join(near)))
    return path


@pytest.fixture
def detectors(run, model, tmp_path, few):
    paths = [concept(tmp_path, "sun", False, "day"), concept(tmp_path, "dark", True, "earth")]
    told = [part for path in paths for part in ("--concept", path)]
    ran = run(
        "calibrate",
        "--model",
        model,
        *told,
        "--at",
        "resid_post.1",
        "--answers",
        2,
        "--out",
        "det",
        "--json",
    )
    assert [one["concept"] for one in ran.json["detectors"]] == ["sun", "dark"]
    assert ran.json["rule"]["statistic"]
    assert ran.json["detectors"][0]["figures"]["auroc"]["n"] > 0
    return tmp_path / "det"


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
    run("calibrate", "--model", model, "--concept", path, "--concept", other, "--out", "d").failed(
        2, "texts of thin"
    )
