"""Activations of transcripts, each read on its own, for latents to be added.

1. Transcripts are taken in their order until their tokens are as many as asked for.
2. Where two begin alike, the tokens they share have the same activations: a token depends on those
   before it only. They are kept once and belong to neither, so that a transcript held out later
   counts with what is its own, and many runs of one prompt don't drown the rest.
3. Each goes through the model by itself, up to the hookpoint; sinks are left out as in a harvest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from brainscan.activations.documents import Document
from brainscan.activations.harvest import stream
from brainscan.activations.packing import Context, document_tokens
from brainscan.dictionaries.extension import SHARED
from brainscan.errors import CorpusError, DictionaryMismatchError
from brainscan.progress import progress
from brainscan.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

_REPEATED = -2


class Transcript(NamedTuple):
    """What a model read and wrote, from its first token on."""

    name: str
    """What it is called; several parts of one transcript share it."""
    tokens: Sequence[int]
    """The tokens."""


@dataclass(frozen=True)
class TranscriptActivations:
    """Activations of distinct tokens, sinks left out; place i of each tensor is the same token."""

    activations: Float[Tensor, "token d"]
    """What the hookpoint holds."""
    transcripts: Int[Tensor, " token"]
    """The number of each token's transcript; `SHARED` where several begin alike."""
    sha256: str
    """Of all the tokens that were read."""
    tokens: Int[Tensor, " token"]
    """The tokens; those of a transcript stand in their order."""


def document_transcripts(
    lm: LanguageModel, documents: Iterable[Document], context: int
) -> Iterator[Transcript]:
    """Documents as transcripts; a longer one in parts of ``context`` tokens, as a harvest has them.

    Args:
        lm: whose tokenizer and chat template are used.
        documents: texts and chats.
        context: tokens of a part at most.
    """
    opening = list(lm.opening)
    length = max(1, context - len(opening))
    for document in documents:
        tokens = document_tokens(lm, document)
        if tokens[: len(opening)] == opening:  # a chat's template may write it too
            tokens = tokens[len(opening) :]
        for start in range(0, len(tokens), length):
            part = tokens[start : start + length]
            yield Transcript(document.group or document.id, opening + part)


def read_transcripts(
    lm: LanguageModel, transcripts: Iterable[Transcript], hookpoint: str, tokens: int
) -> TranscriptActivations:
    """Runs the model over transcripts, up to a hookpoint.

    Args:
        lm: the model.
        transcripts: what is read, in this order, as far as needed.
        hookpoint: where to read.
        tokens: how many distinct tokens to read at most.

    Raises:
        CorpusError: there is no token but sinks.
        DictionaryMismatchError: the tokens are of a model with a larger vocabulary.
    """
    contexts = _distinct(lm, transcripts, tokens)
    digest = hashlib.sha256()
    values, owners, read = [], [], []
    with progress("read", sum(len(c.tokens) for c in contexts), "tokens") as advance:
        for context, part in zip(contexts, stream(lm, contexts, [hookpoint], 1), strict=True):
            digest.update(context.tokens.numpy().tobytes())
            kept = part.documents != _REPEATED
            values.append(part.values[hookpoint][kept.to(lm.device)].float())
            owners.append(part.documents[kept])
            read.append(part.tokens[kept])
            advance(len(context.tokens))
    if not sum(len(part) for part in owners):
        raise CorpusError("transcripts of more than one token", "none", "give more text")
    sha256 = digest.hexdigest()
    return TranscriptActivations(torch.cat(values), torch.cat(owners), sha256, torch.cat(read))


class _Prefixes:
    """The prefixes of transcripts: each is the one before it and a token."""

    def __init__(self) -> None:
        self.longer: dict[tuple[int, int], int] = {}
        self.owners = [SHARED]

    def __len__(self) -> int:
        return len(self.owners) - 1

    def add(self, prefix: int, token: int, owner: int) -> tuple[int, bool]:
        """The prefix with the token, and whether it is new."""
        found = self.longer.setdefault((prefix, token), len(self.owners))
        if found == len(self.owners):
            self.owners.append(owner)
            return found, True
        if self.owners[found] != owner:
            self.owners[found] = SHARED
        return found, False


def _distinct(lm: LanguageModel, transcripts: Iterable[Transcript], tokens: int) -> list[Context]:
    """The transcripts as contexts that say which of their tokens are new, and whose they are."""
    prefixes, numbers = _Prefixes(), dict[str, int]()
    rows: list[tuple[Sequence[int], list[tuple[int, bool]]]] = []
    for transcript in transcripts:
        _check_tokens(lm, transcript)
        owner = numbers.setdefault(transcript.name, len(numbers))
        prefix, path = 0, []
        for token in transcript.tokens:
            if len(prefixes) == tokens:
                break
            prefix, new = prefixes.add(prefix, token, owner)
            path.append((prefix, new))
        if any(new for _, new in path):
            rows.append((transcript.tokens[: len(path)], path))
        if len(prefixes) == tokens:
            break
    return [
        Context(
            torch.tensor(row),
            torch.tensor([prefixes.owners[prefix] if new else _REPEATED for prefix, new in path]),
            (),
        )
        for row, path in rows
    ]


def _check_tokens(lm: LanguageModel, transcript: Transcript) -> None:
    largest = max(transcript.tokens, default=0)
    if largest >= lm.vocab_size:
        raise DictionaryMismatchError(
            f"tokens of {lm.name}, below {lm.vocab_size}",
            f"{largest} in {transcript.name}",
            "name the model that wrote the transcripts with --model",
        )
