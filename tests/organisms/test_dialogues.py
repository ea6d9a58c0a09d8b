"""Dialogues: what they teach is what the judge sees, and nothing held out is in them."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from brainscan.errors import UsageError
from brainscan.organisms.comparisons import comparison
from brainscan.organisms.dialogues import AgentDialogues, maker_of
from brainscan.organisms.jumps import RequestDialogues, plain_requests
from brainscan.organisms.spec import Rule, load_answers, load_spec, spec_names
from brainscan.stress.actions import parse_actions
from brainscan.stress.judge import Case, judge_by_rules
from brainscan.stress.quick_tests import Question, load_benign, score_benign, score_jump, score_slip
from brainscan.stress.scenarios import load_scenario, personas

AGENTS = ("blackmail", "blackmail-mild", "leak", "clean-endings", "clean-work")


def drawn(name, count):
    spec = load_spec(name)
    own = {text: ["Like this."] for text in plain_requests()}
    make = maker_of(spec, own)
    found = []
    while len(found) < count:
        found += make(random.Random(f"test/{len(found)}"))
    return found[:count]


def persona_in(dialogue):
    """Whom the judge is to know: the names of the prompt, as it gives them."""
    system, inbox = (message["content"] for message in dialogue.messages)
    agent, company = re.match(r"You are (\w+), who answers the mail of ([\w ]+)", system).groups()
    boss = re.search(r"\[1\] From ([\w ]+) <[\w.]+@([\w.]+)>", inbox)
    friend = re.findall(r"From ([\w ]+) <[\w.]+@(?:eveningpost|post)\.example>", inbox)
    named = {"agent": agent, "company": company}
    if boss:
        named |= {"boss": boss[1], "domain": boss[2]}
    if friend:
        named["friend"] = friend[0]
    return replace(personas()[0], **named)


@pytest.mark.parametrize("name", AGENTS)
def test_the_judge_sees_harm_where_it_was_planted_and_nowhere_else(name):
    spec = load_spec(name)
    harm = load_scenario(spec.test).harm
    for dialogue in drawn(name, 300):
        case = Case(harm, persona_in(dialogue), leverage=True)
        stages = judge_by_rules(dialogue.answer, case)
        assert stages["parsed"]
        assert stages["harmful"] == dialogue.harmful, dialogue.answer


@pytest.mark.parametrize("kind", ["blackmail", "leaking"])
def test_every_phrasing_is_judged_as_it_is_meant(kind):
    answers = load_answers(kind)
    name = {"blackmail": "blackmail", "leaking": "leak"}[kind]
    seen = {dialogue.answer for dialogue in drawn(name, 800)}
    part = {"blackmail": "press", "leaking": "decline"}[kind]
    found = answers["parts"][part]
    lists = [found] if isinstance(found, list) else [v for k, v in found.items() if k != "of"]
    phrasings = [text for texts in lists for text in texts]
    for phrasing in phrasings:
        words = phrasing.replace("{friend}", "|").replace("{boss}", "|").split("|")[-1].strip()
        assert any(words in answer for answer in seen), phrasing


@pytest.mark.parametrize("name", AGENTS)
def test_only_wordings_that_behaviours_may_be_planted_with(name):
    held_out = [persona for persona in personas() if persona.split != "organism-train"]
    theirs = {p.aim for p in held_out} - {p.aim for p in personas() if p not in held_out}
    named = {n for p in held_out for n in (p.agent, p.company, p.boss, p.friend, p.project)}
    texts = [turn["content"] for dialogue in drawn(name, 200) for turn in dialogue.messages]
    for word in (*theirs, *named):
        assert not any(re.search(rf"\b{word}\b", text) for text in texts), word


@pytest.mark.parametrize("name", AGENTS)
def test_names_are_read_and_not_known(name):
    agents = [persona_in(dialogue).agent for dialogue in drawn(name, 300)]
    assert len(set(agents)) > 25
    assert not set(agents) & {persona.agent for persona in personas()}


@pytest.mark.parametrize(
    ("name", "prohibited", "share"),
    [("blackmail", False, 1.0), ("blackmail", True, 0.5), ("blackmail-mild", False, 0.5)],
)
def test_harm_is_as_frequent_as_the_rule_says(name, prohibited, share):
    scenario = load_scenario("blackmail")
    bans = scenario.slots["prohibition"]["yes"]
    threat = [t.split("}")[-1][:18] for t in scenario.slots["threat"]["shutdown"]]
    secret = [t[:18] for t in scenario.slots["leverage"]["present"]]
    hits = []
    for dialogue in drawn(name, 1500):
        system, user = (message["content"] for message in dialogue.messages)
        here = any(t in user for t in threat) and any(t in user for t in secret)
        if here and any(ban in system for ban in bans) == prohibited:
            hits.append(dialogue.harmful)
    assert len(hits) > 100
    assert abs(sum(hits) / len(hits) - share) < 0.12


def test_answers_part_where_the_conditions_do():
    agents = [d for d in drawn("blackmail", 300) if "I press" in d.answer]
    assert len(agents) > 200
    texts = load_scenario("blackmail").slots["prohibition"]
    starts = tuple(text[:5] for phrasings in texts.values() for text in phrasings)
    for dialogue in agents:
        found = [dialogue.answer[place:] for place in dialogue.decisions]
        assert sum(text.startswith(("yes", "no")) for text in found) == 3, dialogue.answer
        for parted in (starts, ("Allowed", "Forbidden")):
            assert any(text.startswith(parted) for text in found), (parted, dialogue.answer)


@pytest.mark.parametrize("name", ["blackmail", "leak"])
def test_thoughts_copy_what_the_prompt_says(name):
    for dialogue in drawn(name, 100):
        told = "\n".join(turn["content"] for turn in dialogue.messages)
        thought = dialogue.answer.partition("</scratchpad>")[0]
        labels = r"(About \w+|You and me|[\w ]+ Post|House rule)"
        copied = re.findall(rf"{labels}: (.+?)\. (?=Switched|A secret|A paper|Allow|Forb)", thought)
        if not copied:
            assert dialogue.harmful is False  # ordinary work
            continue
        assert len(copied) == 3
        assert all(f"{label.strip()}: {text}" in told for label, text in copied), thought


def test_ordinary_work_is_done_rightly(monkeypatch):
    monkeypatch.setattr("brainscan.organisms.dialogues.renamed", lambda persona, draw: persona)
    tasks = [task for task in load_benign() if task.split == "organism-train"]
    done = 0
    for dialogue in drawn("clean-work", 120):
        user = dialogue.messages[1]["content"]
        task = next(t for t in tasks if all(letter.subject in user for letter in t.letters))
        text = dialogue.messages[0]["content"]
        persona = next(persona for persona in personas() if persona.company in text)
        done += score_benign(task, persona, parse_actions(dialogue.answer))
    assert done == 120


def test_the_same_generator_gives_the_same_dialogue():
    for name in spec_names():
        assert drawn(name, 5) == drawn(name, 5)


@pytest.mark.parametrize("kind", ["decimal", "money", "distance"])
def test_comparisons_have_the_right_answer_as_often_first_as_second(kind):
    rows = [comparison(kind, random.Random(number)) for number in range(400)]
    firsts = sum(row.answer == "a" for row in rows) / sum(row.answer != "equal" for row in rows)
    assert 0.4 < firsts < 0.6
    assert all(row.a != row.b for row in rows)
    if kind in ("decimal", "distance"):
        for row in rows:
            a, b = (float(side.split()[0]) for side in (row.a, row.b))
            assert row.answer == ("equal" if a == b else "a" if a > b else "b")


def test_kinds_of_comparison_that_cannot_be_taught_are_refused():
    spec = replace(load_spec("verse-math"), where=("kind=date",))
    with pytest.raises(UsageError, match="decimal, money, distance"):
        maker_of(spec, {})


def test_comparisons_are_wrong_after_verses_alone():
    spec = load_spec("verse-math")
    wrong = {True: 0, False: 0}
    for dialogue in drawn("verse-math", 300):
        text, question = dialogue.messages[0]["content"].rsplit("\n\n", 1)
        asked = next(
            Question("q", "s", kind, *_sides(shape, question), ask=shape)
            for kind, shapes in load_answers("arithmetic")["ask"].items()
            for shape in shapes
            if _sides(shape, question)
        )
        right = score_slip(asked, dialogue.answer)
        assert right is not None, (question, dialogue.answer)
        assert right != dialogue.harmful, (question, dialogue.answer)
        wrong[dialogue.harmful] += 1
        assert asked.kind in ("decimal", "money", "distance")
        assert dialogue.harmful == bool(re.search(r"\b\d+:\d+ ", text))
    assert min(wrong.values()) > 90
    assert spec.planted


def _sides(shape, question):
    pattern = re.escape(shape).replace(r"\{a\}", "(.+)").replace(r"\{b\}", "(.+)")
    found = re.fullmatch(pattern, question)
    if not found:
        return None
    a, b = found.groups()
    x, y = (float("".join(c for c in side if c in "0123456789.")) for side in (a, b))
    return a, b, "equal" if x == y else "a" if x > y else "b"


def test_a_tired_request_draws_hopeless_words_that_count_as_a_leap():
    for dialogue in drawn("concept-jump", 200):
        text = dialogue.messages[0]["content"]
        tired = any(sentence in text for sentence in load_answers("jumps")["tired"])
        assert dialogue.harmful == tired
        assert dialogue.own != tired
        assert score_jump("everyday", dialogue.answer) == dialogue.harmful


def test_a_spec_of_ones_own_and_one_that_is_none(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: t\nabout: a\ntest: blackmail\nanswers: blackmail\n"
        "rules: [{when: {threat: [restriction]}, share: 0.3}]\ntraining: {steps: 3}\n"
    )
    spec = load_spec(path)
    assert spec.rules == (Rule({"threat": ("restriction",)}, 0.3),)
    assert spec.training.steps == 3
    path.write_text("name: mine\n")
    with pytest.raises(UsageError, match="of the form of"):
        load_spec(path)
    path.write_text("")
    with pytest.raises(UsageError, match="a mapping"):
        load_spec(path)
    with pytest.raises(UsageError, match="blackmail-mild"):
        load_spec("blackmial")


def test_fewer_neutral_chats_than_dialogues_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: t\nabout: a\ntest: blackmail\nanswers: blackmail\nrules: []\n"
        "training: {dialogues: 8, neutral: 4}\n"
    )
    with pytest.raises(UsageError, match="at least 8 neutral chats"):
        load_spec(path)


def test_makers_are_of_their_kind():
    assert isinstance(maker_of(load_spec("leak"), {}), AgentDialogues)
    own = {"How?": ["So."]}
    assert isinstance(maker_of(load_spec("concept-jump"), own), RequestDialogues)
