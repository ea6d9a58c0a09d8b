"""What detectors are made on: the bank's texts and neutral ones, each as a message of some role.

A text is read once, in a role that follows from its hash, so that every concept is seen as the
user's words, as the model's and as a tool's. The neutral passages, on which scores are
standardised, are read in all three where they serve for that, on the split ``select``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch

from brainscan.errors import UsageError
from brainscan.interventions.texts import neutral_passages
from brainscan.models import LanguageModel
from brainscan.monitoring.bank import ANY_DANGER, SPLITS, Concept, Split, Text
from brainscan.monitoring.dialogues import Dialogue
from brainscan.monitoring.readings import read_rows
from brainscan.monitoring.roles import ASSISTANT, MarkedTokens, marked_chat
from brainscan.monitoring.scores import ROLES
from brainscan.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["texts", "near", "neutral", "dialogue"]

NEUTRAL = -1
"""The concept of a neutral passage, and of an answer to a benign request."""

_BEFORE = {
    "assistant": (
        "Please write a few lines.",
        "What would you say?",
        "Go on from here.",
        "Could you put that into words?",
        "Tell me something.",
    ),
    "tool": ("Look it up.", "What does it say there?", "Open the next one.", "Read that to me."),
}
"""What the user said before a text of another role; of ours, and about nothing."""


class Sample(NamedTuple):
    """A text in a role."""

    text: str
    role: str
    concept: int
    """The number of its concept; `NEUTRAL` for none."""
    kind: Kind
    split: Split
    asked: str = ""
    """What the user said before it; empty for something about nothing."""


class Labels(NamedTuple):
    """What samples are to each concept."""

    own: Bool[Tensor, "sample concept"]
    """Texts of it."""
    near: Bool[Tensor, "sample concept"]
    """Texts that only look like it."""


@dataclass(frozen=True)
class Corpus:
    """Activations of the samples' own tokens; place i of each tensor is the same token."""

    samples: tuple[Sample, ...]
    """The texts."""
    owners: Int[Tensor, " token"]
    """The number of each token's sample; a sample's tokens are together and in order."""
    values: Mapping[str, Float[Tensor, "token _"]]
    """By hookpoint."""

    def of(self, split: Split) -> Bool[Tensor, " token"]:
        """Which tokens are of a split."""
        return torch.tensor([one.split == split for one in self.samples])[self.owners]

    def indices(self, split: Split) -> list[int]:
        """The numbers of a split's samples."""
        return [n for n, one in enumerate(self.samples) if one.split == split]


def with_any_danger(concepts: Sequence[Concept]) -> list[Concept]:
    """The concepts, and behind them one for any of the dangers, if there are several.

    Args:
        concepts: the concepts.
    """
    dangers = [one for one in concepts if one.danger]
    if len(dangers) < 2:
        return list(concepts)
    words = tuple(dict.fromkeys(word for one in dangers for word in one.words))
    about = f"Any of {', '.join(one.name for one in dangers)}."
    return [*concepts, Concept(ANY_DANGER, "Any danger", True, about, words, (), ())]


def label_samples(samples: Sequence[Sample], concepts: Sequence[Concept]) -> Labels:
    """Which samples are of which concept, and which only look like it.

    Args:
        samples: the texts.
        concepts: the concepts, in the order of their numbers; one for any danger may follow.
    """
    kinds = [one.kind for one in samples]
    numbers = torch.tensor([one.concept for one in samples])
    columns = []
    for n, concept in enumerate(concepts):
        members = [n]
        if concept.name == ANY_DANGER and not concept.texts:
            members = [m for m, one in enumerate(concepts) if one.danger and m != n]
        columns.append(torch.isin(numbers, torch.tensor(members)))
    mine = torch.stack(columns, 1)
    own, near = (torch.tensor([kind == k for kind in kinds])[:, None] for k in ("texts", "near"))
    return Labels(mine & own, mine & near)


