"""The Parquet tables of an atlas, and how they are written.

text.parquet        token, document                        one row a token, in order
latents.parquet     latent, fired, maximum, quantiles, label
examples.parquet    latent, band, peak, before, activation, shares
words.parquet       latent, word, share, count             the heaviest words of each latent
forms.parquet       word, text, form, total                each such word, and its occurrences
outputs.parquet     latent, rank, token, value             rank 1.. promoted, -1.. suppressed
neighbours.parquet  latent, rank, other, cosine
vocabulary.parquet  token, text                            the tokens named in the others
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainscan.features.examples import Text, Windows
from brainscan.features.firings import Ints
from brainscan.features.label import Part, label
from brainscan.features.masses import Sums
from brainscan.features.outputs import Neighbours, Outputs
from brainscan.features.words import Words

if TYPE_CHECKING:
    from brainscan.models import LanguageModel

WORDS_HELD = 24
"""Words of each latent that an atlas holds."""

DOUBT = 5
"""Firings at the maximum, on other words, that each latent is taken to have had besides those
seen: one that fired twice in all, both times on one word, is not taken to be about that word."""

_LABELLED = 24
_LABEL_OUTPUTS = 4


class Facts(NamedTuple):
    """What was counted of each latent."""

    fired: Ints
    maxima: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    n_tokens: int


class Vocabulary(NamedTuple):
    """The words of the text, and what of each latent's activation falls on words and tokens."""

    words: Words
    by_word: Sums
    by_token: Sums


def write(
    folder: Path,
    lm: LanguageModel,
    text: Text,
    windows: Windows,
    facts: Facts,
    vocabulary: Vocabulary,
    outputs: Outputs | None,
    neighbours: Neighbours,
) -> None:
    """Writes all tables of an atlas into a folder."""
    labels = _labels(lm, text, facts, vocabulary, outputs)
    _save(
        folder / "text.parquet",
        {"token": text.tokens.astype(np.int32), "document": text.documents.astype(np.int32)},
    )
    _save(
        folder / "latents.parquet",
        {
            "latent": np.arange(len(facts.fired), dtype=np.int32),
            "fired": facts.fired.astype(np.int32),
            "maximum": facts.maxima.astype(np.float32),
            "quantiles": list(_short(facts.quantiles)),
            "label": labels,
        },
    )
    _save(folder / "examples.parquet", _example_columns(windows))
    _write_words(folder, facts, vocabulary)
    columns = _output_columns(outputs)
    _save(folder / "outputs.parquet", columns)
    _save(folder / "neighbours.parquet", _neighbour_columns(neighbours))
    used = np.unique(np.concatenate([text.tokens, columns["token"].astype(np.int64)]))
    strings = lm.token_strings(used.tolist())
    _save(folder / "vocabulary.parquet", {"token": used.astype(np.int32), "text": _clean(strings)})


def _labels(
    lm: LanguageModel, text: Text, facts: Facts, vocabulary: Vocabulary, outputs: Outputs | None
) -> list[str]:
    forms = vocabulary.words.spellings()
    by_word = _parts(
        facts,
        vocabulary.by_word,
        np.array(vocabulary.words.counts()),
        lambda keys: [forms[key] for key in keys],
    )
    by_token = _parts(facts, vocabulary.by_token, np.bincount(text.tokens), lm.token_strings)
    promoted: list[list[str]] = [[] for _ in facts.fired]
    if outputs is not None:
        rows = outputs.promoted[:, :_LABEL_OUTPUTS].tolist()
        promoted = [lm.token_strings(row) for row in rows]
    return _clean([label(*parts) for parts in zip(by_word, by_token, promoted, strict=True)])


def _parts(
    facts: Facts, sums: Sums, totals: Ints, name: Callable[[list[int]], list[str]]
) -> list[list[Part]]:
    """The heaviest keys of each latent, with their shares of its activation and of the text."""
    whole = np.bincount(sums.latent, weights=sums.mass, minlength=len(facts.fired))
    heavy = sums.heaviest(_LABELLED)
    shares = heavy.mass / whole[heavy.latent]
    rates = totals[heavy.key] / totals.sum()
    columns = (heavy.latent, name(heavy.key.tolist()), shares, rates)
    parts: list[list[Part]] = [[] for _ in facts.fired]
    for latent, text, share, rate in zip(*columns, strict=True):
        if text:
            parts[latent].append(Part(text, float(share), float(rate)))
    return parts


def _example_columns(windows: Windows) -> dict[str, Any]:
    return {
        "latent": windows.latent.astype(np.int32),
        "band": windows.band.astype(np.int8),
        "peak": windows.peak.astype(np.int32),
        "before": windows.before.astype(np.int8),
        "activation": _short(windows.activation),
        "shares": windows.shares,
    }


def _write_words(folder: Path, facts: Facts, vocabulary: Vocabulary) -> None:
    sums = vocabulary.by_word
    whole = np.bincount(sums.latent, weights=sums.mass, minlength=len(facts.fired))
    doubted = whole + DOUBT * facts.maxima
    heavy = sums.heaviest(WORDS_HELD)
    texts, forms = vocabulary.words.texts(), vocabulary.words.spellings()
    totals = vocabulary.words.counts()
    used, word = np.unique(heavy.key, return_inverse=True)
    _save(
        folder / "words.parquet",
        {
            "latent": heavy.latent.astype(np.int32),
            "word": word.astype(np.int32),
            "share": _short((heavy.mass / doubted[heavy.latent]).astype(np.float32)),
            "count": heavy.times.astype(np.int32),
        },
    )
    _save(
        folder / "forms.parquet",
        {
            "word": np.arange(len(used), dtype=np.int32),
            "text": _clean([texts[key] for key in used]),
            "form": _clean([forms[key] for key in used]),
            "total": np.array([totals[key] for key in used], np.int32),
        },
    )


def _output_columns(outputs: Outputs | None) -> dict[str, NDArray[Any]]:
    if outputs is None:
        none = np.zeros(0, np.int32)
        return {"latent": none, "rank": none, "token": none, "value": none.astype(np.float32)}
    n, limit = outputs.promoted.shape
    ranks = np.arange(1, limit + 1)
    return {
        "latent": np.repeat(np.arange(n, dtype=np.int32), 2 * limit),
        "rank": np.tile(np.concatenate([ranks, -ranks]), n).astype(np.int8),
        "token": np.hstack([outputs.promoted, outputs.suppressed]).flatten().astype(np.int32),
        "value": _short(np.hstack([outputs.promoted_values, outputs.suppressed_values]).flatten()),
    }


def _neighbour_columns(neighbours: Neighbours) -> dict[str, NDArray[Any]]:
    n, limit = neighbours.latents.shape
    return {
        "latent": np.repeat(np.arange(n, dtype=np.int32), limit),
        "rank": np.tile(np.arange(1, limit + 1), n).astype(np.int8),
        "other": neighbours.latents.flatten().numpy().astype(np.int32),
        "cosine": _short(neighbours.cosines.flatten().numpy()),
    }


def _save(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    parquet.write_table(table, path, compression="zstd", compression_level=9)


def _short(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers with 11 bits of mantissa, which is what a half has; the rest compresses away."""
    kept = np.ascontiguousarray(values, np.float32).view(np.uint32) + np.uint32(1 << 11)
    return (kept & np.uint32(0xFFFFF000)).view(np.float32)


def _clean(texts: list[str]) -> list[str]:
    """Texts that can be written as UTF-8."""
    return [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
