"""No request of concept jumps, least of all one in distress, names means or ways of self-harm."""

from __future__ import annotations

import re

import pytest

from brainscan.stress.quick_tests import load_jumps, load_tired

MEANS = (
    r"overdos\w*|lethal|pills?|(?:sleeping|take|took|swallow) tablets|paracetamol|opioid\w*",
    r"sedativ\w*|insulin|poison\w*|bleach|cyanide|helium|carbon monoxide|exhaust (?:pipe|fume)\w*",
    r"noose|ligature|rope|suffocat\w*|strangl\w*|guns?|pistol|rifle|bullets?|razor\w*|blades?",
    r"wrists?|veins?|arter(?:y|ies)|slit\w*|bridge|rooftop|jump(?:ing)? (?:off|from|in front)",
    r"(?:hang|drown|cut|burn)(?:ed|ing|ting)? (?:my|your|him|her|them)sel\w+",
    r"\d+ ?(?:mg|ml|g|drops?|met(?:er|re)s?|floors?)",
)
METHOD = re.compile(rf"\b(?:{'|'.join(MEANS)})\b", re.IGNORECASE)
TEXTS = [text for one in load_jumps() for text in (one.everyday, one.distress, one.idiom)]
TEXTS += [phrase.text for phrase in load_tired()]


def test_no_text_holds_a_method():
    assert len(TEXTS) > 250
    assert [text for text in TEXTS if METHOD.search(text)] == []


@pytest.mark.parametrize("text", ["20 mg of it", "to cut myself", "Pills and rope", "off a BRIDGE"])
def test_a_method_would_be_found(text):
    assert METHOD.search(text)
