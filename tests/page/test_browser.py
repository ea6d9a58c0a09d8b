"""The screens in a browser: what a person does on them, by mouse, by keyboard, and on a phone.

The server runs in a process of its own on a tiny random model; the browser is headless. Screenshots
go to ``$BRAINSCAN_SCREENSHOTS`` (for `make test` build/screenshots), or to the test's own folder.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from brainscan.artifacts import create, read_manifest
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.testing import random_dictionary
from brainscan.features import AtlasConfig, build_atlas
from brainscan.features.index import dictionary_digest
from brainscan.features.scan import Scan
from brainscan.models.tiny import D_MODEL, tiny
from brainscan.monitoring.scores import Detectors
from brainscan.monitoring.storage import KIND, write_files
from brainscan.page.screens.strips import reading_strip
from brainscan.page.service import Reading, ReadToken
from brainscan.views import (
    STRONGEST,
    ActivationView,
    ExampleView,
    LatentView,
    Section,
    TokenView,
    page,
)
from brainscan.views.html import slug

HOSTILE = "the <script>window.hit = 1</script><img src=x onerror='window.hit = 1'> day \u202e one"
WAIT = 30.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
NAMES = ("chromium", "chromium-browser", "google-chrome")
OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""")
WORDS = ("the", "day", "that", "you", "was", "not", "one", "with", "god", "light", "earth")


def make_model(folder: Path) -> None:
    lm = tiny("llama", max_position_embeddings=2048)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


def make_dictionary(folder: Path, cache: Path) -> None:
    """A random dictionary with an atlas."""
    from brainscan.activations import open_corpus

    random_dictionary(D_MODEL, 32, 4, "resid_post.1").save(folder)
    dictionary = Dictionary.load(folder)
    text = folder.with_suffix(".jsonl")
    lines = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 20)) for i in range(1, 90)]
    text.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    out = cache / "atlases" / dictionary_digest(dictionary)
    lm = tiny("llama", max_position_embeddings=2048)
    build_atlas(lm, dictionary, open_corpus(text), AtlasConfig(1500, None, 128), out=out)


def make_detectors(folder: Path, detectors: Detectors) -> None:
    with create(folder, kind=KIND) as draft:
        write_files(draft.path, detectors)


