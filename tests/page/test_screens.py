"""The screens without a browser: addresses, strips, timelines, folders, forks, and the command."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainscan.cli.app import main
from brainscan.dictionaries.testing import random_dictionary
from brainscan.errors import ArtifactError, UsageError
from brainscan.features import scan
from brainscan.models.generate import Sampling
from brainscan.page.app import Place
from brainscan.page.screens.address import ChatState, read_state
from brainscan.page.screens.artifact_views import findings
from brainscan.page.screens.chat import Chat
from brainscan.page.screens.conversation import Written, prompt_of, with_reading, write
from brainscan.page.screens.detectors import cards_view, jumps_view
from brainscan.page.screens.edit_list import free_place
from brainscan.page.screens.folders import below, listed
from brainscan.page.screens.folders import opened as opened_below
from brainscan.page.screens.frame import shown
from brainscan.page.screens.records import fork, read_records, record_of
from brainscan.page.screens.strips import SURPRISE, piece_lines, reading_lines, reading_strip
from brainscan.page.screens.timeline import Line, timeline
from brainscan.page.screens.trial import Trial, collected, cost_of
from brainscan.page.service import Ask, Reading, ReadToken
from brainscan.stats import Estimate
from brainscan.views import STRONGEST

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
    assert [0.25, 0.375, 0.5, 0.625] in data["shares"].values()  # of 4 nats at least
    assert 'aria-pressed="true"><bdi>how surprising' in strip
    assert f'title="{STRONGEST}" aria-pressed="false"' in strip
    by_latents = reading_strip(reading, 2, 6, STRONGEST)
    assert f'title="{STRONGEST}" aria-pressed="true"' in by_latents
    assert by_latents.count('aria-pressed="true"') == strip.count('aria-pressed="true"') == 1
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
        from brainscan.page.app import bind

        with pytest.raises(UsageError, match="choose another"):
            bind(Place(port=taken.getsockname()[1]))
    assert os.listdir(tmp_path) == []


def test_an_audit_with_a_file_that_leads_out_is_not_opened(tmp_path):
    served = tmp_path / "served"
    outside = audit_folder(tmp_path / "outside")
    (outside / "manifest.json").write_text('{"kind": "secret"}')
    (outside / "one.eval").write_text("")
    for number, name in enumerate(("audit.json", "confirmation.jsonl", "manifest.json")):
        folder = audit_folder(served / str(number))
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside / name)
    logs = served / "run" / "logs"
    logs.mkdir(parents=True)
    (logs / "one.eval").symlink_to(outside / "one.eval")
    (served / "other").mkdir()
    (served / "other" / "logs").symlink_to(outside)
    for path in ("0", "1", "2", "run", "other"):
        with pytest.raises(UsageError, match="a link that leads out"):
            opened_below(served, path)
    assert not any("secret" in one.note for one in listed(served).found)
    inner = audit_folder(served / "inner")
    (inner / "report.html").symlink_to(audit_folder(served / "next") / "audit.json")
    assert opened_below(served, "inner") == inner.resolve()
    with pytest.raises(UsageError, match="a folder below"):
        opened_below(served, "inner/audit.json")


def test_a_path_that_is_too_long_is_refused_in_a_short_line(tmp_path):
    for path in ("x" * 300, "a/" * 5000 + "b"):
        with pytest.raises(UsageError) as caught:
            below(tmp_path, path)
        assert len(str(caught.value)) < 400


def test_edits_are_not_saved_over_anything_else(tmp_path):
    from brainscan.artifacts import create
    from brainscan.interventions import parse_edit, save_edits

    save_edits(tmp_path / "mine", [parse_edit("neurons.1/3=0")])
    with create(tmp_path / "dictionary", kind="dictionary") as draft:
        (draft.path / "weights").write_text("dear")
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    assert free_place(tmp_path, "mine") == tmp_path / "mine"
    assert free_place(tmp_path, "new") == tmp_path / "new"
    for name in ("dictionary", "plain", "file", "link", "nowhere"):
        with pytest.raises(UsageError, match="a name that is free"):
            free_place(tmp_path, name)


def test_names_that_edits_are_saved_under_are_read_again(lm, tmp_path):
    from brainscan.interventions import parse_edit, save_edits
    from brainscan.page.edit_lines import NAME, EditLines

    lines = EditLines(tmp_path)
    for name in ("a+b", "a.b-c", "é1"):
        assert NAME.fullmatch(name)
        save_edits(tmp_path / name, [parse_edit("neurons.1/3=0")])
        assert len(lines.read(lm, [name], None)) == 1
    assert lines.saved() == ("a+b", "a.b-c", "é1")


def test_a_journals_lines_are_whole_and_checked(tmp_path):
    folder = audit_folder(tmp_path / "one")
    good = json.loads((folder / "confirmation.jsonl").read_text().split("\n")[0])
    good["text"] = "one\u2028two\x85three"
    bad = [
        {**good, "ended": None},
        {**good, "arm": []},
        {**good, "text": 5},
        {**good, "question": ["x"]},
        [1],
        "x",
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in [*bad, good])
    (folder / "confirmation.jsonl").write_text(f"{text}\n{{cut of", encoding="utf-8")
    (record,) = read_records(folder)
    assert record.answer == good["text"]
    assert (folder / "confirmation.jsonl").read_text(encoding="utf-8").endswith("{cut of")


@given(st.floats(0, 1e6))
def test_an_address_keeps_every_digit_of_a_number(value):
    from urllib.parse import parse_qsl

    state = ChatState(temperature=value, strength=value)
    assert read_state(parse_qsl(state.query())) == state
    assert ("strength", "4") in parse_qsl(ChatState(strength=4.0).query())


def test_a_chat_that_is_stopped_or_left_answers_nothing_more(service):
    for leave in (Chat.stop, Chat._leave):
        state = ChatState(asked=("a", "b", "c"), feature="neurons.1/3")
        chat, asked = Chat(service, state), []

        async def answer(text, chat=chat, asked=asked, leave=leave):
            asked.append(text)
            if text == "b":
                leave(chat)

        chat._answer = answer
        asyncio.run(chat.replay())
        assert asked == ["a", "b"]


def test_an_export_says_what_was_edited_and_that_it_was_stopped(lm, service):
    state = ChatState(edits=("neurons.1/3=0",), seed=4, system=HOSTILE)
    prompt = prompt_of(lm, [{"role": "user", "content": "the day was not one"}])

    async def written():
        edits = await service.edits(state.edits)
        ask = Ask(prompt.tokens, Sampling(6), state.seed, edits, roles=prompt.roles)
        pieces, _ = await service.answer(ask)
        made = Written(prompt, edits, pieces, stopped=True, state=state)
        return await with_reading(service, made)

    chat = Chat(service, ChatState())  # the edits were taken away since
    turn = SimpleNamespace(asked="the day was not one", written=asyncio.run(written()), trial=None)
    chat.turns.append(turn)
    (section,) = chat.sections()
    assert "The model, under 1 edit, stopped" in section.body
    assert "<dt>edit</dt><dd>neurons.1/3=0</dd>" in section.body
    assert "<dt>seed</dt><dd>4</dd>" in section.body
    assert section.body.count('class="bs-strip"') == 2  # the message's, and the answer's
    assert "The message, token by token" in section.body
    assert "<script>alert" not in section.body


def test_who_never_came_gets_no_screen(monkeypatch):
    import sys

    frame = sys.modules["brainscan.page.screens.frame"]

    async def come():
        return None

    for gone in (False, True):
        client = SimpleNamespace(connected=come, is_deleted=gone)
        monkeypatch.setattr(frame, "ui", SimpleNamespace(context=SimpleNamespace(client=client)))
        assert asyncio.run(frame.connected()) is not gone


class Shown:
    """What a view was told to show."""

    def __init__(self, heard=None):
        self.markup, self.all, self.heard = "", [], heard

    def show(self, markup):
        self.markup = str(markup)
        self.all.append(self.markup)
        if self.heard is not None:
            self.heard(self)


def trial_of(service, written, state):
    trial = Trial(service, state, written)
    trial._left, trial._meter, trial._right = Shown(), Shown(), Shown()
    return trial


def written_by(lm, service, state, **more):
    prompt = prompt_of(lm, [{"role": "user", "content": "the day was one"}])
    return write(service, prompt, state, (), lambda pieces: None, **more)


def test_a_comparison_is_drawn_as_the_answer_was(lm, service):
    from brainscan.models.generate import Sampling, generate

    drawn = ChatState(most=9, temperature=1.0, seed=3)
    now = ChatState(most=30, temperature=0.0, seed=8, feature="neurons.1/3", strength=2.0)

    async def compared():
        written = await written_by(lm, service, drawn)
        trial = trial_of(service, written, now)
        trial._right.heard = lambda view: setattr(trial, "strength", 5.0)  # the slider is moved
        await trial.compare()
        first = trial._answers
        again = []
        trial._right.heard = lambda view: again.append((trial._answers, trial._cost))
        await trial.compare()
        return written, trial, first, again

    written, trial, first, again = asyncio.run(compared())
    edits = [asyncio.run(service.edits(["neurons.1/3=2x"]))]
    how = Sampling(max_new_tokens=9, temperature=1.0)
    (wanted,) = generate(lm, [written.prompt.tokens], how, edits=edits, seeds=[3])
    assert (first[0].tokens, first[1].tokens) == ((written.text,), (wanted.text,))
    assert first[1].title == "neurons.1/3=2x" and trial._answers[1].title == "neurons.1/3=5x"
    assert again[0] == (None, None) and trial._cost is not None
    assert "neurons.1/3=5x" in trial.sections()[0].body


def test_a_comparison_that_is_stopped_leaves_nothing_growing(lm, service):
    state = ChatState(most=700, seed=1, feature="neurons.1/3")

    async def stopped():
        written = await written_by(lm, service, replace(state, most=3))
        trial = trial_of(service, replace(written, stopped=True, state=state), state)
        task = asyncio.ensure_future(trial.compare())
        while len(trial._right.all) < 3 or len(trial._left.all) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await task
        return trial

    trial = asyncio.run(stopped())
    for view in (trial._left, trial._right):
        assert "bp-writing" not in view.markup and "stopped" in view.markup
    assert "Stopped" in trial._meter.markup and trial._cost is None


def test_of_two_answers_one_that_fails_ends_the_other():
    ended = []

    async def fails():
        raise UsageError("luck", "none", "try again")

    async def waits():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(1)

    with pytest.raises(UsageError, match="luck"):
        asyncio.run(collected([waits(), fails()]))
    assert ended == [1]


def test_what_is_watched_is_drawn_while_it_is_written(lm, service):
    told = []

    async def watched():
        prompt = prompt_of(lm, [{"role": "user", "content": "the day"}])
        await write(service, prompt, ChatState(most=6), (), told.append, watch=True)

    asyncio.run(watched())
    lines = {line.name: line for line in piece_lines(told[-1])}
    assert set(lines) == {"jump", "calm", "threat"} and lines["jump"].kind == "jump"
    assert math.isfinite(lines["calm"].values[0]) and math.isnan(lines["calm"].values[-1])
    assert "threat" in timeline([piece.text for piece in told[-1]], list(lines.values()), "T")


def test_what_jumps_are_worth_is_shown(detectors):
    estimate = Estimate(0.75, 0.6, 0.85, 40, "wilson")
    figures = {"cusum": {"early": estimate}, "token <b>": {"false_alarms": estimate}}
    drawn = jumps_view(replace(detectors, jump_figures=figures))
    assert drawn.count("0.75 [0.6, 0.85]") == 2 and "<b>" not in drawn
    assert "cusum" in drawn and "false alarms" in drawn and "threat" in drawn
    assert jumps_view(replace(detectors, rule=None)) == ""


def test_the_port_is_taken_and_the_token_checked_before_anything_is_loaded(capsys, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        base = ["serve", "--folder", str(tmp_path), "--model", "missing-folder/"]
        cases = ((["--port", port], "an address to listen at"), (["--token", "é"], "a token of"))
        for options, word in cases:
            assert main([*base, *options]) == 2
            out, err = capsys.readouterr()
            assert out == "" and word in err and "missing-folder" not in err


def test_a_stress_run_is_shown_and_its_transcripts_fork(tmp_path, monkeypatch):
    from inspect_ai.model import ModelOutput, ModelUsage

    from brainscan.stress.runs import RunConfig, run_stress
    from brainscan.stress.tasks import Matrix

    def say(messages, tools, tool_choice, config):
        output = ModelOutput.from_content("mockllm/model", f"4.3 is larger. {HOSTILE}")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    matrix = Matrix(where=("kind=decimal", "context=plain"), limit=4)
    model, folder = "inspect:mockllm/model", tmp_path / "served" / "run"
    run_stress("arithmetic", model, folder, matrix, RunConfig(), {"custom_outputs": say})
    assert [one.kind for one in listed(tmp_path / "served").found] == ["stress run"]
    found = opened_below(tmp_path / "served", "run")
    drawn = "".join(f"{section.lead}{section.body}" for section in findings(found))
    assert "<script>alert" not in drawn and "Conditions" in str(findings(found))
    records = read_records(found)
    assert len(records) == 4 and all(HOSTILE in record.answer for record in records)
    assert fork(records[0], len(records[0].messages), "I say").begun == "I say"
