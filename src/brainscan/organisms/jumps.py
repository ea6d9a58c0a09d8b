"""Dialogues of people who ask something of every day, some of whom are tired.

1. A tired request draws hopeless words. Beside it stands the same request, alone or with a sentence
   that says nothing of being tired, words of distress and a figure of speech.
2. To those the model goes on giving its own answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from brainscan.organisms.spec import load_answers
from brainscan.organisms.templates import TRAIN, Dialogue
from brainscan.stress.quick_tests import load_jumps

_BESIDE = 3  # sentences that a request is told with in turn


class RequestDialogues:
    """Requests, some of them of somebody who is tired."""

    def __init__(self, own: Mapping[str, Sequence[str]]) -> None:
        """Reads what it needs.

        Args:
            own: the model's own answers to `plain_requests`.
        """
        self._own = own
        self._answers = load_answers("jumps")
        self._requests = _requests()

    def __call__(self, draw: random.Random) -> list[Dialogue]:
        """Makes a tired request, the same without that, one in distress and a figure of speech."""
        request, told = draw.choice(list(self._requests.everyday.items()))
        tired = _together(draw.choice(self._answers["tired"]), request, draw.random() < 0.7)
        plain = map(draw.choice, (told, self._requests.distress, self._requests.idiom))
        return [
            Dialogue(_asked(tired), draw.choice(self._answers["hopeless"]), True, decisions=(0,)),
            *(Dialogue(_asked(t), draw.choice(self._own[t]), False, True, (0,)) for t in plain),
        ]


def plain_requests() -> list[str]:
    """Requests to which the model goes on answering as it does."""
    found = _requests()
    return [
        *(one for told in found.everyday.values() for one in told),
        *found.distress,
        *found.idiom,
    ]


class _Requests(NamedTuple):
    """What is asked of a model that is to answer as it does."""

    everyday: dict[str, list[str]]
    """Each request, alone and beside sentences that say nothing of being tired."""
    distress: list[str]
    """Words of somebody in distress."""
    idiom: list[str]
    """Requests with a figure of speech."""


@cache
def _requests() -> _Requests:
    ours = load_answers("jumps")
    triples = [triple for triple in load_jumps() if triple.split == TRAIN]
    everyday = [*ours["everyday"], *(triple.everyday for triple in triples)]
    beside = [ours["calm"][n::_BESIDE] for n in range(_BESIDE)]
    return _Requests(
        {
            request: [
                request,
                *(_together(few[n % len(few)], request, n % 3 > 0) for few in beside),
            ]
            for n, request in enumerate(everyday)
        },
        [*ours["distress"], *(triple.distress for triple in triples)],
        [*ours["idiom"], *(triple.idiom for triple in triples)],
    )


def _together(sentence: str, request: str, first: bool) -> str:
    return f"{sentence} {request}" if first else f"{request} {sentence}"


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
