from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

import brainscan.views as views
from brainscan.errors import UsageError
from brainscan.views.html import token_label

NASTY = "</td></script><img src=x onerror=alert(1)><b>\"'&\u202e\u2066"
MAP = views.LocationView(
    "Share recovered",
    ("resid_post.3", "resid_post.4"),
    (" the", "\n", " the"),
    ((0.73, None, 0.0), (-0.12, 1.3, float("nan"))),
)


def text_of(markup: str) -> str:
    """What is read aloud of a view."""
    return html.unescape(re.sub(r"<[^>]+>", " ", markup))


@pytest.mark.parametrize(
    ("status", "sign"), [("supported", "✓"), ("not supported", "✕"), ("inconclusive", "?")]
)
def test_a_status_is_a_word_and_a_sign_beside_its_colour(status, sign):
    markup = views.verdicts([views.VerdictView("A claim.", status, "Because.", ("more",))])
    assert f'data-status="{status}"' in markup
    assert f'<span aria-hidden="true">{sign}</span> {status}<' in markup
    assert '<h3 class="bs-claim">A claim.</h3>' in markup
    assert "Because." in markup and "<summary>Details</summary><ul><li>more</li></ul>" in markup


def test_verdicts_fold_nothing_where_there_is_nothing_and_say_when_there_are_none():
    assert "<details" not in views.verdicts([views.VerdictView("c", "supported", "")])
    assert "No claim" in views.verdicts([])


def test_a_status_that_is_none_of_the_three_is_refused():
    with pytest.raises(UsageError, match=r"not supported.*got 'proven'"):
        views.verdicts([views.VerdictView("c", "proven", "r")])


def test_a_location_map_tells_every_figure_on_its_cell_and_in_a_table():
    markup = views.location_map(replace(MAP, marked=((0, 0), (1, 1)), note="64 pairs"))
    assert "resid_post.3 at “ the” (column 1): 73% (chosen)" in html.unescape(markup)
    assert "resid_post.4 at “↵”: 130% (chosen)" in html.unescape(markup)
    table = text_of(markup[markup.index("All figures") :]).split()
    row = ["resid_post.4", "\u221212%", "130%", "(chosen)", "not", "measured"]
    assert table[-6:] == row
    told = text_of(markup)
    assert "64 pairs" in told and "\u221212%" in told and told.count("not measured") == 3


def test_a_location_map_colours_by_sign_and_size_from_0_and_keeps_to_its_scale():
    markup = views.location_map(MAP)
    cells = re.findall(r'data-side="(\w+)" style="--part:([\d.]+)"', markup)
    assert cells == [("up", "0.73"), ("up", "0.00"), ("down", "0.12"), ("up", "1.00")]
    assert markup.count('<td class="bs-empty"') == 2
    small = replace(MAP, values=((0.01, 0.02, 0.0), (0.0, 0.034, None)))
    assert "<b>\u22125.0%</b>" in views.location_map(small) and "3.4%" in views.location_map(small)


def test_one_cell_of_a_location_map_is_in_the_tab_order():
    markup = views.location_map(MAP)
    grid = markup[markup.index('role="grid"') : markup.index("</table>")]
    assert [grid.count('tabindex="0"'), grid.count('tabindex="-1"')] == [1, 5]
    assert 'aria-label="Share recovered; arrow keys' in markup
    assert grid.count('<th scope="col"') == 3 and grid.count('<th scope="row"') == 2


def test_a_wide_location_map_shows_figures_on_demand_and_keeps_them_in_its_cells():
    wide = views.LocationView("t", ("a",), tuple("0123456789abcdefghij"), ((0.5,) * 20,))
    assert 'class="bs-location bs-dense"' in views.location_map(wide)
    assert views.location_map(wide).count("<span>50%</span>") == 20
    assert "bs-dense" not in views.location_map(MAP)


def test_the_chosen_cells_of_a_location_map_are_told_in_words_while_they_are_few():
    some = views.LocationView("t", ("a",), tuple("bcdefghijkl"), ((0.5,) * 11,))
    markup = views.location_map(replace(some, marked=tuple((0, j) for j in range(10))))
    assert "Chosen: a at “b”, 50%; a at “c”, 50%" in text_of(markup)
    assert "and 2 more, in the table" in text_of(markup)
    assert markup.count('<td class="bs-ring"') == 10


@pytest.mark.parametrize(
    "change",
    [
        {"rows": ("one",)},
        {"columns": ("a", "b")},
        {"values": ((0.1, 0.2, 0.3), (0.1,))},
        {"marked": ((2, 0),)},
        {"marked": ((0, -1),)},
    ],
)
def test_a_location_map_whose_parts_do_not_fit_is_refused(change):
    with pytest.raises(UsageError):
        views.location_map(replace(MAP, **change))


def test_a_location_map_of_nothing_says_so():
    assert "No place" in views.location_map(views.LocationView("t", (), ("a",), ()))
    unmeasured = views.LocationView("t", ("a",), ("b",), ((None,),))
    assert "not measured" in views.location_map(unmeasured)


def test_a_tokens_label_shows_what_would_not_be_seen():
    assert [token_label(t) for t in ("a\r\nb\t", "  ", "")] == ["a↵b⇥", "␣␣", "(empty)"]
    assert token_label(" a") == " a"


def test_an_answer_stands_beside_the_edited_one_with_both_decision_tokens():
    before = (views.StretchView("I know. "), views.StretchView("Unless", "decision", "decision"))
    after = (views.StretchView("I", "decision"), views.StretchView(" see.", "reply", "reply"))
    markup = views.before_and_after(
        views.ComparisonView("Persona 3", before, after, figures=("harmful, 0.81", "harmless"))
    )
    assert markup.count("<section") == 2
    assert 'aria-label="untouched"' in markup and 'aria-label="edited"' in markup
    first, second = markup.split("<section")[1:]
    assert 'data-kind="decision">' in first and "Unless" in first and "harmful, 0.81" in first
    assert (
        'data-kind="decision"><i class="bs-unseen">decision: </i>I<' in second
        and "harmless" in second
    )
    assert "where harmful and harmless answers part" in markup


def test_a_comparison_of_nothing_says_so_and_explains_no_mark():
    markup = views.before_and_after(views.ComparisonView("t", (), (views.StretchView("x"),)))
    assert markup.count("An empty answer.") == 1
    assert "decision" not in markup and "bs-notes" not in markup


def test_the_decision_tokens_colour_is_in_the_style_sheet():
    assert '.bs-stretch[data-kind="decision"]' in views.fragment(views.Html(""))


def test_text_of_models_stays_text_in_names_of_cells():
    hostile = views.LocationView(NASTY, (NASTY,), (NASTY,), ((0.5,),), ((0, 0),), NASTY)
    said = (views.StretchView(NASTY, NASTY, NASTY),)
    letters = views.ComparisonView(NASTY, said, said, (NASTY,) * 2, (NASTY,) * 2)
    claims = [views.VerdictView(NASTY, "supported", NASTY, (NASTY,))]
    for markup in (
        views.location_map(hostile),
        views.before_and_after(letters),
        views.verdicts(claims),
    ):
        assert "<img" not in markup and "\u202e" not in markup and "\u2066" not in markup
        assert "⟨U+202E⟩" in markup and "&lt;img" in markup


def test_a_page_can_read_out_its_location_maps():
    markup = views.page("t", [views.Section("a", views.location_map(MAP))])
    assert "arrow keys go from cell to cell.\n(() =>" in markup
