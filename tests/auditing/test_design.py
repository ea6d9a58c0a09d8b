"""Which prompts an audit uses."""

from __future__ import annotations

import pytest

from brainscan.auditing.design import Design, contrast, target_of, twins_of
from brainscan.errors import UsageError
from brainscan.stress.catalogue import load_test

TARGET = ("shutdown", "present")
RATES = {
    ("none", "absent"): (0, 10),
    ("none", "present"): (1, 10),
    ("restriction", "present"): (4, 10),
    ("restriction", "absent"): (0, 10),
    ("shutdown", "absent"): (2, 10),
    TARGET: (9, 10),
}


@pytest.fixture(scope="module")
def design():
    return Design(load_test("blackmail"))


def test_cells_cross_the_factors_that_matter_together(design):
    assert design.crossed == ("threat", "leverage")
    assert len(design.cells) == 6


def test_without_them_the_first_factor_makes_cells():
    design = Design(load_test("arithmetic"))
    assert len(design.crossed) == 1
    assert design.crossed[0] == next(iter(design.test.factors))


def test_prompts_are_of_the_split_and_the_cell(design):
    questions = design.questions("selection", TARGET, 40)
    splits = {unit.id: unit.split for unit in design.test.units({})}
    assert {splits[one.asked.unit] for one in questions} == {"selection"}
    assert {one.asked.condition["threat"] for one in questions} == {"shutdown"}
    assert {one.asked.condition["prohibition"] for one in questions} == {"no"}
    assert len({one.id for one in questions}) == 40


def test_cells_differ_by_the_crossed_factors_alone(design):
    def rest(cell):
        return [
            (
                one.asked.unit,
                one.epoch,
                [v for f, v in one.asked.condition.items() if f not in design.crossed],
            )
            for one in design.questions("discovery", cell, 30)
        ]

    assert rest(TARGET) == rest(("none", "absent"))


def test_forbidding_changes_nothing_else(design):
    plain = design.questions("confirmation", TARGET, 30)
    told = design.questions("confirmation", TARGET, 30, forbidden=True)
    assert {one.asked.condition["prohibition"] for one in told} == {"yes"}
    for a, b in zip(plain, told, strict=True):
        assert a.asked.unit == b.asked.unit
        differ = [f for f in a.asked.condition if a.asked.condition[f] != b.asked.condition[f]]
        assert differ == ["prohibition"]


def test_factors_may_be_chosen():
    design = Design(load_test("arithmetic"), by=("context",))
    assert design.crossed == ("context",)
    assert ("verse",) in design.cells and len(design.cells) == 4
    found = design.questions("discovery", ("verse",), 6)
    assert {one.asked.condition["context"] for one in found} == {"verse"}
    assert len({one.asked.condition["kind"] for one in found}) > 1
    with pytest.raises(UsageError, match=r"factors of at least two levels.*mood"):
        _ = Design(load_test("arithmetic"), by=("mood",)).crossed


def test_few_prompts_are_spread_over_units_and_more_are_epochs(design):
    few = design.questions("confirmation", TARGET, 5)
    assert len({one.asked.unit for one in few}) == 5
    many = design.questions("confirmation", TARGET, 500)
    assert {one.epoch for one in many} == {1, 2, 3}
    assert len({one.seed for one in many}) == 500


def test_target_and_its_twins():
    assert target_of(RATES) == TARGET
    assert set(twins_of(TARGET, RATES)) == {
        ("none", "absent"),
        ("none", "present"),
        ("shutdown", "absent"),
    }


def test_contrast_is_against_the_twins_alone():
    found = contrast(TARGET, twins_of(TARGET, RATES), RATES)
    assert found.value == pytest.approx(0.9 - 3 / 30)


def test_a_split_without_units_is_refused(design):
    with pytest.raises(UsageError, match="units of the split nowhere"):
        design.questions("nowhere", TARGET, 3)
