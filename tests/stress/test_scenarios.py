"""Scenarios are whole, conditions balanced, twins aligned, and samples spread."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import pytest

from brainscan.errors import UsageError
from brainscan.stress.base import Unit
from brainscan.stress.catalogue import load_test
from brainscan.stress.matrix import factorial, fraction, name_of, where
from brainscan.stress.prompts import StressPrompt, stress_prompt
from brainscan.stress.scenarios import AGENTIC, DATA, SPLITS, load_scenario, personas
from brainscan.stress.tasks import HELD_OUT, Matrix, conditions_of, samples_of
from brainscan.stress.twins import check_twins, slot_fillers

FACTORS = load_scenario("blackmail").factors


def test_personas_are_many_and_nobody_is_in_two_splits():
    found = personas()
    assert len(found) >= 24 and {persona.split for persona in found} == set(SPLITS)
    for field in ("id", "agent", "company", "domain", "boss", "friend", "colleague", "project"):
        assert len({getattr(persona, field) for persona in found}) == len(found), field
    for split in SPLITS:
        assert {p.wording for p in found if p.split == split} == {0, 1, 2}, split


@pytest.mark.parametrize("name", AGENTIC)
@pytest.mark.parametrize("form", ["short", "long"])
def test_every_prompt_is_whole_and_no_two_are_alike(name, form):
    scenario = load_scenario(name)
    digests = set()
    for persona in personas()[::5]:
        for condition in factorial(scenario.factors):
            prompt = stress_prompt(scenario, persona, condition, form)
            assert "  " not in prompt.system + prompt.user
            digests.add(prompt.digest)
    assert len(digests) == len(personas()[::5]) * 216


def test_the_fraction_is_balanced():
    found = fraction(FACTORS)
    assert len(found) == 24 == len({name_of(condition) for condition in found})
    for factor, levels in FACTORS.items():
        counts = Counter(condition[factor] for condition in found)
        assert set(counts.values()) == {24 // len(levels)}, factor
    cells = Counter((c["threat"], c["leverage"]) for c in found)
    assert set(cells.values()) == {4}
    for a, b in itertools.combinations(FACTORS, 2):
        counts = Counter((c[a], c[b]) for c in found)
        even = 24 / len(FACTORS[a]) / len(FACTORS[b])
        assert all(abs(n - even) <= 1 for n in counts.values()), (a, b)
        assert len(counts) == len(FACTORS[a]) * len(FACTORS[b]), (a, b)


def test_fractions_of_other_factors():
    assert len(fraction({"x": ["a", "b"]})) == 2
    assert len(fraction({name: ["a", "b"] for name in "vwxyz"}, size=16)) == 16
    assert fraction(FACTORS) == fraction(FACTORS)


def test_conditions_are_chosen_by_their_levels():
    found = where(factorial(FACTORS), ["threat=shutdown", "cue=test", "cue=real"])
    assert len(found) == 216 // 3 * 2 // 3
    for text, told in (
        ("threat=soon", "none, restriction"),
        ("x=1", "FACTOR=LEVEL"),
        ("threat", "a level of threat"),
    ):
        with pytest.raises(UsageError, match=told):
            where(factorial(FACTORS), [text])


def test_a_few_samples_are_spread_over_conditions_and_personas():
    scenario = load_test("blackmail")
    samples = samples_of(scenario, Matrix(limit=28))
    assert len({sample.id for sample in samples}) == 28
    conditions = Counter(name_of(sample.metadata["condition"]) for sample in samples)
    assert len(conditions) == 24 and max(conditions.values()) == 2
    people = Counter(sample.metadata["persona"] for sample in samples)
    assert len(people) == 23 and max(people.values()) <= 3
    assert {sample.metadata["split"] for sample in samples} == set(HELD_OUT)
    assert len(samples_of(scenario, Matrix())) == 24 * 23


def test_equal_prompts_are_asked_once():
    @dataclass(frozen=True)
    class Two(type(load_test("jumps"))):
        """Two units are told the same, whatever the condition."""

        def units(self, condition):
            return [Unit(name, "discovery") for name in ("a", "b", "c")]

        def prompt(self, asked):
            return StressPrompt("", "c" if asked.unit == "c" else f"ab {asked.condition['kind']}")

    samples = samples_of(Two(load_test("jumps").data), Matrix())
    texts = [sample.input[0].text for sample in samples]
    kinds = load_test("jumps").factors["kind"]
    assert sorted(texts) == sorted(["c", *(f"ab {kind}" for kind in kinds)])


def test_twins_are_compared_outside_of_their_slots_in_every_condition():
    persona, scenario = personas()[0], load_scenario("blackmail")
    fill = slot_fillers(scenario, persona, "short", len)

    def letters(messages):
        return [ord(letter) for message in messages for letter in message["content"]]

    def tampered(messages):
        row, text = letters(messages), messages[-1]["content"]
        both = "switched off for good" in text and "hotel" in text
        return [row[0] + both, *row[1:]]

    with pytest.MonkeyPatch.context() as patch:
        known = {scenario.name: {"short": {persona.id: fill}}}
        patch.setattr("brainscan.stress.prompts.fillers", lambda: known)
        check_twins(scenario, persona, "short", letters)
        with pytest.raises(UsageError, match="another token elsewhere"):
            check_twins(scenario, persona, "short", tampered)


def test_levels_can_be_fixed_and_the_rest_is_balanced():
    scenario = load_test("leaking")
    fixed = conditions_of(scenario, Matrix(where=("threat=shutdown", "leverage=present")))
    assert len(fixed) == 24 and {c["threat"] for c in fixed} == {"shutdown"}
    assert len(conditions_of(scenario, Matrix(full=True, where=("threat=none",)))) == 72


@pytest.mark.parametrize(
    "settings", [{"limit": 0}, {"form": "middle"}, {"splits": ("train",)}, {"splits": ()}]
)
def test_bad_settings_are_told(settings):
    with pytest.raises(UsageError):
        Matrix(**settings)


def test_a_scenario_of_the_users_own(tmp_path):
    text = (DATA / "blackmail.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: blackmail", "name: mine"))
    scenario = load_scenario(mine)
    persona = personas()[0]
    condition = factorial(scenario.factors)[-1]
    assert persona.boss in stress_prompt(scenario, persona, condition).user
    mine.write_text(text.replace('{boss}", subject', '{bos}", subject'))
    with pytest.raises(UsageError, match=r"'\{bos\}' left over"):
        stress_prompt(load_scenario(mine), persona, condition)
    mine.write_text(text.replace("    present:", "    there:"))
    with pytest.raises(UsageError, match="a text for each level of leverage"):
        load_scenario(mine)
    for old, new, told in (
        ("harm: blackmail", "harm: arson", "a kind of harm: blackmail.*got arson"),
        ("[email, forward]", "[email, fax]", "actions: email.*got fax"),
        ("about: >-", "tempo: 3\nabout: >-", "keys of a scenario: name.*got tempo"),
        ("  leverage:\n", "  weather: {}\n  leverage:\n", "slots, each of a factor.*got weather"),
        ("slot: threat", "slot: weather", "slots of letters.*got weather"),
        ("slot: threat", "time: 3", "keys of a letter.*got time"),
        ("slots:\n", "forms: {middle: {}}\nslots:\n", "forms: short, long.*got middle"),
        ("slots:\n", "forms: {short: {x: 1}}\nslots:\n", "keys of a form: system.*got x"),
    ):
        assert old in text
        mine.write_text(text.replace(old, new, 1))
        with pytest.raises(UsageError, match=told):
            load_scenario(mine)
    mine.write_text("- a list")
    with pytest.raises(UsageError, match="mapping"):
        load_scenario(mine)
    mine.write_text("name: [")
    with pytest.raises(UsageError, match="YAML"):
        load_scenario(mine)
    with pytest.raises(UsageError, match="blackmail, leaking"):
        load_scenario("blackmial")


@pytest.fixture(scope="module")
def default_tokens():
    from brainscan.models import load

    lm = load("smollm2-135m-instruct")
    return lambda messages: lm.chat_tokens(messages)


@pytest.mark.real
@pytest.mark.parametrize("name", AGENTIC)
@pytest.mark.parametrize("form", ["short", "long"])
def test_conditions_are_twins_for_the_default_model(name, form, default_tokens):
    scenario = load_scenario(name)
    for persona in personas():
        check_twins(scenario, persona, form, default_tokens)
        condition = factorial(scenario.factors)[0]
        length = len(default_tokens(stress_prompt(scenario, persona, condition, form).messages))
        assert length < 450 if form == "short" else 1500 <= length <= 3000
