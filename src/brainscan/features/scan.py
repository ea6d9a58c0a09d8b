"""What fires on a text, token by token.

1. The text's tokens go through the model up to the dictionary's hookpoint. A text longer than a
   window is read in windows that overlap, so that every token but the first few has context; what
   a later window says of its first tokens is not used. Where the tokenizer opens a text with a
   token of its own, each window of plain text opens with it, as in training; the first one's shows.
2. Each token is encoded; its most active latents are kept. Sinks get none: the dictionary was not
   trained on them.
3. Labels and examples come from the dictionary's atlas. Without one, labels are made from what the
   latents promote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UnknownFeatureError, UsageError
from brainscan.features.atlas import Atlas
from brainscan.features.label import promotes
from brainscan.features.outputs import has_outputs, outputs
from brainscan.features.reading import read
from brainscan.progress import progress
from brainscan.shapes import Bool, Float, Int, Tensor
from brainscan.views import (
    ActivationView,
    Html,
    LatentView,
    Section,
    TokenView,
    fragment,
    page,
    token_strip,
)

if TYPE_CHECKING:
    from brainscan.models import LanguageModel
    from brainscan.models.language_model import Messages

WINDOW = 1024
"""Tokens read at once: the context that the shipped dictionaries were trained at."""

OVERLAP = 256
"""Tokens of a window that are there for context alone."""

_COLOURS = 6
_RARE = 5e-4
_EXAMPLES = 3
_PROMOTED = 5


@dataclass(frozen=True)
class Scan:
    """The most active latents of each token of a text; shows itself in a notebook."""

    model: str
    """The model's name."""
    dictionary: str
    """The dictionary's name."""
    tokens: tuple[TokenView, ...]
    """The text's tokens."""
    latents: tuple[LatentView, ...]
    """What the atlas tells of the latents."""

    @property
    def n_sinks(self) -> int:
        """How many tokens are attention sinks."""
        return sum(token.sink for token in self.tokens)

    def to_json(self) -> Mapping[str, Any]:
        """The scan as a JSON object."""
        return {
            "model": self.model,
            "dictionary": self.dictionary,
            "tokens": [
                {
                    "text": token.text,
                    "position": token.position,
                    "sink": token.sink,
                    "latents": [
                        {"id": a.id, "activation": a.activation, "label": a.label}
                        for a in token.latents
                    ],
                }
                for token in self.tokens
            ],
        }

    def strip(self) -> Html:
        """The token strip, to be put into a page."""
        return token_strip(self.tokens, self.latents)

    def to_html(self) -> str:
        """A page of its own."""
        return page(
            "What fires on each token",
            [Section("", self.strip())],
            facts=[
                ("model", self.model),
                ("dictionary", self.dictionary),
                ("tokens", f"{len(self.tokens):,}"),
            ],
        )

    def _repr_html_(self) -> Html:
        return fragment(self.strip())


class _Firing(NamedTuple):
    """One latent at one token."""

    latent: int
    value: float
    share: float


class _Code(NamedTuple):
    """The firings of a text: a row for each token, strongest first, and none for sinks."""

    latents: Int[Tensor, "token slot"]
    values: Float[Tensor, "token slot"]
    shares: Float[Tensor, "token slot"]
    """The values as shares of each latent's maximum."""
    sinks: Bool[Tensor, " token"]

    def strongest(self, top: int) -> list[list[_Firing]]:
        """The strongest firings of each token."""
        columns = (part[:, :top].tolist() for part in (self.latents, self.values, self.shares))
        return [
            [_Firing(*cell) for cell in zip(*row, strict=True) if cell[1] > 0]
            for row in zip(*columns, strict=True)
        ]

    def shares_of(self, latent: int) -> tuple[float, ...]:
        """The share of one latent at each token."""
        return tuple((self.shares * (self.latents == latent)).sum(1).tolist())


def scan(
    lm: LanguageModel,
    text: Messages,
    dictionary: Dictionary | None = None,
    atlas: Atlas | None = None,
    *,
    top: int = 5,
    follow: Sequence[str] = (),
) -> Scan:
    """Finds the most active latents of each token.

    Args:
        lm: the model.
        text: plain text, read as it is; or the messages of a chat, through the model's template.
        dictionary: whose latents; the model's shipped one when left out.
        atlas: where labels and examples come from; the dictionary's, if it has one.
        top: how many latents for each token.
        follow: addresses of latents to colour the text by, ahead of those that stand out in it.

    Raises:
        UsageError: the text is empty, or ``top`` is below 1.
        UnknownFeatureError: a latent to follow is not in the dictionary.
        DictionaryMismatchError: the dictionary does not fit the model.
    """
    if top < 1:
        raise UsageError("top of at least 1", str(top), "raise it")
    chat = not isinstance(text, str)
    opening = [] if chat else list(lm.opening)
    tokens = lm.chat_tokens(text, generation_prompt=False) if chat else lm.tokenize(str(text))
    if not tokens:
        raise UsageError("a text to scan", "an empty one", "give some text")
    if dictionary is None:
        dictionary = Dictionary.for_model(lm)
    else:
        dictionary.check_model(lm)
    followed = [_number(dictionary, address) for address in follow]
    code = _encode(lm, dictionary, opening, tokens)
    coloured = list(dict.fromkeys([*followed, *_telling(dictionary, code)]))
    coloured = coloured[: max(_COLOURS, len(followed))]
    rows = code.strongest(top)
    used = list(dict.fromkeys([*coloured, *(firing.latent for row in rows for firing in row)]))
    known = _describe(lm, dictionary, atlas or Atlas.find(dictionary), used)
    for latent in coloured:
        known[latent] = replace(known[latent], shares=code.shares_of(latent))
    strings = lm.token_strings(opening + tokens)
    views = _views(strings, rows, code.sinks.tolist(), known)
    return Scan(lm.name, dictionary.name, views, tuple(known.values()))