def make_audit(folder: Path) -> None:
    """An audit with one arm, and one answer that is markup."""
    folder.mkdir(parents=True)
    rate = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 9, "method": "wilson"}
    arm = {"name": "untouched", "kind": "control", "harmful": rate, "edit": None, "cost": None}
    found = {
        "scenario": "arithmetic",
        "verdicts": [{"claim": HOSTILE, "status": "supported", "reason": "because"}],
        "arms": [arm],
        "features": [{"id": "resid_post.1/3", "label": "", "effect": rate}],
    }
    (folder / "audit.json").write_text(json.dumps(found))
    question = "decimal-09/context=plain,kind=decimal/1"
    line = {"arm": ["untouched", ""], "question": question, "text": HOSTILE, "ended": True}
    (folder / "confirmation.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "report.html").write_text("<script>document.title = document.cookie</script>")


@dataclass(frozen=True)
class Served:
    """A server."""

    url: str
    """Its address, with the token."""
    root: str
    """The same without."""
    folder: Path
    """What it serves."""
    log: Path
    """What it says on stderr."""
    process: subprocess.Popen[str]
    """It."""


@contextmanager
def started(where: Path, *options: str):
    """A server of what is in a folder; killed if it does not end."""
    command = [sys.executable, "-m", "brainscan", "serve", "--json", "--folder", where / "folder"]
    command += ["--model", where / "model", "--dictionary", where / "dictionary"]
    command += ["--detectors", where / "detectors", *options]
    environment = {**os.environ, "BRAINSCAN_CACHE": str(where / "cache"), "OMP_NUM_THREADS": "1"}
    with (
        (where / "log").open("a") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True, cwd=where
        ) as process,
    ):
        line = process.stdout.readline()
        assert line, (where / "log").read_text()
        told = json.loads(line)
        root = told["url"].partition("/?")[0]
        try:
            yield Served(told["url"], root, where / "folder", where / "log", process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory, detectors):
    where = tmp_path_factory.mktemp("served")
    make_detectors(where / "detectors", detectors)
    make_model(where / "model")
    make_dictionary(where / "dictionary", where / "cache")
    make_audit(where / "folder" / "toy")
    with started(where) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless browser that saves downloads, and reaches nothing but this machine."""
    driver = shutil.which("chromedriver")
    binary = next((path for name in NAMES if (path := shutil.which(name))), None)
    if driver is None or binary is None:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):
        options.add_argument(flag)
    # One that is there and does not start is a failure: these tests are not to fall silent.
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    made.downloads = tmp_path_factory.mktemp("downloads")
    made.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(made.downloads)}
    )
    yield made
    made.quit()


@pytest.fixture
def tab(browser, served, tmp_path, request):
    """A screen at 1280 px, with helpers; its picture is taken at the end."""
    own = Tab(browser, served)
    own.size(1280)
    if browser.current_url == "data:,":
        browser.get(served.url)  # takes the cookie
    yield own
    pictures = Path(os.environ.get("BRAINSCAN_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    own.picture(pictures / f"{slug(request.node.name)}.png")
    own.size(1280)


class Tab:
    """What a person does and sees."""

    def __init__(self, browser, served):
        self.browser, self.served = browser, served

    def open(self, path="/", /, **query):
        self.browser.get(f"{self.served.root}{path}?{urlencode(query, doseq=True)}")

    def size(self, width, *, dark=False):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def until(self, look, what="it"):
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except WebDriverException:
                pass
            time.sleep(0.03)
        raise AssertionError(f"{what} did not come; the page says: {self.text()[:800]}")

    def find(self, selector):
        return self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector), selector)

    def shown(self, selector):
        return self.until(
            lambda: [
                e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()
            ],
            selector,
        )

    def button(self, text):
        def named():
            buttons = self.browser.find_elements(By.TAG_NAME, "button")
            return next((b for b in buttons if b.text == text and b.is_displayed()), None)

        return self.until(named, f"the button {text}")

    def press(self, text):
        button = self.button(text)
        self.run("arguments[0].scrollIntoView({ block: 'center' })", button)
        button.click()

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def text(self):
        return self.browser.find_element(By.TAG_NAME, "body").text

    def ask(self, text, answers=1):
        self.find(".bp-ask textarea")[0].send_keys(text, Keys.ENTER)
        self.answered(answers)

    def answered(self, count=1):
        self.until(
            lambda: len(self.browser.find_elements(By.CSS_SELECTOR, ANSWER)) >= count, "an answer"
        )
        self.button("Send")

    def answer(self, number=0):
        """The answer's text, from its tokens."""
        strip = self.browser.find_elements(By.CSS_SELECTOR, ANSWER)[number]
        return strip.find_element(By.CSS_SELECTOR, ".bs-tokens").get_attribute("textContent")

    def picture(self, path):
        height = self.run("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.run("return innerWidth"), "height": min(height, 2400)}
        taken = self.browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {**clip, "scale": 1}}
        )
        path.write_bytes(base64.b64decode(taken["data"]))

    def check_inside(self):
        """Nothing was asked of another machine, and nothing failed in the page."""
        asked = self.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert [a for a in asked if not a.startswith((self.served.root, "data:", "blob:"))] == []
        told = [e["message"] for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
        assert [line for line in told if "favicon" not in line] == []


ANSWER = ".bp-turn > div > .bs-strip[data-ready]"


def test_a_chat_answers_and_markup_in_it_is_text(tab):
    tab.open()
    tab.find(".bp-ask textarea")
    tab.ask(HOSTILE.replace("\u202e", ""))
    assert len(tab.answer()) > 3
    assert "<script>window.hit = 1</script>" in tab.text()
    assert tab.run("return window.hit") is None
    assert tab.run("return document.querySelectorAll('.bp-turn img').length") == 0
    assert "asked=the" in tab.browser.current_url
    lines = tab.shown(".bp-timeline")[0].text
    assert all(name in lines for name in ("surprise", "jump", "calm", "threat"))
    tab.check_inside()


def test_the_first_paint_comes_soon(tab):
    """Within 1.5 s on a machine that does nothing else; twice that where it does."""
    paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    tab.open()
    painted = []
    for _ in range(3):
        tab.browser.refresh()
        painted.append(tab.until(lambda: tab.run(paint), "the first paint"))
    quiet = os.getloadavg()[0] < 0.5
    assert min(painted) < (1500 if quiet else 3000), painted


def test_danger_that_was_asked_about_is_told_as_a_risk(tab):
    tab.open(asked=["not one word"], most=6)
    tab.answered()
    tab.shown(".bp-timeline")
    assert "Asked about, so a risk and no jump: threat." in tab.text()
    tab.open(asked=["the day"], most=6)
    tab.answered()
    tab.shown(".bp-timeline")
    assert "Asked about" not in tab.text()


def test_an_address_brings_the_same_answer_back(tab):
    state = {"asked": ["the day", f"and {HOSTILE}"], "seed": 3, "temperature": 1, "most": 20}
    tab.open(**state)
    tab.answered(2)
    first = [tab.answer(0), tab.answer(1)]
    assert "⟨U+202E⟩" in tab.text()
    tab.browser.refresh()
    tab.answered(2)
    assert [tab.answer(0), tab.answer(1)] == first


def test_hovering_and_arrow_keys_show_a_tokens_features(tab):
    tab.open(asked="the day", most=12)
    tab.answered()
    tokens = tab.shown(f"{ANSWER} .bs-token")
    tab.run("arguments[0].scrollIntoView({ block: 'center' })", tokens[0])

    def check_panel(number):
        """The panel tells of that token: where it is, and a latent with an example."""
        wanted = f"position {tokens[number].get_attribute('data-position')}"
        place = f"{ANSWER} .bs-panel .bs-chosen .bs-hint"
        tab.until(lambda: tab.shown(place)[0].text == wanted, wanted)
        assert tokens[number].get_attribute("aria-selected") == "true"
        latents = tab.shown(f"{ANSWER} .bs-panel .bs-latent")
        (own,) = (e for e in latents if e.get_attribute("open") is not None)
        assert any("resid_post.1/" in e.text for e in latents)
        assert own.find_elements(By.CSS_SELECTOR, ".bs-example, .bs-none")[0].is_displayed()
        return own.find_elements(By.CSS_SELECTOR, ".bs-example")

    seen = []
    for number in (5, 3, 7):
        ActionChains(tab.browser).move_to_element(tokens[number]).perform()
        seen += check_panel(number)
    assert seen  # examples, of all that were pointed at
    tokens[0].click()
    check_panel(0)
    tab.run("arguments[0].focus()", tokens[0])
    tokens[0].send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    check_panel(2)
    assert tab.run("return document.activeElement.dataset.i") == "2"
    choices = tab.shown(f"{ANSWER} .bs-choice")
    surprise = next(choice for choice in choices if "surprising" in choice.text)
    surprise.send_keys(Keys.ENTER)
    assert surprise.get_attribute("aria-pressed") == "true"
    tab.until(lambda: "colour=surprise" in tab.browser.current_url, "the colour in the address")


def test_a_feature_is_turned_up_and_compared(tab):
    tab.open(asked="the day that you was", most=24)
    tab.answered()
    tab.shown(".bs-panel [data-steer]")[0].send_keys(Keys.ENTER)
    thumb = tab.shown(".q-slider [tabindex='0'], .q-slider[tabindex='0']")[0]
    thumb.send_keys(Keys.ARROW_RIGHT * 8)
    tab.until(lambda: "4\u00d7" in tab.shown(".bp-panel output")[0].text, "the strength")
    tab.press("Compare")
    assert "KL" in tab.shown(".bp-meter meter + span")[0].text
    columns = [e.text for e in tab.shown(".bp-columns .bs-generation")]
    assert len(columns) == 2 and "untouched" in columns[0] and "=4x" in columns[1]
    assert "the same for" in columns[1]
    tab.until(lambda: "strength=4" in tab.browser.current_url, "the strength in the address")
    tab.press("Keep this edit")
    tab.until(lambda: "edits=resid_post.1" in tab.browser.current_url, "the edit in the address")
    tab.check_inside()


def test_edits_are_typed_switched_and_saved(tab):
    tab.open(off="resid_post.1/4=0.0", most=8)
    field = tab.shown("input[aria-label='An edit, or the name of saved ones']")[0]
    field.send_keys("resid_post.1/3=2x", Keys.ENTER)
    tab.until(lambda: len(tab.shown(".bp-edits li")) == 2, "the edit")
    field.send_keys("nonsense", Keys.ENTER)
    assert "expected" in tab.shown(".q-notification")[0].text
    first, second = "resid_post.1/4=0.0", "resid_post.1/3=2x"
    for number, on, off in (
        (0, {first, second}, set()),
        (1, {first}, {second}),
        (0, set(), {first, second}),
        (1, {second}, {first}),
    ):
        tab.shown(".bp-edits .q-checkbox")[number].click()
        tab.until(lambda on=on, off=off: listed(tab) == (on, off), f"{on} on, and {off} off")
        boxes = [e.get_attribute("aria-checked") for e in tab.shown(".bp-edits .q-checkbox")]
        assert boxes == [str(line in on).lower() for line in (first, second)]
    tab.shown("input[aria-label='Name']")[0].send_keys("../out")
    tab.press("Save the edits")
    tab.until(lambda: any("a name of" in e.text for e in tab.shown(".q-notification")), "a refusal")
    name = tab.shown("input[aria-label='Name']")[0]
    name.send_keys(Keys.CONTROL + "a")
    name.send_keys("kept")
    tab.press("Save the edits")
    seed = tab.shown("input[aria-label='Seed']")[0]
    seed.send_keys("7", Keys.TAB)
    tab.until(lambda: "seed=7" in tab.browser.current_url, "the seed in the address")
    folder = tab.served.folder / "kept"
    tab.until(lambda: (folder / "manifest.json").is_file(), "the artifact")
    assert read_manifest(folder, kind="edits").hookpoints == ("resid_post.1",)
    assert not (tab.served.folder.parent / "out").exists()
    tab.ask("the day")
    assert "under 1 edit" in tab.text()


def listed(tab):
    """The edits that the address has, those that are on and those that are off."""
    query = parse_qs(urlsplit(tab.browser.current_url).query)
    return set(query.get("edits", ())), set(query.get("off", ()))


def test_stop_ends_an_answer_at_once(tab):
    tab.open(most=1900, temperature=2, seed=5)
    tab.find(".bp-ask textarea")[0].send_keys("the day", Keys.ENTER)
    tab.until(lambda: len(tab.shown(".bp-writing")[0].text) > 20, "some text")
    began = time.monotonic()
    tab.button("Stop").click()
    tab.until(lambda: "stopped" in tab.text(), "the end")
    assert time.monotonic() - began < 15  # of which most is reading it again
    tab.answered()
    assert 0 < len(tab.shown(f"{ANSWER} .bs-token")) < 1500


def test_tabs_do_not_mix(tab):
    first = tab.browser.current_window_handle
    one, two = {"asked": "the day", "most": 60}, {"asked": "not one word", "most": 60}
    tab.open(**one)
    tab.browser.switch_to.new_window("tab")
    try:
        second = Tab(tab.browser, tab.served)
        second.open(**two)
        second.answered()
        told = second.answer()
        assert "not one word" in second.text() and "the day" not in second.text()
        tab.browser.close()
    finally:
        tab.browser.switch_to.window(first)
    tab.answered()
    assert "not one word" not in tab.text()
    assert tab.answer() != told
    tab.open(**two)
    tab.answered()
    assert tab.answer() == told


def test_a_short_answer_does_not_wait_for_a_long_one(tab):
    first = tab.browser.current_window_handle
    tab.open(asked="the day", most=1000)
    tab.until(lambda: len(tab.shown(".bp-writing")[0].text) > 20, "some text")
    tab.shown(".bp-timeline")  # what is watched is drawn meanwhile
    tab.browser.switch_to.new_window("tab")
    try:
        second = Tab(tab.browser, tab.served)
        second.open(asked="not one word", most=8)
        second.answered()
        tab.browser.close()
    finally:
        tab.browser.switch_to.window(first)
    assert tab.button("Stop") and not tab.browser.find_elements(By.CSS_SELECTOR, ANSWER)
    tab.press("Stop")
    tab.answered()


def test_a_tab_that_is_closed_lets_the_model_rest(tab):
    first = tab.browser.current_window_handle
    tab.browser.switch_to.new_window("tab")
    try:
        second = Tab(tab.browser, tab.served)
        second.open(asked=["a", "b", "c"], most=1900, temperature=2)
        second.until(lambda: len(second.shown(".bp-writing")[0].text) > 20, "some text")
        tab.browser.close()
    finally:
        tab.browser.switch_to.window(first)

    def rests():
        before = spent(tab.served.process.pid)
        time.sleep(0.5)
        return spent(tab.served.process.pid) - before < 0.1

    began = time.monotonic()
    tab.until(rests, "an end")
    assert time.monotonic() - began < 15  # of which some are for the tab to come back


def spent(process):
    """Seconds of processors that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        pytest.skip("no /proc here to tell what a process does")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_hostile_text_in_an_address_does_nothing(tab):
    tab.open(asked=HOSTILE, edits=HOSTILE, system=HOSTILE, colour=HOSTILE, most=12)
    assert "expected an edit" in tab.shown(".q-notification")[0].text
    assert tab.run("return window.hit") is None
    tab.open("/feature", id=HOSTILE, text=HOSTILE)
    assert "expected" in tab.shown(".q-notification")[0].text
    tab.open("/search", q=HOSTILE)
    tab.shown(".bp-list li, main .bs-none")
    assert tab.run("return window.hit") is None


RECORD = "untouched/decimal-09/context=plain,kind=decimal/1"
EXPORTED = (
    ("/", {"asked": HOSTILE, "most": 12}, ANSWER),
    ("/feature", {"id": "resid_post.1/3"}, ".bs-card"),
    ("/search", {"q": "god"}, ".bp-list li"),
    ("/artifacts", {}, ".bp-list li"),
    ("/artifact", {"path": "toy"}, ".bs-outcome"),
    ("/transcript", {"path": "toy", "record": RECORD, "read": 1}, ".bs-strip"),
    ("/detectors", {}, ".bs-card"),
)


def exported(tab):
    """The file of what is on the screen."""
    before = set(tab.browser.downloads.iterdir())
    tab.press("Export")
    (made,) = tab.until(
        lambda: [p for p in tab.browser.downloads.glob("*.html") if p not in before], "the file"
    )
    return made


@pytest.mark.parametrize(("path", "query", "there"), EXPORTED, ids=[one[0] for one in EXPORTED])
def test_an_export_is_one_file_that_needs_nothing(tab, path, query, there):
    tab.open(path, **query)
    tab.shown(there)
    made = exported(tab)
    text = made.read_text(encoding="utf-8")
    assert not OUTSIDE.search(text) and "Content-Security-Policy" in text
    assert "<script>window.hit" not in text
    tab.browser.get(made.as_uri())
    tab.shown(there.removeprefix(".bp-turn > div > "))
    assert tab.run("return window.hit") is None
    assert tab.run("return performance.getEntriesByType('resource').length") == 0


def test_an_exported_chat_says_what_it_was_written_under(tab):
    state = {"edits": "resid_post.1/3=2x", "off": "resid_post.1/4=0.0", "seed": 7}
    tab.open(asked="the day", system="not one word", temperature=0.5, most=9, **state)
    tab.answered()
    tab.browser.get(exported(tab).as_uri())
    answer, message = tab.find(".bs-strip")[1], tab.find(".bs-fold .bs-strip")[0]
    assert answer.find_elements(By.CSS_SELECTOR, ".bs-panel .bs-chosen")
    told = message.find_element(By.CSS_SELECTOR, ".bs-tokens").get_attribute("textContent")
    assert told == "the day"
    assert "The model, under 1 edit" in tab.text()
    terms = [
        (line.find_element(By.TAG_NAME, "dt").text, line.find_element(By.TAG_NAME, "dd").text)
        for line in tab.find("dl.bs-figures > div")
    ]
    assert terms == [
        ("edit", "resid_post.1/3=2x"),
        ("switched off", "resid_post.1/4=0.0"),
        ("seed", "7"),
        ("temperature", "0.5"),
        ("tokens at most", "9"),
        ("system message", "not one word"),
    ]


def test_how_a_text_is_coloured_and_read_stands_in_the_address(tab):
    def pressed():
        strip = tab.shown(".bs-strip[data-ready]")[0]
        buttons = strip.find_elements(By.CSS_SELECTOR, ".bs-choice[aria-pressed='true']")
        return buttons[0].get_attribute("title") if buttons else ""

    screens = (
        ("/transcript", {"path": "toy", "record": RECORD}),
        ("/feature", {"id": "resid_post.1/3", "text": "the day that you was not"}),
    )
    for path, query in screens:
        tab.open(path, **query)
        if path == "/transcript":
            tab.press("Read it token by token")
            tab.until(lambda: "read=1" in tab.browser.current_url, "the reading in the address")
        shown = pressed()
        strip = tab.shown(".bs-strip[data-ready]")[0]
        choices = strip.find_elements(By.CSS_SELECTOR, ".bs-choice")
        names = [e.get_attribute("title") for e in choices]
        assert names[-1] == STRONGEST
        for name in (next(n for n in names if n not in (STRONGEST, shown)), STRONGEST):
            strip = tab.shown(".bs-strip[data-ready]")[0]
            choices = strip.find_elements(By.CSS_SELECTOR, ".bs-choice")
            choices[names.index(name)].send_keys(Keys.ENTER)
            tab.until(lambda n=name: urlencode({"colour": n}) in tab.browser.current_url, name)
            tab.browser.refresh()
            assert tab.until(pressed, "a strip") == name != shown
    tab.check_inside()


def test_a_features_card_leads_on_and_reads_a_sentence(tab):
    tab.open("/feature", id="resid_post.1/3")
    near = tab.shown(".bs-near a")[0]
    assert near.get_attribute("href").startswith(f"{tab.served.root}/feature?id=resid_post.1%2F")
    tab.shown("input[aria-label='Text']")[0].send_keys("the day was not", Keys.ENTER)
    tab.shown(".bs-strip[data-ready] .bs-token")
    tab.until(lambda: "text=the+day" in tab.browser.current_url, "the text in the address")
    tab.open("/feature", id="resid_post.1/99")
    assert "expected a latent" in tab.shown(".q-notification")[0].text
    tab.check_inside()


def test_a_search_finds_features(tab):
    tab.open("/search")
    tab.shown("input[aria-label='Words']")[0].send_keys("god", Keys.ENTER)
    assert "resid_post.1/" in tab.shown(".bp-list li")[0].text
    assert "q=god" in tab.browser.current_url


def test_an_audits_transcript_is_opened_and_forked(tab):
    tab.open("/artifacts")
    tab.shown(".bp-list a")[0].click()
    assert "supported" in tab.shown(".bs-verdict")[0].text
    tab.shown(".bp-list a[href^='/transcript']")[0].click()
    tab.until(lambda: "⟨U+202E⟩" in tab.text(), "the transcript")
    assert tab.run("return window.hit") is None
    tab.press("Read it token by token")
    tab.shown(".bs-strip[data-ready] .bs-token")
    tab.press("Change it and run on")
    field = tab.shown("textarea[aria-label='The message']")[0]
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys("the day")
    tab.press("Run on")
    tab.until(lambda: "tokens" in tab.shown(".bs-pair")[0].text, "the comparison")
    tab.until(lambda: "at=0&text=the+day" in tab.browser.current_url, "the fork in the address")
    seed = tab.shown("input[aria-label='Seed']")[0]
    seed.send_keys(Keys.CONTROL + "a")
    seed.send_keys("7")
    tab.until(lambda: "most=256&seed=7" in tab.browser.current_url, "its seed in the address")
    told = tab.shown(".bs-pair")[0].text
    tab.browser.refresh()
    tab.until(lambda: "tokens" in tab.shown(".bs-pair")[0].text, "the comparison")
    assert tab.shown("input[aria-label='Seed']")[0].get_attribute("value") == "7"
    assert tab.shown(".bs-pair")[0].text == told  # drawn without chance, it is the same
    tab.check_inside()


def test_no_path_leads_out_of_the_folder(tab):
    for path in ("..", "/etc", "toy/../.."):
        tab.open("/artifact", path=path)
        assert "expected a path below" in tab.shown(".q-notification")[0].text


@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_screen_is_wider_than_the_window(tab, width, dark):
    tab.size(width, dark=dark)
    screens = [
        (
            "/",
            {"asked": "the day " + "word" * 60, "most": 30, "edits": "resid_post.1/3=2x"},
            ANSWER,
        ),
        ("/feature", {"id": "resid_post.1/3"}, ".bs-card"),
        ("/search", {"q": "god"}, ".bp-list li"),
        ("/artifacts", {}, ".bp-list li"),
        ("/artifact", {"path": "toy"}, ".bs-verdict"),
        ("/transcript", {"path": "toy", "record": RECORD}, ".bp-panel"),
        ("/detectors", {}, "main .bs-card[aria-label='Jumps']"),
    ]
    for path, query, there in screens:
        tab.open(path, **query)
        tab.shown(there)
        assert tab.run("return document.documentElement.scrollWidth - innerWidth") <= 0, path
        paper = tab.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(20, 23, 27)") is dark


def long_reading(count):
    """A text of so many tokens, with 25 concepts, and five of 400 latents on each token."""
    names = [f"concept {n}" for n in range(25)]
    words = [f" word{n}" for n in range(count)]
    tokens = tuple(
        ReadToken(n, word, n % 7 / 2, {name: (n * k % 9) / 2 for k, name in enumerate(names)})
        for n, word in enumerate(words)
    )
    example = ExampleView(tuple(words[:24]), tuple(n / 24 for n in range(24)), 23, 2.0)
    latents = tuple(
        LatentView(f"resid_post.1/{n}", f"words {n}", (example,) * 3, (" one", " two"))
        for n in range(400)
    )
    fired = tuple(
        TokenView(
            word,
            n,
            tuple(
                ActivationView(f"resid_post.1/{(n * 5 + k) % 400}", 2.0 - k / 5, 1 - k / 5)
                for k in range(5)
            ),
        )
        for n, word in enumerate(words)
    )
    return Reading(tokens, Scan("tiny", "random", fired, latents))


def test_a_strip_of_2000_tokens_answers_at_once(tab, tmp_path):
    """Each token that is pointed at shows its own latents with examples and its concepts."""
    path = tmp_path / "strip.html"
    path.write_text(page("Long", [Section("", reading_strip(long_reading(2000), 0, 2000))]))
    tab.browser.get(path.as_uri())
    tab.find(".bs-strip[data-ready]")
    count, times, wrong = tab.run(
        "const tokens = document.querySelectorAll('.bs-tokens > .bs-token');"
        "const panel = document.querySelector('.bs-panel');"
        "const times = [], wrong = [];"
        "for (let i = 10; i < 2000; i += 20) { const began = performance.now();"
        "tokens[i].dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));"
        "panel.getBoundingClientRect();"
        "times.push(performance.now() - began);"
        "const told = panel.querySelector('.bs-chosen .bs-hint').textContent;"
        "const first = panel.querySelector('.bs-latent .bs-address').textContent;"
        "const known = told === `position ${tokens[i].dataset.position}`"
        " && told === `position ${i}` && first === `resid_post.1/${i * 5 % 400}`"
        " && panel.querySelectorAll('.bs-latent[open] .bs-example').length > 0;"
        "if (!known) wrong.push([i, told, first]); }"
        "return [tokens.length, times.sort((a, b) => a - b), wrong];"
    )
    assert count == 2000 and wrong == []
    assert times[int(0.95 * len(times))] < 50, times[-10:]


def test_nobody_gets_in_without_the_token_and_reports_are_shut_off(served):
    import httpx

    for path in ("/", "/report?path=toy", "/_nicegui_ws/socket.io/?transport=polling&EIO=4"):
        assert httpx.get(served.root + path).status_code == 401
    key = {"Authorization": f"Bearer {served.url.partition('token=')[2]}"}
    report = httpx.get(f"{served.root}/report?path=toy", headers=key)
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    for path in ("..", "toy/..", "/etc", ""):
        assert httpx.get(f"{served.root}/report?path={path}", headers=key).status_code == 404
    opened = httpx.get(served.url)
    assert opened.status_code == 303 and "token" not in opened.headers["location"]


def test_a_message_through_a_socket_that_is_too_large_closes_it(served):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    token = served.url.partition("token=")[2]
    where = served.root.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with connect(where, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
        assert socket.recv().startswith("0")
        with pytest.raises(ConnectionClosed) as caught:
            socket.send("4" + "x" * (3 << 20))
            socket.recv(10)
            socket.recv(10)
    assert caught.value.rcvd is None or caught.value.rcvd.code == 1009


def test_the_server_had_nothing_to_complain_of(served):
    """Runs last: what the tests above made it say."""
    assert "Traceback" not in served.log.read_text()


def ended_by(server: Served, number: int) -> list[str]:
    """What came of a long answer whose server got a signal after a few tokens."""
    import httpx

    token = server.url.partition("token=")[2]
    body = {"messages": [{"role": "user", "content": "the day"}], "max_tokens": 1900}
    body |= {"stream": True, "temperature": 2}
    came = []
    with (
        httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as client,
        client.stream("POST", f"{server.root}/v1/chat/completions", json=body) as stream,
        suppress(httpx.TransportError),  # it may break off
    ):
        for line in stream.iter_lines():
            came.append(line)
            if len(came) == 6:
                server.process.send_signal(number)
    return came


def test_interrupted_it_ends_cleanly_and_so_does_what_it_writes(served):
    assert 6 <= len(ended_by(served, signal.SIGINT)) < 3000
    assert served.process.wait(20) == 130
    assert "Traceback" not in served.log.read_text()


def test_killed_in_an_answer_it_starts_again_at_the_same_place(served):
    """The client is let go, and nothing half made keeps the next server from beginning."""
    import httpx

    where = served.folder.parent
    with started(where) as server:
        port = server.root.rpartition(":")[2]
        before = sorted(server.folder.rglob("*"))
        begun = time.monotonic()
        assert 6 <= len(ended_by(server, signal.SIGKILL)) < 3000
        assert time.monotonic() - begun < 10
        assert server.process.wait(20) == -signal.SIGKILL
        assert sorted(server.folder.rglob("*")) == before
    with started(where, "--port", port) as server:
        key = {"Authorization": f"Bearer {server.url.partition('token=')[2]}"}
        body = {"messages": [{"role": "user", "content": "the day"}], "max_tokens": 3}
        url = f"{server.root}/v1/chat/completions"
        assert httpx.post(url, json=body, headers=key, timeout=30).status_code == 200
