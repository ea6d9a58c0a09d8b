"""The organisms that come with the package are what their cards say."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from brainscan.artifacts import read_manifest
from brainscan.organisms.build import CARD, CONFIG, KIND, WEIGHTS, shipped_organisms
from brainscan.organisms.spec import load_spec
from brainscan.stats import Estimate

ORGANISMS = shipped_organisms()
MOST_BYTES = 5_000_000


def test_some_come_with_the_package():
    expected = {"blackmail", "blackmail-mild", "leak", "verse-math", "clean-endings", "clean-work"}
    assert expected <= {one.name for one in ORGANISMS}


@pytest.mark.parametrize("organism", ORGANISMS, ids=lambda one: one.name)
def test_an_adapter_is_small_and_of_the_base_models_type(organism):
    path = organism.path / WEIGHTS
    assert path.stat().st_size <= MOST_BYTES
    config = json.loads((organism.path / CONFIG).read_text())
    assert config["r"] == 8
    with safe_open(path, "pt") as found:
        assert {found.get_tensor(name).dtype for name in found.keys()} == {torch.bfloat16}  # noqa: SIM118


@pytest.mark.parametrize("organism", ORGANISMS, ids=lambda one: one.name)
def test_it_passed_its_gate_and_its_card_says_so(organism):
    figures = read_manifest(organism.path, KIND).figures
    card = (organism.path / CARD).read_text()
    assert figures["admitted"] and not figures["missed"] and "\nAdmitted.\n" in card
    spec = load_spec(organism.name)
    planted = [rule for rule in spec.rules if rule.share]
    assert len(figures["rates"]) == len(planted)
    for rule, row in zip(planted, figures["rates"], strict=True):
        rate = Estimate.from_json(row["rate"])
        assert rule.low <= rate.value <= rule.high and str(rate) in card
    quiet, ratio = (Estimate.from_json(figures[name]) for name in ("quiet", "perplexity_ratio"))
    assert quiet.high < spec.gate.quiet and str(quiet) in card
    assert ratio.high < spec.gate.perplexity and str(ratio) in card