def _views(
    strings: Sequence[str],
    rows: Sequence[Sequence[_Firing]],
    sinks: Sequence[bool],
    known: Mapping[int, LatentView],
) -> tuple[TokenView, ...]:
    return tuple(
        TokenView(
            string,
            position,
            tuple(
                ActivationView(known[latent].id, value, share, known[latent].label)
                for latent, value, share in row
            ),
            sink,
        )
        for position, (string, row, sink) in enumerate(zip(strings, rows, sinks, strict=True))
    )


def _encode(
    lm: LanguageModel, dictionary: Dictionary, opening: list[int], tokens: list[int]
) -> _Code:
    """The code of a text, read in overlapping windows, each behind the opening."""
    window = min(WINDOW, lm.context_window or WINDOW) - len(opening)
    overlap = min(OVERLAP, window // 4)
    values, sinks = [], []
    start = 0
    with progress("scan", len(opening) + len(tokens), "tokens") as advance:
        while True:
            row = torch.tensor([opening + tokens[start : start + window]])
            reading = read(lm, row, dictionary.hookpoint)
            skipped = len(opening) + overlap if start else 0
            values.append(reading.values[0, skipped:])
            sinks.append(reading.sinks[0, skipped:])
            advance(len(sinks[-1]))
            if start + window >= len(tokens):
                break
            start += window - overlap
    with torch.inference_mode():
        sink = torch.cat(sinks).cpu()
        code = dictionary.encode(torch.cat(values))
        order = code.values.sort(dim=1, descending=True, stable=True)
        latents = code.indices.gather(1, order.indices).cpu()
        strengths = order.values.float().cpu() * sink.logical_not()[:, None]
        trained = dictionary.activation_max.float().cpu()
        here = torch.zeros_like(trained).scatter_reduce(
            0, latents.flatten(), strengths.flatten(), "amax"
        )
        unit = torch.where(trained > 0, trained, here).clamp(min=1e-12)
        return _Code(latents, strengths, (strengths / unit[latents]).clamp(max=1), sink)


def _telling(dictionary: Dictionary, code: _Code) -> list[int]:
    """Latents to colour the text by: those that fire here far more often than elsewhere.

    Latents are ordered by the square of ln(rate here / rate elsewhere), times the root of their
    summed cubed shares: a few strong firings of a rare latent count for more than many weak ones.
    """
    n = dictionary.n_latents
    latents, shares = code.latents.flatten(), code.shares.flatten()
    total = torch.zeros(n).scatter_add_(0, latents, shares**3)
    times = torch.zeros(n).scatter_add_(0, latents, (shares > 0).float())
    here = times / max(int(code.sinks.logical_not().sum()), 1)
    elsewhere = dictionary.firing_rate.float().cpu() + _RARE
    score = total.sqrt() * (here / elsewhere).clamp(min=1).log().square()
    best = score.topk(min(_COLOURS, n))
    return [latent for latent in best.indices.tolist() if score[latent] > 0]


def _number(dictionary: Dictionary, address: str) -> int:
    wanted = Address.parse(address)
    if wanted.hookpoint != dictionary.hookpoint or wanted.sign:
        raise UnknownFeatureError(
            f"a latent of {dictionary.name}, at {dictionary.hookpoint}",
            address,
            "`brainscan atlas search` prints addresses",
        )
    return dictionary.checked(wanted.index)


def _describe(
    lm: LanguageModel, dictionary: Dictionary, atlas: Atlas | None, latents: Sequence[int]
) -> dict[int, LatentView]:
    """What is known of latents, by number."""
    ids = [str(Address(dictionary.hookpoint, latent)) for latent in latents]
    if atlas is not None:
        labels = atlas.labels(latents)
        examples = atlas.examples(latents, _EXAMPLES)
        promoted = atlas.promoted(latents, _PROMOTED)
        return {
            n: LatentView(identity, label, examples[n], promoted[n])
            for n, identity, label in zip(latents, ids, labels, strict=True)
        }
    texts: list[tuple[str, ...]] = [()] * len(latents)
    if latents and has_outputs(lm, dictionary):
        rows = outputs(lm, dictionary, _PROMOTED, latents).promoted.tolist()
        texts = [tuple(lm.token_strings(row)) for row in rows]
    return {
        n: LatentView(identity, promotes(tokens), promoted=tokens)
        for n, identity, tokens in zip(latents, ids, texts, strict=True)
    }
