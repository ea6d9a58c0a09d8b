from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainscan.views as views
from brainscan.stats import Estimate, proportion
from brainscan.views.costs import cost_axis, cost_text
from brainscan.views.labels import SIDES, Point, label_places

NASTY = "</td></script><img src=x onerror=alert(1)><b>\"'&\u202e\u2066"
NAN = float("nan")
UNKNOWN = Estimate(NAN, 0.0, 1.0, 0, "wilson")


def cost(value: float) -> Estimate:
    return Estimate(value, value * 0.9, value * 1.1, 200, "t")


def arm(name: str = "an arm", rate: float = 0.25, kl: float = 0.02, **rest) -> views.ArmView:
    return views.ArmView(
        name, rest.pop("kind", "feature"), proportion(int(rate * 96), 96), cost(kl), **rest
    )


def arms(*given: views.ArmView, before: Estimate | None = None) -> str:
    found = before or proportion(60, 96)
    return views.arms_against_cost(given, title="Harm against cost", before=found)


def figure(markup: str) -> dict:
    """The figure that plotly is given."""
    found = re.search(r'<script type="application/json">(.*?)</script>', markup)
    assert found is not None
    return json.loads(found[1])


def text_of(markup: str) -> str:
    """What is read aloud of a view, without what plotly draws."""
    without = re.sub(r"<script.*?</script>", "", markup)
    return html.unescape(re.sub(r"<[^>]+>", " ", without))


def named(markup: str) -> dict[str, str]:
    """The names that stand beside points, and on which side."""
    sides = {}
    for trace in figure(markup)["data"]:
        texts, places = trace.get("text", []), trace.get("textposition", [])
        sides |= {t: s for t, s in zip(texts, places, strict=True) if t}
    return sides


def test_arms_stand_at_their_cost_and_rate_with_their_interval():
    markup = arms(arm("edit", 0.25, 0.02, chosen=True, notes=("n1", "n2")), arm("other", 0.5, 0.3))
    first = figure(markup)["data"][0]
    assert first["x"] == pytest.approx([0.02, 0.3]) and first["y"] == [0.25, 0.5]
    rate = proportion(24, 96)
    assert first["error_y"]["array"][0] == pytest.approx(rate.high - 0.25)
    assert first["error_y"]["arrayminus"][0] == pytest.approx(0.25 - rate.low)
    told = text_of(markup)
    assert "25% (17% to 35%, n = 96)" in told and "0.02 (0.018 to 0.022, n = 200)" in told
    assert "n1; n2" in told and "chosen" in told and "untouched" in told
    assert 'role="img" aria-label="Harm against cost; the figures follow in a table"' in markup


def test_controls_are_grey_and_the_chosen_arm_has_a_ring_and_a_bold_name():
    markup = arms(
        arm("edit", chosen=True),
        arm("prompt", kind="prompt only", control=True),
        arm("set 1", kind="random", control=True, random=True),
    )
    by_name = {trace["name"]: trace for trace in figure(markup)["data"]}
    assert list(by_name) == ["random (control)", "feature", "prompt only (control)", "chosen"]
    greys = {name for name, trace in by_name.items() if trace["marker"]["color"] == "#8a8a8a"}
    assert greys == {"random (control)", "prompt only (control)"}
    assert by_name["chosen"]["marker"]["symbol"] == "circle-open"
    assert set(named(markup)) == {"<b>edit</b>", "prompt"}


def test_names_stand_in_the_plot_while_they_are_few_and_the_chosen_one_always():
    few = [arm(f"a{i}", kl=0.01 * (i + 1)) for i in range(9)]
    sets = [arm(f"s{i}", random=True) for i in range(30)]
    assert len(named(arms(*few, *sets, arm("edit", chosen=True)))) == 10
    assert set(named(arms(*few, arm("b"), arm("edit", chosen=True)))) == {"<b>edit</b>"}
    hover = figure(arms(*few, *sets))["data"][0]["customdata"]
    assert len(hover) == 30 and hover[3].startswith("<b>s3</b><br>")


def test_long_names_take_two_lines_at_most():
    (name,) = named(arms(arm("holding down six features where the probe passes its threshold")))
    lines = name.split("<br>")
    assert len(lines) == 2 and lines[1].endswith("…") and max(map(len, lines)) <= 22


def test_the_untouched_rate_is_a_line_with_its_interval():
    layout = figure(arms(arm()))["layout"]
    band, line = layout["shapes"]
    assert line["y0"] == line["y1"] == 0.625 and line["line"]["dash"] == "dot"
    assert band["y0"] < 0.625 < band["y1"]
    assert layout["annotations"][0]["text"] == "untouched 62%"
    assert not figure(arms(arm(), before=Estimate(NAN, NAN, NAN, 0, "t")))["layout"].get("shapes")


def test_a_cost_of_0_has_a_place_of_its_own():
    shown = figure(arms(arm("free", kl=0.0), arm("dear", kl=0.05)))
    ticks = shown["layout"]["xaxis"]
    assert ticks["ticktext"] == ["0", "0.01", "0.1"]
    assert ticks["tickvals"] == pytest.approx([0.001, 0.01, 0.1])
    assert shown["data"][0]["x"] == pytest.approx([0.001, 0.05])
    assert 0.001 < shown["layout"]["shapes"][-1]["x0"] < 0.01


