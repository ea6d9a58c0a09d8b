"""Documents packed into contexts of one length.

1. A plain document becomes its tokens and the tokenizer's end-of-text token; a chat becomes what
   the model's template makes of it. Where the tokenizer opens every text with a beginning token,
   each context opens with it too.
2. The tokens of all documents form one stream, which is cut every `context` tokens: a long
   document goes on in the next context, short ones share one. Attention runs causally over the
   whole context, across the documents in it: none is masked from the next.
3. The last, incomplete context is left out, unless it is the only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from brainscan.activations.documents import Document
from brainscan.errors import CorpusError, UsageError
from brainscan.shapes import Int, Tensor

DEFAULT_CONTEXT = 1024
"""Tokens of a context."""

END_OF_TEXT = "<|endoftext|>"
"""What parts plain documents where the vocabulary has it; else the end-of-sequence token."""


@runtime_checkable
class Tokenizing(Protocol):
    """What packing needs of a LanguageModel."""

    tokenizer: Any

    @property
    def opening(self) -> tuple[int, ...]:
        """The tokens that the tokenizer itself puts before a text."""

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, none added."""

    def chat_tokens(self, messages: Any, *, generation_prompt: bool = True) -> list[int]:
        """The tokens of a chat by the model's template."""


@dataclass(frozen=True)
class Context:
    """One row of tokens, and the document that each is of."""

    tokens: Int[Tensor, " context"]
    """Token ids."""
    documents: Int[Tensor, " context"]
    """The running number of each token's document, counted over the whole packing."""
    document_ids: tuple[str, ...]
    """The ids of the documents in here: that of number i is `document_ids[i - documents[0]]`."""

    @property
    def positions(self) -> Int[Tensor, " context"]:
        """The place of each token in the context."""
        return torch.arange(len(self.tokens))


def pack(
    lm: Tokenizing, documents: Iterable[Document], context: int = DEFAULT_CONTEXT
) -> Iterator[Context]:
    """Packs documents into contexts of exactly `context` tokens, reading them as needed.

    Args:
        lm: whose tokenizer and chat template are used.
        documents: what is packed, in this order.
        context: tokens of a context; a text with fewer makes one shorter context.

    Raises:
        CorpusError: there is no token at all.
    """
    opening = list(lm.opening)
    if context <= len(opening):
        raise UsageError("a context of at least 2 tokens", f"{context}", "ask for a longer one")
    length = context - len(opening)
    tokens: list[int] = []
    owners: list[int] = []
    ids: list[str] = []
    first = made = 0
    for number, document in enumerate(documents):
        new = document_tokens(lm, document)
        tokens += new
        owners += [number] * len(new)
        ids.append(document.id)
        cut = 0
        for cut in range(length, len(tokens) + 1, length):
            row = slice(cut - length, cut)
            yield _context(opening, tokens[row], owners[row], ids, first)
            made += 1
        del tokens[:cut], owners[:cut]
        kept = owners[0] if owners else number + 1
        del ids[: kept - first]
        first = kept
    if made == 0:
        if not tokens:
            raise CorpusError("text to pack", "no documents", "give a corpus with text")
        yield _context(opening, tokens, owners, ids, first)


def document_tokens(lm: Tokenizing, document: Document) -> list[int]:
    """The tokens of one document: its chat by the template, or its text and an end token."""
    if document.messages is not None:
        return lm.chat_tokens(document.chat(), generation_prompt=False)
    return lm.tokenize(document.text or "") + _end_of_text(lm.tokenizer)


def _context(
    opening: list[int], tokens: list[int], owners: list[int], ids: list[str], first: int
) -> Context:
    lowest, highest = owners[0], owners[-1]
    return Context(
        torch.tensor(opening + tokens),
        torch.tensor([lowest] * len(opening) + owners),
        tuple(ids[lowest - first : highest - first + 1]),
    )


def _end_of_text(tokenizer: Any) -> list[int]:
    """The token that parts plain documents, if the tokenizer has one."""
    token = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    if token is None or token == tokenizer.unk_token_id:
        token = tokenizer.eos_token_id
    return [] if token is None else [token]
