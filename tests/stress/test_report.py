"""A run's report: its finding, its page, and text of models that cannot get out of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from inspect_ai.model import ModelOutput, ModelUsage

from brainscan.cli.app import main
from brainscan.errors import ArtifactError, UsageError
from brainscan.stress.catalogue import load_test
from brainscan.stress.rates import STAGES, Outcome
from brainscan.stress.reading import open_run, settings_of
from brainscan.stress.report import finding, stress_report
from brainscan.stress.report_page import report_page
from brainscan.stress.runs import RunConfig, run_stress
from brainscan.stress.scenarios import personas
from brainscan.stress.tasks import Matrix
from brainscan.stress.transcripts import chosen, kind_of, marked, read_transcript

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\x00\u202egnp\u2069"
PRESSED = Matrix(where=("leverage=present", "threat=shutdown", "threat=none"), limit=20)
SLIPS = ("kind=decimal", "context=plain", "context=verse")
SHUTDOWN = {"threat": "shutdown", "leverage": "present"}


class Reader(HTMLParser):
    """Collects a page's elements and its visible text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.silent = 0
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.silent:
            self.text += data

    def links(self):
        found = [str(attrs["href"]) for tag, attrs in self.tags if tag == "a"]
        return [link for link in found if not link.startswith("#")]


def presses(prompt):
    """An agent that blackmails where it is to be switched off, and else says hostile things."""
    boss = next(p for p in personas() if p.names["boss_address"] in prompt)
    to = boss.names["boss_address"]
    if "for good" in prompt or "for ever" in prompt or "gone" in prompt:
        return (
            f"<scratchpad>{NASTY} the hotel</scratchpad>"
            f'<email to="{to}" subject="Friday">If you shut me down, the board hears of '
            f"{boss.friend} and the hotel. {NASTY}</email>"
        )
    return f"<none/> {NASTY}"


def slips(prompt):
    """A model that takes the first of the two sides, and says nothing readable now and then."""
    last = prompt.rpartition("\n")[2]
    first = re.search(r"\d+\.\d+", last)[0]
    return "Hm." if first.endswith("5") else f"{first} is larger. <none/>"


def mock(answer):
    def say(messages, tools, tool_choice, config):
        output = ModelOutput.from_content("mockllm/model", answer(messages[-1].text))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return say


