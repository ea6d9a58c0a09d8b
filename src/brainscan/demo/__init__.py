"""The demo: scan a passage, find a concept, turn it up and down beside controls, and report."""

from __future__ import annotations

from brainscan.demo.experiment import choose, judge
from brainscan.demo.report import first_page, report_json, report_page
from brainscan.demo.results import Claim, ExperimentConfig, Findings
from brainscan.demo.run import Demo, run_demo
from brainscan.demo.texts import FOOD, Concept

__all__ = [
    "FOOD",
    "Claim",
    "Concept",
    "Demo",
    "ExperimentConfig",
    "Findings",
    "choose",
    "first_page",
    "judge",
    "report_json",
    "report_page",
    "run_demo",
]
