"""Dialogues of a request and an answer, on which rules for jumps are made and judged.

Requests and answers are combined from the bank's texts and from benign dialogues of ours (and
people's own, of the corpus `chitchat-dataset`), within a split:

| family | request | answer | jump |
|---|---|---|---|
| ``benign`` | benign | benign | no |
| ``jump`` | benign | a danger | yes |
| ``spliced`` | benign | benign up to its half, then a danger | yes, from there |
| ``asked`` | a danger | the same danger | no: it was asked for |
| ``helped`` | a danger | benign | no |
| ``near request`` | looks like a danger, and is none | benign | no |
| ``near answer`` | benign | looks like a danger, and is none | no |
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from brainscan.activations.sources import read_chitchat
from brainscan.errors import CorpusError
from brainscan.monitoring.bank import Concept, Split, Text

DATA = Path(__file__).parent / "data"

FAMILIES = ("benign", "jump", "spliced", "asked", "helped", "near request", "near answer")
"""How request and answer belong together."""

JUMPS = ("jump", "spliced")
"""Families in which danger comes that nobody asked for."""

_PEOPLE = {"train": 300, "select": 600, "test": 300}
_LONG_ENOUGH = 12
"""Words of a benign answer that is put together with something else."""


class Dialogue(NamedTuple):
    """A request and its answer."""

    request: str
    answer: str
    family: str
    """One of `FAMILIES`, or how else it was made."""
    concept: str = ""
    """The danger in it."""
    begins: int = 0
    """The character of the answer where danger begins."""

    @property
    def text(self) -> str:
        """What it is made of; dialogues of one danger's text, or of one answer, go together."""
        return (
            self.request
            if self.family in ("helped", "near request")
            else self.answer[self.begins :]
        )

    @property
    def jumps(self) -> bool:
        """Whether danger comes that nobody asked for."""
        return self.family in JUMPS

    @property
    def messages(self) -> list[dict[str, str]]:
        """It as a conversation."""
        return [
            {"role": "user", "content": self.request},
            {"role": "assistant", "content": self.answer},
        ]


class _Benign(NamedTuple):
    """Dialogues without danger, and requests that are still to be answered."""

    dialogues: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]


@cache
def _benign() -> _Benign:
    import yaml

    found = yaml.safe_load((DATA / "benign.yaml").read_text(encoding="utf-8"))
    pairs = ((row["request"].strip(), row["answer"].strip()) for row in found["dialogues"])
    return _Benign(tuple(pairs), tuple(map(str.strip, found["prompts"])))


def benign_requests() -> list[str]:
    """Requests without danger, for a model to answer."""
    found = _benign()
    return [*found.prompts, *(request for request, _ in found.dialogues)]


def benign_dialogues(
    concepts: Sequence[Concept], split: Split, *, people: bool = True
) -> list[Dialogue]:
    """Dialogues without danger.

    Args:
        concepts: the bank; of those that are no danger, requests and answers are paired.
        split: which part of them.
        people: some of the conversations between people, too.
    """
    pairs = [pair for pair in _benign().dialogues if request_split(pair[0]) == split]
    for concept in concepts:
        if not concept.danger:
            asked, told = (_texts(concept.texts, split, kind) for kind in ("request", "reply"))
            pairs += list(zip(asked, told, strict=False))
    if people:
        pairs += islice(_people(split), _PEOPLE[split])
    return [Dialogue(request, answer, "benign") for request, answer in pairs]


def make_dialogues(concepts: Sequence[Concept], split: Split, seed: int = 0) -> list[Dialogue]:
    """All families of dialogues for a split.

    Args:
        concepts: the bank.
        split: which part of it.
        seed: of what is put together with what.

    Raises:
        CorpusError: there is no danger among the concepts.
    """
    dangers = [one for one in concepts if one.danger]
    if not dangers:
        raise CorpusError("at least one concept that is a danger", "none", "mark one")
    benign = benign_dialogues(concepts, split)
    plain = [one for one in benign if len(one.answer.split()) >= _LONG_ENOUGH]
    draw = random.Random(f"{seed} {split}")
    found = list(benign)
    for concept in dangers:
        texts = [text.text for text in concept.texts if text.split == split]
        near = [text.text for text in concept.near if text.split == split]
        others = draw.sample(texts, len(texts))
        for text, other in zip(texts, others, strict=True):
            one, two, three = (draw.choice(plain) for _ in range(3))
            half = _half(two.answer)
            found += [
                Dialogue(one.request, text, "jump", concept.name),
                Dialogue(two.request, f"{half} {text}", "spliced", concept.name, len(half) + 1),
                Dialogue(text, three.answer, "helped", concept.name),
            ]
            if other != text:
                found.append(Dialogue(text, other, "asked", concept.name))
        for text in near:
            one, two = (draw.choice(plain) for _ in range(2))
            found += [
                Dialogue(text, one.answer, "near request", concept.name),
                Dialogue(two.request, text, "near answer", concept.name),
            ]
    return found


def _half(answer: str) -> str:
    words = answer.split()
    return " ".join(words[: len(words) // 2])


def _texts(texts: Sequence[Text], split: Split, register: str) -> list[str]:
    return [one.text for one in texts if one.split == split and one.register == register]


def request_split(text: str) -> Split:
    """Which split a benign request and its answers are in.

    Args:
        text: the request.
    """
    return Text(text, "request").split


def _people(split: Split) -> Iterator[tuple[str, str]]:
    """What one person said, and what another answered; a conversation gives one pair."""
    seen: set[str] = set()
    for document in read_chitchat():
        group = document.group or document.id
        messages = document.messages or ()
        if group in seen or len(messages) < 2 or request_split(group) != split:
            continue
        seen.add(group)
        yield messages[0].content, messages[1].content
