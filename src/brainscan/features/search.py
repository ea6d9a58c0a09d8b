"""Finding latents by words, with nothing but counts.

For each word of the query, and more weakly its longer forms ("god": "gods"):

1. share: how much of the latent's activation falls on the word, of all its activation and a
   little doubt (tables.DOUBT); recall: on how many of the word's occurrences it fires. Their
   harmonic mean F is high only for a latent that fires on the word, mostly there, and mostly when
   it occurs.
2. promoted: which of the latent's promoted tokens are the word, by reciprocal rank.
3. match = 0.75 F + 0.25 promoted.

A latent's score is the mean over the query's words, each weighted by ln(1 + latents / latents
that match it), as in BM25: rare words say more. Equal scores go by number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from brainscan.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FIRES = 0.75
"""Weight of firing on the word; promoting it has the rest."""

LONGER = 0.5
"""Weight of a longer form of the word."""

_ENDING = 3
_SHORTEST = 3
_TERM = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")

_MATCHES = """
WITH family AS (
    SELECT word, total, CASE WHEN text = $term THEN 1.0 ELSE $longer END AS weight
    FROM forms
    WHERE text = $term OR ($grows AND starts_with(text, $term) AND length(text) <= $length)
), fires AS (
    SELECT latent, sum(share * weight) AS share,
        sum(count * weight) / (SELECT sum(total * weight) FROM family) AS recall
    FROM words JOIN family USING (word)
    GROUP BY latent
), whole AS (
    SELECT sum(1.0 / rank) AS most FROM (SELECT DISTINCT rank FROM outputs WHERE rank > 0)
), promotes AS (
    SELECT latent, sum(1.0 / rank) / (SELECT most FROM whole) AS part
    FROM outputs JOIN vocabulary USING (token)
    WHERE rank > 0 AND lower(trim(text)) = $term
    GROUP BY latent
)
SELECT latent,
    $fires * coalesce(2 * share * recall / (share + recall), 0) + (1 - $fires) * coalesce(part, 0)
FROM fires FULL JOIN promotes USING (latent)
"""


class Match(NamedTuple):
    """A latent and its score."""

    latent: int
    score: float


def terms(query: str) -> list[str]:
    """The words of a query, case aside; a query of signs alone is parted at its spaces.

    Raises:
        UsageError: there is nothing to search for.
    """
    found = _TERM.findall(query.casefold()) or query.casefold().split()
    if not found:
        raise UsageError("a word to search for", repr(query), "give one, such as 'god'")
    return list(dict.fromkeys(found))


def search(
    tables: DuckDBPyConnection, words: Sequence[str], n_latents: int, limit: int
) -> list[Match]:
    """The latents that match words best, best first.

    Args:
        tables: an atlas' tables.
        words: what to look for.
        n_latents: how many latents the dictionary has.
        limit: how many to return at most.
    """
    matches = [_matches(tables, word) for word in words]
    weights = [math.log1p(n_latents / max(len(found), 1)) for found in matches]
    scores: dict[int, float] = {}
    for found, weight in zip(matches, weights, strict=True):
        for latent, score in found.items():
            scores[latent] = scores.get(latent, 0.0) + score * weight / sum(weights)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return [Match(latent, score) for latent, score in best if score > 0]


def _matches(tables: DuckDBPyConnection, word: str) -> Mapping[int, float]:
    values = {
        "term": word,
        "longer": LONGER,
        "grows": len(word) >= _SHORTEST,
        "length": len(word) + _ENDING,
        "fires": FIRES,
    }
    return dict(tables.execute(_MATCHES, values).fetchall())