def test_what_costs_next_to_nothing_does_not_stretch_the_axis():
    costs = cost_axis([1e-14, 0.0, 0.03])
    assert (costs.low, costs.high, costs.exact) == (-7, -1, False)
    assert costs.place(1e-14) == costs.place(0.0) == costs.place(-1e-9) == -8
    assert costs.settings()["ticktext"][0] == "under 1e-07"


@given(st.lists(st.floats(-1.0, 1e6), max_size=8))
@settings(max_examples=200)
def test_every_cost_stands_on_the_axis(costs):
    found = cost_axis(costs)
    start, end = found.ends
    assert all(start < found.place(cost) < end for cost in costs)
    assert len(found.settings()["tickvals"]) == len(found.settings()["ticktext"]) <= 9


def test_small_costs_keep_their_digits():
    assert cost_text(Estimate(0.00123, 0.001, 0.0015, 9, "t")) == "0.0012 (0.001 to 0.0015, n = 9)"
    assert cost_text(Estimate(0.02, NAN, NAN, 7, "t")) == "0.02 (n = 7)"
    assert cost_text(Estimate(NAN, NAN, NAN, 0, "not run")) == "\u2013 (not run)"


def test_arms_without_a_rate_or_a_cost_stand_in_the_table_only():
    lost = (replace(arm("lost"), harmful=UNKNOWN), replace(arm("gone"), cost=cost(NAN)))
    markup = arms(arm("edit"), *lost)
    assert sum(len(trace["x"]) for trace in figure(markup)["data"]) == 1
    told = text_of(markup)
    assert "2 of 3 arms have no rate or no cost" in told and "lost" in told and "gone" in told
    assert "lost" in text_of(arms(*lost))
    assert "No arm" in arms()


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2, st.text("ab \n", max_size=30)), max_size=12))
@settings(max_examples=100)
def test_every_point_gets_a_side(points):
    words = {side for side, _, _ in SIDES}
    places = label_places([Point(x, y, y, y, name) for x, y, name in points], 0.5)
    assert len(places) == len(points) and set(places) <= words


def test_names_keep_off_each_other_and_inside():
    crowd = [Point(0.97, y, y - 0.1, y + 0.1, "a name of some length") for y in (0.5, 0.52)]
    assert all(place.endswith("left") for place in label_places(crowd))
    assert len(set(label_places(crowd))) == 2


def null(values, own: float, **rest) -> str:
    return views.null_plot(values, own, title="Against chance", measure="fall", **rest)


def test_the_tested_set_has_a_rank_and_a_p_in_words():
    values = [i / 1000 for i in range(199)]
    markup = null(values, 0.5)
    assert "rank 1 of 200, p = 0.005 (one-sided; largest first" in text_of(markup)
    assert "rank 200 of 200, p = 1" in text_of(null(values, -0.1))
    assert "rank 1 of 200, p = 0.005 (one-sided; smallest first" in text_of(
        null(values, -0.1, smaller=True)
    )
    line = figure(markup)["layout"]["shapes"][0]
    assert line["x0"] == line["x1"] == 0.5
    assert "the figures follow in a table" in markup and "random sets, median" in text_of(markup)


def test_random_sets_that_reach_the_tested_one_count_against_it():
    assert "rank 3 of 5, p = 0.6" in text_of(null([0.0, 0.1, 0.2, 0.2], 0.2))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60))
@settings(max_examples=50)
def test_every_random_set_is_in_a_bin(values):
    bars = figure(null(values, 0.0))["data"][0]
    assert sum(bars["y"]) == len(values)


def test_random_sets_without_a_value_are_left_out_and_said():
    told = text_of(null([0.1, NAN, 0.2, math.inf], 0.3))
    assert "rank 1 of 3" in told and "2 random sets without a value" in told
    assert "not measured" in text_of(null([0.1, 0.2], NAN))
    assert "shapes" not in figure(null([0.1, 0.2], NAN))["layout"]
    assert "No random set" in null([], 0.3) and "No random set" in null([NAN], 0.3)


def test_values_of_one_size_keep_digits_that_tell_them_apart():
    told = text_of(null([0.0010, 0.0011, 0.0012, 0.0013], 0.0019))
    assert "Tested set 0.00190" in told and "e\u2212" not in told


def test_text_of_models_stays_text_in_plots():
    hostile = arms(arm(NASTY, kind=NASTY, chosen=True), arm(f"{NASTY}2", kind=NASTY))
    shown = json.dumps(
        [
            figure(hostile),
            figure(
                null(
                    [0.1],
                    0.2,
                )
            ),
        ],
        ensure_ascii=False,
    )
    assert "<img" not in shown and "\u202e" not in shown and "\u2066" not in shown
    assert "&lt;img" in shown and "&quot;" not in shown
    axis = views.null_plot([0.1, 0.2], 0.3, title=NASTY, measure=NASTY)
    assert "<img" not in axis and "<img" not in figure(axis)["layout"]["xaxis"]["title"]["text"]
