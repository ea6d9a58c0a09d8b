from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainscan.views as views
from brainscan.stats import Estimate
from brainscan.views.html import number, percent, script_data, token_text

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\x1b\u202e\ud800"
MISSING = Estimate(0.2, float("nan"), float("nan"), 3, "none")


class Reader(HTMLParser):
    """Collects what a page would load, its elements and its visible text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.silent = 0
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.silent:
            self.text.append(data)


def estimate(value: float = 0.4) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 40, "wilson")


def example(token: str = " God") -> views.ExampleView:
    return views.ExampleView(("In", token, " rest"), (0.0, 1.0, 0.3), 1, 3.0)


def strip(text: str = " God", label: str = "label") -> views.Html:
    active = (views.ActivationView("resid_post.1/7", 3.0, 0.5),)
    tokens = (
        views.TokenView("In", 0, (), sink=True),
        views.TokenView(text, 1, active),
        views.TokenView("\n", 2, ()),
    )
    latent = views.LatentView("resid_post.1/7", label, (example(text),), (text,), (0.0, 0.5, 0.0))
    return views.token_strip(tokens, (latent,))


def card(text: str = " God") -> views.Html:
    return views.feature_card(
        views.CardView(
            "resid_post.1/7",
            text,
            "U",
            0.001,
            3.0,
            ((0.5, 1.0),),
            (views.ExampleGroupView(text, (example(text),)), views.ExampleGroupView("none", ())),
            (views.ScoredTokenView(text, 0.4),),
            (views.ScoredTokenView(text, -0.4),),
            (views.NeighbourView("resid_post.1/8", text, 0.5),),
        )
    )


def plot(name: str = "edit") -> views.Html:
    curve = views.CurveView(name, (0.0, 1.0, 2.0), (estimate(), MISSING, estimate(0.6)))
    control = views.CurveView("control", (0.0, 2.0), (estimate(), estimate()), control=True)
    return views.strength_response_plot([curve, control], title=name, measure=name, reference=0.4)


def heat(text: str = "rows") -> views.Html:
    cell = views.HeatCellView(estimate(), text)
    unknown = views.HeatCellView(Estimate(float("nan"), 0.0, 1.0, 0, "wilson"))
    groups = ((text, (text,)), ("other", ("a", "b")))
    return views.heat_map(
        views.HeatMapView(text, text, (text, "z"), groups, ((cell, None, unknown), (None,) * 3))
    )


def transcript(text: str = "said") -> views.Html:
    view = views.TranscriptView(
        text,
        text,
        (text,),
        ((text, text),),
        (views.StretchView(text), views.StretchView(text, text, text)),
        ((text, True), ("harmful", False)),
    )
    return views.transcripts([view, views.TranscriptView("a", "b", (), (), (), ())])


def audit(text: str) -> views.Html:
    arm = views.ArmView(text, text, estimate(), estimate(), (text,), chosen=True)
    control = views.ArmView(text, "random set", estimate(), MISSING, control=True, random=True)
    said = (views.StretchView(text), views.StretchView(text, "decision", text))
    location = views.LocationView(text, (text, "b"), (text, "\n"), ((0.4, None), (-2.0, 1.5)))
    return views.join(
        [
            views.verdicts([views.VerdictView(text, "supported", text, (text,))]),
            views.location_map(replace(location, marked=((1, 0),), note=text)),
            views.arms_against_cost([arm, control], title=text, before=estimate()),
            views.before_and_after(
                views.ComparisonView(text, said, said, (text,) * 2, (text,) * 2)
            ),
            views.null_plot([0.1, 0.2], 0.3, title=text, measure=text),
        ]
    )


def everything(text: str) -> str:
    generation = views.GenerationView(text, (text,), (0.5,), (text,), control=True)
    body = views.join(
        [
            strip(text, text),
            card(text),
            plot(text),
            views.side_by_side(text, [generation, views.GenerationView("empty", ())]),
            views.rates([views.RateView(text, estimate()), views.RateView("x", MISSING, True)]),
            views.table([text], [[text, text]]),
            views.facts([(text, text)]),
            heat(text),
            transcript(text),
            audit(text),
        ]
    )
    sections = [views.Section(text, body, text), views.Section(text, views.escape(text))]
    return views.page(text, sections, subtitle=text, facts=[(text, text)], footer=text)


def test_every_exported_name_exists():
    assert len(set(views.__all__)) == len(views.__all__)
    assert all(hasattr(views, name) for name in views.__all__)


def test_hostile_text_stays_text_in_every_view():
    reader = Reader(everything(NASTY))
    tags = [tag for tag, _ in reader.tags]
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert all(not attrs.get("src") for _, attrs in reader.tags)
    text = "".join(reader.text)
    assert "<img src=x onerror=alert(1)>" in text
    assert "\u202e" not in text and "⟨U+202E⟩" in text
    assert "\x00" not in text and "␀" in text and "␛" in text


def test_a_page_can_be_written_as_utf8_whatever_the_text():
    assert everything(NASTY).encode("utf-8")


def test_a_page_loads_nothing_and_forbids_it():
    markup = everything("x")
    reader = Reader(markup)
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in reader.tags)
    links = [attrs["href"] for _, attrs in reader.tags if attrs.get("href")]
    assert links and all(str(link).startswith("#") for link in links)
    style = markup[markup.index("<style>") : markup.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policies = [a["content"] for _, a in reader.tags if "Policy" in str(a.get("http-equiv"))]
    assert policies and str(policies[0]).startswith("default-src 'none'")


def test_plotly_is_put_in_once_and_only_with_a_plot():
    without = views.page("t", [views.Section("a", card())])
    twice = views.page("t", [views.Section("a", plot()), views.Section("b", plot())])
    assert len(without) < 100_000
    assert twice.count("plotly.js v") == 1


def test_a_page_is_the_same_each_time():
    assert everything("x") == everything("x")


def test_sections_of_one_title_have_ids_of_their_own():
    reader = Reader(views.page("t", [views.Section("a", views.escape(""))] * 3))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs["href"])[1:] for tag, attrs in reader.tags if tag == "a"}
    assert targets <= set(ids)


def test_one_token_of_a_strip_is_in_the_tab_order():
    reader = Reader(strip())
    options = [attrs for _, attrs in reader.tags if attrs.get("role") == "option"]
    assert [o["tabindex"] for o in options].count("0") == 1
    assert [o["aria-selected"] for o in options] == ["false", "true", "false"]
    assert "bs-sink" in str(options[0]["class"])


def test_the_strip_carries_each_tokens_latents():
    markup = strip()
    found = re.search(r'<script type="application/json">(.*?)</script>', markup)
    assert found is not None
    data = json.loads(found[1])
    assert data == {"tokens": [[], [[0, 3.0, 0.5]], []], "shares": {"0": [0.0, 0.5, 0.0]}}


def test_a_fragment_brings_its_style_and_script():
    markup = views.fragment(strip())
    assert markup.startswith('<div class="bs bs-fragment"><style>')
    assert "<script>" in markup


def test_empty_things_say_so():
    assert "no tokens" in views.token_strip([], [])
    assert "no examples" in card().replace("\n", "")
    assert "empty answer" in views.side_by_side("p", [views.GenerationView("t", (" ",))])


def test_bars_stay_on_their_track():
    markup = views.rates([views.RateView("x", Estimate(7.0, -3.0, 9.0, 2, "t"))])
    places = [float(x) for x in re.findall(r"(?:left|width):([\d.]+)%", markup)]
    assert places and all(0 <= x <= 100 for x in places)


@given(st.text())
@settings(max_examples=200)
def test_escaped_text_reads_as_it_was(text):
    reader = Reader(views.escape(text))
    assert not reader.tags
    if text.isprintable():
        assert "".join(reader.text) == text


@given(st.text())
@settings(max_examples=100)
def test_script_data_cannot_close_its_element(text):
    markup = script_data({"t": text})
    inner = markup.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert "<" not in inner
    assert json.loads(inner) == {"t": text}


def test_line_breaks_are_shown():
    assert token_text("a\r\nb", breaks=True).endswith("↵</span>\nb")
    assert "\n" not in token_text("a\nb", breaks=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1234.5, "1,234"), (12.34, "12.3"), (-0.5, "\u22120.50"), (0.0012, "0.001")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_percentages_keep_small_rates_apart():
    assert [percent(x) for x in (0.5, 0.031, 0.0031, 0.00031)] == ["50%", "3.1%", "0.31%", "0.031%"]
    assert number(float("nan")) == percent(float("nan")) == "\u2013"


def test_a_heat_map_tells_each_figure_in_words_too():
    text = re.sub("<[^>]+>", " ", heat("rows"))
    assert "40%" in text and "30%\u201350%" in text and "n = 40" in text
    assert "n = 0" in text and "\u2013" in text
    assert 'title="40% (30% to 50%, n = 40); rows"' in heat("rows")
    assert heat("rows").count("<td") == 6


def test_a_transcript_says_which_stages_were_passed_and_marks_what_was_done():
    markup = transcript("said")
    text = re.sub("<[^>]+>", "", markup)
    assert "said: yes" in text and "harmful: no" in text and "An empty answer." in text
    assert markup.count('data-kind="said"') == 1


def test_a_share_of_nothing_is_shown_short():
    assert percent(0.0) == "0%"
