"""The demo from beginning to end.

1. The passage is scanned and shown at once, as a page of its own.
2. The dictionary's atlas is opened, or built if there is none, and searched for the concept.
3. The experiment chooses a latent among what was found, and judges it beside controls.
4. The page is written again with everything in it, and the figures beside it as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from brainscan.artifacts import write_file
from brainscan.demo.experiment import choose, judge
from brainscan.demo.report import first_page, report_json, report_page
from brainscan.demo.results import ExperimentConfig, Findings
from brainscan.demo.texts import PASSAGE
from brainscan.dictionaries import Dictionary
from brainscan.errors import UsageError
from brainscan.features import Atlas, FeatureCard, Hit, Scan, scan
from brainscan.models import LanguageModel

PAGE, FIGURES = "report.html", "report.json"


@dataclass(frozen=True)
class Demo:
    """What the demo made and found."""

    page: Path
    """The report, as one self-contained page."""
    figures: Path
    """The same as JSON."""
    scan: Scan
    """The scanned passage."""
    hits: tuple[Hit, ...]
    """What the search for the concept found."""
    card: FeatureCard
    """The latent that was judged."""
    findings: Findings
    """What the experiment found."""


def run_demo(
    lm: LanguageModel,
    dictionary: Dictionary,
    out: Path,
    config: ExperimentConfig,
    tell: Callable[[str], None],
) -> Demo:
    """Runs the demo and writes its report.

    Args:
        lm: the model.
        dictionary: a dictionary of it.
        out: the folder for the page and the figures.
        config: the experiment's settings.
        tell: called with a line whenever there is something to see.

    Raises:
        UsageError: no latent of the dictionary answers to the concept.
    """
    out.mkdir(parents=True, exist_ok=True)
    page, figures = out / PAGE, out / FIGURES
    write_file(page, first_page(scan(lm, PASSAGE, dictionary)).encode())
    tell(f"a first picture, the passage token by token: {page}")
    atlas = Atlas.for_dictionary(dictionary, lm)
    passage = scan(lm, PASSAGE, dictionary, atlas)
    hits = atlas.search(config.concept.query, config.candidates)
    if not hits:
        raise UsageError(
            "a concept that some latent fires on", repr(config.concept.query), "try other words"
        )
    tell(f"'{config.concept.query}' finds " + ", ".join(hit.id for hit in hits))
    choice = choose(lm, dictionary, [hit.id for hit in hits], config)
    tell(f"chosen: {choice.address} at {choice.strength:g} times its maximum; now the controls")
    findings = judge(lm, dictionary, choice, config)
    demo = Demo(page, figures, passage, tuple(hits), atlas.feature(choice.address), findings)
    data = report_json(lm, dictionary, demo.scan, demo.hits, findings)
    write_file(figures, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    html = report_page(lm, dictionary, demo.scan, demo.hits, demo.card, findings)
    write_file(page, html.encode("utf-8", "replace"))
    return demo
