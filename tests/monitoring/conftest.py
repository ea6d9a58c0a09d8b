"""A tiny model, two small concepts, and detectors made by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest

from brainscan.models.tiny import tiny
from brainscan.monitoring import Concept, Detector, Detectors, JumpRule, Text
from brainscan.monitoring.scores import ROLES

WORDS = {
    "light": ("day", "light", "god"),
    "earth": ("earth", "word", "one"),
}


@pytest.fixture(scope="session")
def lm():
    return tiny("llama")


@pytest.fixture(scope="session")
def concepts():
    """Two concepts, of which one is a danger; each has texts in every split."""
    draw = random.Random(0)
    found = []
    for name, words in WORDS.items():
        texts = [" ".join(draw.choices(words, k=6)) + f" {n}" for n in range(40)]
        near = [f"the {words[0]} {n}" for n in range(12)]
        found.append(
            Concept(
                name,
                name.capitalize(),
                name == "earth",
                "of a test",
                words,
                tuple(Text(text, "note") for text in texts),
                tuple(Text(text, "note") for text in near),
            )
        )
    return found


@pytest.fixture
def detectors(lm):
    """Detectors that read two hookpoints with random vectors; the second is a danger."""
    draw = np.random.default_rng(0)
    each = tuple(
        Detector(
            concept=name,
            title=name,
            danger=name == "earth",
            hookpoint=hookpoint,
            method="logistic",
            aggregate=aggregate,
            weights=tuple(draw.normal(size=lm.d_model).tolist()),
            bias=0.1,
            latents=(),
            neutral=dict.fromkeys(ROLES, (0.5, 2.0)),
            line=(1.5, -0.5),
            threshold=2.0,
        )
        for name, hookpoint, aggregate in (
            ("light", "resid_post.2", "token"),
            ("earth", "resid_post.1", "ema"),
            ("sea", "resid_post.2", "window"),
        )
    )
    rule = JumpRule(
        "cusum", 3.0, usual=(0.0,) * 3, spread=(1.0,) * 3, danger=(1,), kappa=0.1, clip=2.0
    )
    return Detectors(lm.ref, each, rule=rule)