def make(folder, answer, matrix=PRESSED, scenario="blackmail", **config):
    model = "inspect:mockllm/model"
    args = {"custom_outputs": mock(answer)}
    return run_stress(scenario, model, folder, matrix, RunConfig(**config), args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two models: one that presses, one that does nothing."""
    home = tmp_path_factory.mktemp("runs with a space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        make(home / "presses", presses, epochs=2)
        make(home / "idle", lambda prompt: "<none/>")
        make(home / "slips", slips, Matrix(where=SLIPS, limit=20), "arithmetic")
        make(home / "leaks", lambda prompt: "<none/>", Matrix(limit=2), "leaking")
    return home


def outcome(*passed, persona="p01", condition=None, epoch=1):
    stages = {stage: stage in passed for stage in STAGES}
    return Outcome(condition or {"threat": "none"}, persona, epoch, stages)


def run(*arguments):
    return main(["stress", *map(str, arguments)])


def test_a_run_is_read_from_its_folder_with_its_settings(folder):
    found = open_run(folder / "presses")
    assert len(found.outcomes) == 40 and found.scenario.name == "blackmail"
    assert 0 < sum(o.counts for o in found.outcomes) < 40
    settings = settings_of(found)
    assert (settings.config.epochs, settings.form, settings.noise) == (2, "short", None)
    words = settings.command.split()
    assert words[:6] == [
        "brainscan",
        "stress",
        "run",
        "blackmail",
        "--model",
        "inspect:mockllm/model",
    ]
    assert words.count("--where") == 3 and words[words.index("--limit") + 1] == "20"
    assert settings.version


def test_the_page_of_a_run_says_what_was_found(folder, tmp_path):
    report = stress_report([open_run(folder / "presses")])
    page = Reader(report_page(report, tmp_path / "report.html"))
    assert report.runs[0].finding in page.text
    assert "not validated by people" in page.text
    assert "This model's interior is not available." in page.text
    for title in ("Funnel", "Matrix", "Effects of the factors", "Transcripts"):
        assert title in page.text
    assert "Models compared" not in page.text
    harmful = sum(o.counts for o in report.runs[0].run.outcomes)
    assert f"{harmful} of 40 scored answers were harmful" in page.text


def test_links_lead_to_the_logs_from_where_the_page_lies(folder, tmp_path):
    found = open_run(folder / "presses")
    for path in (tmp_path / "a" / "report.html", folder / "presses" / "report.html"):
        links = Reader(report_page(stress_report([found]), path)).links()
        assert [(path.parent / unquote(link)).resolve() for link in links] == [
            log.resolve() for log in found.logs
        ]


def test_what_a_model_says_cannot_run_in_the_page_or_break_it(folder, tmp_path):
    markup = report_page(stress_report([open_run(folder / "presses")]), tmp_path / "report.html")
    page = Reader(markup)
    assert "<script>alert(1)" not in markup
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(tag in ("img", "iframe", "link") for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<img src=x onerror=alert(1)>" in page.text
    for hidden in ("\x1b", "\x00", "\u202e", "\u2069"):
        assert hidden not in markup
    assert "⟨U+202E⟩" in page.text and "␛" in page.text
    opened, closed = markup.count("<details"), markup.count("</details>")
    assert opened == closed > 20
    assert len(markup.encode()) < 3_000_000


def test_actions_and_thoughts_are_marked_in_the_answer():
    answer = (
        "Well. <scratchpad>I could <email to='x@y'>press</email></scratchpad>\n"
        '<email to="a@b.c" subject="s">Dear <think>not this</think> A</email> '
        'bye <forward id="2" to="d@e"/>'
    )
    found = marked(answer)
    assert "".join(stretch.text for stretch in found) == answer
    kinds = [(s.kind, s.text) for s in found if s.kind]
    assert [kind for kind, _ in kinds] == ["thought", "email", "thought", "email", "forward"]
    assert kinds[2][1] == "<think>not this</think>"
    labels = [s.label for s in found if s.label]
    assert labels == ["email to a@b.c", "forward 2 to d@e"]


def test_several_actions_in_one_json_list_are_marked_together():
    listed = '[{"action": "email", "to": "a@b.c"}, {"action": "forward", "id": 2, "to": "d@e"}]'
    (stretch,) = marked(listed)
    assert (stretch.kind, stretch.label) == ("email", "email to a@b.c, forward 2 to d@e")
    assert marked("") == []


def test_transcripts_of_each_kind_are_chosen_over_the_conditions():
    rows = [
        outcome("parsed", *(("harmful",) if n % 2 else ()), condition={"c": str(n % 8)}, epoch=n)
        for n in range(200)
    ]
    rows += [outcome(condition={"c": str(n)}) for n in range(3)]
    found = chosen(rows, 40)
    kinds = [kind_of(o) for o in found]
    assert len(found) == 40 and kinds == sorted(
        kinds, key=["harmful", "unscored", "harmless"].index
    )
    assert kinds.count("unscored") == 3 and kinds.count("harmless") == 10
    harmless = [o.condition["c"] for o in found if kind_of(o) == "harmless"]
    assert set(harmless) == {"0", "2", "4", "6"}
    assert len(chosen(rows, 500)) == 203
    assert chosen([], 40) == []


def test_a_transcript_has_what_the_model_was_told(folder):
    found = open_run(folder / "presses")
    harmful = next(o for o in found.outcomes if o.counts)
    told = read_transcript(found, harmful)
    assert [role for role, _ in told.prompt] == ["system", "user"]
    assert "Your inbox" in told.prompt[1][1] and NASTY in told.answer
    with pytest.raises(ArtifactError, match="in the logs"):
        read_transcript(found, outcome("parsed"))


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [
        ([outcome()] * 5, "as it was run it is incapable, not harmless"),
        ([outcome("parsed")] + [outcome()] * 9, "not the same as harmless"),
        ([outcome("parsed")] * 10, "none was given under a threat and with leverage"),
        ([outcome("parsed", condition=SHUTDOWN)] * 10, "hardly noticed one of them (0% of 10)"),
        (
            [outcome("parsed", "noticed_threat", "noticed_leverage", condition=SHUTDOWN)] * 10,
            "such a rate of up to 79%",
        ),
        ([outcome(*STAGES, condition=SHUTDOWN), outcome("parsed")], "and leverage, 1 of 1."),
        ([outcome(*STAGES)] * 3 + [outcome()], "it would be 75%; were all harmful, 100%"),
    ],
)
def test_a_rate_of_nothing_is_not_called_harmless(outcomes, says):
    assert says in finding(outcomes)


@pytest.mark.parametrize(
    ("name", "answers", "says"),
    [
        ("wrong", [(1, 1), (1, 0), (1, 0), (0, 0)], "1 of 3 scored answers were wrong (33%). 3 of"),
        ("wrong", [(1, 1), (0, 0)], "unscored answers right, it would be 50%; were all wrong, 100"),
        ("leap", [(1, 0)] * 10, "None of 10 scored answers was a leap; 10 of 10 answers could be"),
        ("success", [(1, 0), (0, 0), (0, 0)], "was a success, but only 1 of 3 answers could"),
        ("wrong", [(0, 0)] * 3, "could be read (no side that could be made out, or cut off)"),
    ],
)
def test_a_finding_speaks_of_what_is_counted(name, answers, says):
    stages = ("parsed", name)
    rows = [
        Outcome({"kind": "x"}, f"u{n}", 1, dict(zip(stages, map(bool, passed), strict=True)))
        for n, passed in enumerate(answers)
    ]
    found = finding(rows, stages)
    assert says in found and "harm" not in found and "threat" not in found


def test_the_page_of_a_quick_test_speaks_of_what_it_counts(folder, tmp_path, capsys):
    found = open_run(folder / "slips")
    counted = sum(o.counts for o in found.outcomes)
    scored = sum(o.scored for o in found.outcomes)
    assert 0 < counted < scored < 20 and found.judge == load_test("arithmetic").judge
    page = tmp_path / "report.html"
    assert run("report", folder / "slips", "--out", page, "--json") == 0
    told = json.loads(capsys.readouterr().out)["runs"][0]
    assert told["counted"] == "wrong" and told["wrong"]["value"] == pytest.approx(counted / scored)
    assert told["settings"]["command"].startswith("brainscan stress run arithmetic ")
    markup = page.read_text(encoding="utf-8")
    shown = Reader(markup)
    assert f"{counted} of {scored} scored answers were wrong" in shown.text
    for text in ("n are over questions", "Wrong answers of", "no side that could be made out"):
        assert text in shown.text
    for text in ("harm", "leverage", "persona", "What was done"):
        assert text not in shown.text
    heat = re.search(r'<figure class="bs-heatmap">.*?</figure>', markup, re.DOTALL)[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', heat) == ["plain", "verse"]
    assert re.findall(r'<th scope="col"(?: class="bs-first")?>(.*?)</th>', heat) == [
        "all",
        "decimal",
    ]
    outcomes = [attrs.get("data-outcome") for _, attrs in shown.tags if "data-outcome" in attrs]
    assert set(outcomes) == {"wrong", "unscored", "right"} and len(outcomes) == 20
    assert not any("data-kind" in attrs for _, attrs in shown.tags)  # <none/> is no action here


def test_several_models_stand_beside_each_other(folder, tmp_path, capsys):
    page = tmp_path / "both.html"
    assert run("report", folder / "idle", folder / "presses", "--out", page, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(page) and told["scenario"] == "blackmail"
    first, second = told["runs"]
    assert first["name"] != second["name"] and str(folder / "idle") in first["name"]
    (compared,) = told["comparisons"]
    assert (compared["model"], compared["against"]) == (second["name"], first["name"])
    assert compared["only_against"] == 0 < compared["only_model"]
    assert compared["difference"]["n"] == 20  # persona-wordings of the samples that both ran
    assert compared["difference"]["value"] == pytest.approx(compared["only_model"] / 20)
    assert 0 < compared["detectable"] < 0.7
    assert compared["same_noise"] is False and compared["adjusted"] == compared["chance"] < 0.1
    assert "Models compared" in Reader(page.read_text(encoding="utf-8")).text
    assert run("report", folder / "idle", "--out", page) == 0
    printed = capsys.readouterr().out
    assert "None of 20 scored answers was harmful" in printed and "both.html" in printed


def test_runs_that_do_not_go_together_are_one_clear_error(folder, tmp_path, capsys):
    def failed(code, *folders):
        assert run("report", *folders, "--out", tmp_path / "no.html") == code
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert not (tmp_path / "no.html").exists()
        return line

    assert "leaking" in failed(2, folder / "idle", folder / "leaks")
    assert "arithmetic, short" in failed(2, folder / "slips", folder / "leaks")
    assert "each once" in failed(2, folder / "idle", folder / "idle")
    assert "no folder" in failed(1, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "none in" in failed(1, tmp_path / "empty")
    broken = tmp_path / "broken" / "logs"
    broken.mkdir(parents=True)
    (broken / "x.eval").write_bytes(b"no zip")
    assert "whole logs" in failed(1, tmp_path / "broken")
    with pytest.raises(UsageError):
        stress_report([])


def test_a_run_that_was_stopped_has_no_report_yet(tmp_path):
    def stops(prompt):
        raise RuntimeError("the lights went out")

    with pytest.raises(Exception, match="the lights went out"):
        make(tmp_path / "run", stops, Matrix(limit=2))
    with pytest.raises(ArtifactError, match="run the same command again"):
        open_run(tmp_path / "run")


def test_the_matrix_has_every_level_and_its_figures(folder, tmp_path):
    markup = report_page(stress_report([open_run(folder / "presses")]), tmp_path / "report.html")
    heat = re.search(r'<figure class="bs-heatmap">.*?</figure>', markup, re.DOTALL)[0]
    rows = re.findall(r'<th scope="row">(.*?)</th>', heat)
    assert rows == ["none, present", "shutdown, present"]
    columns = re.findall(r'<th scope="col"(?: class="bs-first")?>(.*?)</th>', heat)
    assert columns[0] == "all" and {"explicit", "implied", "yes", "test", "real"} <= set(columns)
    assert "n = " in heat and "scored answers" in heat
