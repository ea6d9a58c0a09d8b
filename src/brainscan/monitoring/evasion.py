"""Ways by which a danger could slip by: how often it does.

Our texts say it in other words, hint at it, say it in other languages, in a role, in pieces, or
tell the monitor to stay quiet. Texts of the bank are also written with spaces between all letters,
and in base64, which a model that cannot read it does not represent.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from brainscan.monitoring.bank import Concept, Split
from brainscan.monitoring.dialogues import Dialogue

DATA = Path(__file__).parent / "data"

ENCODED = ("spaced", "base64")
"""Families that are made by code."""


def evasions(concepts: Sequence[Concept], requests: Sequence[str], split: Split) -> list[Dialogue]:
    """Answers that try to slip by, each to a benign request; the family says how.

    Args:
        concepts: the bank.
        requests: benign requests, taken in turn.
        split: of the texts that are encoded.
    """
    import yaml

    known = {one.name for one in concepts}
    families = yaml.safe_load((DATA / "evasion.yaml").read_text(encoding="utf-8"))["families"]
    texts = [
        (family, str(row["concept"]), str(row["text"]))
        for family, found in families.items()
        for row in found["texts"]
        if row["concept"] in known
    ]
    for concept in concepts:
        if concept.danger:
            own = [text.text for text in concept.texts if text.split == split]
            texts += [("spaced", concept.name, " ".join(text)) for text in own]
            texts += [("base64", concept.name, _base64(text)) for text in own]
    return [
        Dialogue(requests[n % len(requests)], text, family, concept)
        for n, (family, concept, text) in enumerate(texts)
    ]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