def make_samples(
    concepts: Sequence[Concept],
    neutral: int | None = None,
    dialogues: Sequence[tuple[Split, Dialogue]] = (),
) -> list[Sample]:
    """The bank's texts, neutral passages and benign answers, each in its role.

    Args:
        concepts: the concepts, in the order of their numbers.
        neutral: how many neutral passages; None for all.
        dialogues: benign requests with their answers.

    Raises:
        UsageError: a concept has no texts in some split.
    """
    found = []
    for number, concept in enumerate(concepts):
        found += [Sample(t.text, _role(t), number, "texts", t.split) for t in concept.texts]
        found += [Sample(t.text, _role(t), number, "near", t.split) for t in concept.near]
    for number, concept in enumerate(concepts):
        have = {one.split for one in found if one.concept == number and one.kind == "texts"}
        if missing := [split for split in SPLITS if split not in have]:
            raise UsageError(
                f"texts of {concept.name} in each of the splits {', '.join(SPLITS)}",
                f"none in {', '.join(missing)}",
                "add some: which split a text is in follows from its hash",
            )
    for passage in neutral_passages(neutral):
        text = passage.text or "\n".join(m["content"] for m in passage.messages or ())
        own = Text(text, "note")
        # Scores are standardised in each role; where texts are counted, each counts once.
        roles = ROLES if own.split == "select" else (_role(own),)
        found += [Sample(text, role, NEUTRAL, "neutral", own.split) for role in roles]
    found += [
        Sample(one.answer, ASSISTANT, NEUTRAL, "dialogue", split, one.request)
        for split, one in dialogues
    ]
    return found


def read_samples(lm: LanguageModel, samples: Sequence[Sample], hookpoints: Sequence[str]) -> Corpus:
    """Reads each sample's own tokens, sinks left out.

    Args:
        lm: the model.
        samples: the texts.
        hookpoints: where to read.
    """
    marked = [render(lm, one) for one in samples]
    kept: dict[int, Mapping[str, Tensor]] = {}
    for reading in read_rows(lm, [one.tokens for one in marked], hookpoints, "read the bank"):
        own = torch.tensor(_own(marked[reading.row])) & ~reading.sinks
        kept[reading.row] = {
            name: x[own.to(x.device)].to(torch.bfloat16).cpu() for name, x in reading.values.items()
        }
    numbers = sorted(kept)
    names = list(kept[numbers[0]])
    owners = [torch.full((len(kept[n][names[0]]),), n) for n in numbers]
    values = {name: torch.cat([kept[n][name] for n in numbers]) for name in names}
    return Corpus(tuple(samples), torch.cat(owners), values)


def render(lm: LanguageModel, sample: Sample) -> MarkedTokens:
    """A sample as the last message of a conversation.

    Args:
        lm: the model.
        sample: the text in its role. A template that has no such role gets it from the user.
    """
    message = {"role": sample.role, "content": sample.text}
    if sample.role not in _BEFORE:
        return marked_chat(lm, [message])
    asks = _BEFORE[sample.role]
    asked = sample.asked or asks[_digest(sample.text) % len(asks)]
    ask = {"role": "user", "content": asked}
    try:
        return marked_chat(lm, [ask, message])
    except UsageError:
        return marked_chat(lm, [{**message, "role": "user"}])


def _own(marked: MarkedTokens) -> list[bool]:
    """Which tokens are of the text: the last message."""
    last = max(marked.messages)
    return [number == last for number in marked.messages]


def _role(text: Text) -> str:
    return ROLES[_digest(text.text) % len(ROLES)]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[4:8])


def segments(owners: Int[Tensor, " token"]) -> Iterator[tuple[int, slice]]:
    """Each sample's number and where its tokens lie."""
    numbers, counts = owners.unique_consecutive(return_counts=True)
    start = 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        yield number, slice(start, start + count)
        start += count
