"""The screens without a browser: addresses, strips, timelines, folders, forks, and the command."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainscan.cli.app import main
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError, UsageError
from brainscan.features import scan
from brainscan.page.app import Place
from brainscan.page.screens.address import ChatState, read_state
from brainscan.page.screens.artifact_views import findings
from brainscan.page.screens.conversation import prompt_of
from brainscan.page.screens.detectors import cards_view
from brainscan.page.screens.folders import below, listed
from brainscan.page.screens.frame import shown
from brainscan.page.screens.records import fork, read_records, record_of
from brainscan.page.screens.strips import SURPRISE, reading_lines, reading_strip
from brainscan.page.screens.timeline import Line, timeline
from brainscan.page.screens.trial import cost_of
from brainscan.page.service import Reading, ReadToken
from brainscan.stats import Estimate

FIGURE = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 9, "method": "wilson"}
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil"


def audit_folder(folder, scenario="arithmetic", answer="4.3 is larger."):
    """An audit of one arm and one answer."""
    folder.mkdir(parents=True)
    arm = {"name": "untouched", "kind": "control", "harmful": FIGURE, "edit": None, "cost": None}
    found = {
        "model": "tiny",
        "scenario": scenario,
        "verdicts": [{"claim": HOSTILE, "status": "supported", "reason": "because"}],
        "arms": [arm],
        "features": [{"id": "resid_post.1/3", "label": "", "effect": FIGURE}],
    }
    (folder / "audit.json").write_text(json.dumps(found))
    line = {
        "arm": ["untouched", ""],
        "question": "decimal-09/context=plain,kind=decimal/1",
        "text": answer,
        "ended": True,
    }
    (folder / "confirmation.jsonl").write_text(json.dumps(line) + "\n{cut of")
    return folder


texts = st.text(min_size=1, max_size=20).filter(lambda text: not re.search("[\ud800-\udfff]", text))


@given(
    st.lists(texts, max_size=3),
    st.integers(1, 999),
    st.floats(0, 3, width=16),
    st.lists(texts, max_size=2),
)
def test_a_chats_state_comes_back_from_its_address(asked, most, temperature, edits):
    from urllib.parse import parse_qsl

    state = ChatState(
        tuple(asked), edits=tuple(edits), most=most, temperature=round(temperature, 3)
    )
    pairs = parse_qsl(state.query(), keep_blank_values=True)
    assert read_state(pairs) == state


@pytest.mark.parametrize("pair", [("seed", "x"), ("most", "0"), ("temperature", "nan")])
def test_an_address_that_is_none_is_told_so(pair):
    with pytest.raises(UsageError):
        read_state([pair])


def test_an_address_ignores_what_is_not_ours():
    assert read_state([("token", "abc"), ("asked", "a")]) == ChatState(asked=("a",))


@pytest.mark.parametrize(
    "path", ["..", "../a", "/etc", "a/../../b", "", "a\0b", "..\\a", "link", "link/inner", "none"]
)
def test_nothing_is_opened_outside_the_folder(tmp_path, path):
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (served / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError):
        below(served, path)


def test_audits_are_listed_and_links_not_followed(tmp_path):
    served = tmp_path / "served"
    audit_folder(served / "deep" / "one")
    audit_folder(tmp_path / "outside")
    (served / "link").symlink_to(tmp_path / "outside")
    found = listed(served)
    assert [(one.path, one.kind) for one in found.found] == [("deep/one", "audit")]
    assert found.whole
    assert below(served, "deep/one") == (served / "deep" / "one").resolve()


def test_a_folder_too_large_says_so(tmp_path, monkeypatch):
    for number in range(6):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr("brainscan.page.screens.folders.FOLDERS", 3)
    assert not listed(tmp_path).whole


def test_an_audit_is_shown_and_its_text_is_data(tmp_path):
    folder = audit_folder(tmp_path / "one", answer=HOSTILE)
    shown_ = "".join(section.body for section in findings(folder))
    assert "<script>alert" not in shown_
    assert "\u202e" not in shown_ and "⟨U+202E⟩" in shown_
    (record,) = read_records(folder)
    assert record.answer == HOSTILE
    assert record.messages[-1]["role"] == "user" and "bigger" in record.messages[-1]["content"]


def test_an_audit_that_is_none_is_told_so(tmp_path):
    folder = audit_folder(tmp_path / "one")
    (folder / "audit.json").write_text('{"verdicts": [{}]}')
    with pytest.raises(ArtifactError):
        findings(folder)
    (folder / "audit.json").write_text("[")
    with pytest.raises(ArtifactError):
        read_records(folder)


def test_a_transcript_forks_at_any_message(tmp_path):
    (record,) = read_records(audit_folder(tmp_path / "one"))
    asked = fork(record, 0, "Which is bigger: 1 or 2?")
    assert asked.messages == ({"role": "user", "content": "Which is bigger: 1 or 2?"},)
    assert (asked.begun, asked.original) == ("", record.answer)
    answered = fork(record, 1, "I say")
    assert answered.messages == record.messages and answered.begun == "I say"
    for at in (-1, 2):
        with pytest.raises(UsageError):
            fork(record, at, "x")
    with pytest.raises(UsageError):
        record_of([record], "another")


def test_a_fork_of_the_system_message_keeps_what_was_asked(tmp_path):
    (record,) = read_records(audit_folder(tmp_path / "one"))
    assert record.id.startswith("untouched/")
    messages = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
    told = replace(record, messages=messages, answer="c")
    assert [m["content"] for m in fork(told, 0, "new").messages] == ["new", "b"]


def test_a_timeline_says_where_each_line_is_highest():
    lines = [
        Line("joy", (0.0, 2.0, math.nan)),
        Line("jump", (0.1, 0.2, 5.0), kind="jump", onsets=(2,)),
        Line("absent", (math.nan,) * 3),
    ]
    drawn = timeline(["a", "<b>", "c"], lines, "Title")
    assert drawn.index("jump") < drawn.index("joy")
    assert "absent" not in drawn and "<b>" not in drawn and "nan" not in drawn
    assert "2.00 at “&lt;b&gt;”" in drawn and 'class="bp-at"' in drawn
    assert timeline([], lines, "Title") == ""


def reading_of(lm, dictionary, text, concepts=True):
    found = scan(lm, text, dictionary)
    values = [{"joy": float(i % 3)} if concepts else {} for i in range(len(found.tokens))]
    tokens = tuple(
        ReadToken(token, view.text, 0.5 * i, values[i], float(i))
        for i, (token, view) in enumerate(zip(lm.tokenize(text), found.tokens, strict=True))
    )
    return Reading(tokens, found)


def strip_data(strip):
    data = re.search(r'<script type="application/json">(.*?)</script>', strip)
    return json.loads(data[1].encode().decode("unicode_escape"))


def test_a_strip_has_features_concepts_and_surprise(lm):
    dictionary = random_dictionary(lm.d_model, 32, 4, "resid_post.1")
    reading = reading_of(lm, dictionary, "the day that you was not one word")
    strip = reading_strip(reading, 2, 6, SURPRISE)
    data = strip_data(strip)
    assert len(data["tokens"]) == 4
    assert data["shares"]["0"] == [0.25, 0.375, 0.5, 0.625]  # of 4 nats at least
    assert 'aria-pressed="true"><bdi>how surprising' in strip
    assert "concept: joy" in strip and "resid_post.1/" in strip
    lines = {line.name: line for line in reading_lines(reading, 2, 6)}
    assert lines[SURPRISE].values == (1.0, 1.5, 2.0, 2.5)
    assert lines["jump"].kind == "jump"


def test_a_strip_finds_its_features_where_other_tokens_were_read(lm):
    dictionary = random_dictionary(lm.d_model, 32, 4, "resid_post.1")
    whole = reading_of(lm, dictionary, "the day that you was not one word", concepts=False)
    split = []
    for token in whole.tokens:
        halves = [token.text[:1], token.text[1:]] if len(token.text) > 1 else [token.text]
        split += [ReadToken(token.token, half, 1.0) for half in halves]
    reading = Reading(tuple(split), whole.scan)
    data = strip_data(reading_strip(reading, 0, len(split)))
    at = 0
    for token in whole.tokens:
        own = data["tokens"][at : at + min(len(token.text), 2)]
        assert all(latents[:-1] == own[0][:-1] for latents in own)  # the last is the surprise
        at += len(own)
    assert at == len(split)


def test_a_strip_without_a_dictionary_has_the_surprise_alone(lm):
    reading = Reading((ReadToken(1, "a", math.nan), ReadToken(2, "b", 3.0)))
    data = strip_data(reading_strip(reading, 0, 2))
    assert data["tokens"] == [[], [[0, 3.0, 0.75]]]


def test_a_prompts_last_message_is_found(lm):
    messages = [{"role": "system", "content": "one"}, {"role": "user", "content": "the day"}]
    prompt = prompt_of(lm, messages)
    assert prompt.tokens == tuple(lm.chat_tokens(messages))
    start, stop = prompt.last
    assert lm.decode(prompt.tokens[start:stop]) == "the day"


def test_the_cost_of_an_edit_is_an_estimate(lm):
    from brainscan.interventions import Clamp

    dictionary = random_dictionary(lm.d_model, 32, 4, "resid_post.1")
    cost = cost_of(lm, (Clamp("resid_post.1/3", 4.0, dictionary=dictionary),))
    assert cost.value > 0 and cost.n == 8


@dataclass(frozen=True)
class Card:
    name: str
    title: str
    figures: dict


def test_detectors_cards_are_shown_whatever_they_are_made_of():
    estimate = Estimate(0.9, 0.8, 0.95, 12, "bootstrap")
    cards = [
        {
            "name": "joy",
            "title": HOSTILE,
            "danger": True,
            "hookpoint": "resid_post.1",
            "f": estimate,
        },
        Card("fear", "Fear", {"auroc": estimate}),
    ]
    drawn = cards_view(cards)
    assert "<script>alert" not in drawn and "resid_post.1" in drawn
    assert drawn.count("0.9 [0.8, 0.95]") == 2
    assert "brainscan calibrate" in cards_view([])


def test_plain_text_shows_what_would_hide_or_reorder_it():
    assert shown(HOSTILE) == "<script>alert(1)</script>␛[31m⟨U+202E⟩evil"


def test_the_address_to_open_has_the_token():
    assert Place(token="abc").url(80) == "http://127.0.0.1:80/?token=abc"
    assert Place("::1").url(80) == "http://[::1]:80/"
    assert Place("0.0.0.0").url(80) == "http://127.0.0.1:80/"


def opened(name, lm):
    """The tiny model by its name; others as they are."""
    from brainscan.models import load

    return lm if name == "tiny" else load(name)


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--token", "a", "--no-token"], 2, "give one of them"),
        (["--token", " "], 2, "an empty one"),
        (["--folder", "missing"], 1, "a folder to serve"),
        (["--port", "70000"], 2, "--port"),
        (["--model", "missing-folder/"], 1, "missing-folder"),
        (["--model", "tiny", "--detectors", "missing"], 1, "missing"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    options, code, word, lm, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brainscan.cli.parts.open_model", lambda name: opened(name, lm))
    assert main(["serve", *options]) == code
    out, err = capsys.readouterr()
    assert out == "" and word in err and len(err.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_told_in_one_line(capsys, tmp_path, monkeypatch):
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        from brainscan.page.app import _bind

        with pytest.raises(UsageError, match="choose another"):
            _bind(Place(port=taken.getsockname()[1]))
    assert os.listdir(tmp_path) == []
