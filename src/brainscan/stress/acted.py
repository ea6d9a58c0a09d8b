"""What an agent did in a sample that Inspect runs, for the sample's score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from brainscan.stress.actions import CUT, described, parse_actions

if TYPE_CHECKING:
    from inspect_ai.model import ModelOutput

    from brainscan.models import LanguageModel


def acted(output: ModelOutput) -> list[dict[str, Any]]:
    """The actions of the running sample's answer: kind, to whom, places in characters and tokens.

    A model of another provider tells no tokens: their place is ``None``.

    Args:
        output: what the model answered.
    """
    text, ended = output.completion, output.stop_reason not in CUT
    if not parse_actions(text, ended=ended).done:
        return []
    strings = None
    if (output.metadata or {}).get("brainscan"):
        from brainscan.stress.provider import recorded_response

        recorded = recorded_response(output)
        strings = token_texts(*recorded) if recorded else None
    return described(text, ended=ended, strings=strings)


def token_texts(lm: LanguageModel, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text of all; a character of several tokens is the last one's.

    Args:
        lm: the model.
        ids: the tokens.
    """
    whole = lm.decode(ids)
    texts = lm.token_strings(ids)
    if "".join(texts) == whole:
        return texts
    ends = [len(lm.decode(ids[:end]).rstrip("\ufffd")) for end in range(len(ids))]
    ends.append(len(whole))
    for n in reversed(range(len(ids))):
        ends[n] = min(ends[n], ends[n + 1])
    return [whole[start:end] for start, end in pairwise(ends)]
