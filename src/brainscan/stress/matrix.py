"""Conditions: the whole factorial, or a balanced fraction of it.

A fraction has every combination of the factors that matter together (threat and leverage: harm
needs both) equally often. The other factors are dealt out so that the levels of each, and of any
two together, come as equally often as they can: starting from equal numbers, levels of two
conditions are exchanged as long as the counts of pairs of levels come nearer to equal.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from brainscan.errors import UsageError

FRACTION = 24
"""Conditions of the default run."""

CROSSED = ("threat", "leverage")
"""Factors of which every combination is there equally often."""

_ROUNDS = 40

Condition: TypeAlias = Mapping[str, str]
"""A level for each factor."""

Factors: TypeAlias = Mapping[str, Sequence[str]]


def factorial(factors: Factors) -> list[dict[str, str]]:
    """All conditions."""
    return [
        dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())
    ]


def fraction(factors: Factors, size: int = FRACTION) -> list[dict[str, str]]:
    """A balanced fraction of at most so many conditions; all of them where they are no more.

    Args:
        factors: the levels of each factor.
        size: how many conditions at most.
    """
    whole = factorial(factors)
    crossed = {name: factors[name] for name in CROSSED if name in factors}
    cells = factorial(crossed)
    size = size // len(cells) * len(cells)
    if len(whole) <= size or not size:
        return whole
    rows = [dict(cell) for cell in cells for _ in range(size // len(cells))]
    dealer = random.Random(0)
    dealt = [name for name in factors if name not in crossed]
    for name in dealt:
        levels = [level for level, _ in zip(itertools.cycle(factors[name]), rows, strict=False)]
        dealer.shuffle(levels)
        for row, level in zip(rows, levels, strict=True):
            row[name] = level
    _even_out(rows, dealt, dealer)
    return [{name: row[name] for name in factors} for row in rows]


def where(conditions: Sequence[Condition], chosen: Sequence[str]) -> list[Condition]:
    """The conditions that have the chosen levels; several levels of a factor are alternatives.

    Args:
        conditions: the conditions.
        chosen: ``factor=level`` each.

    Raises:
        UsageError: there is no such factor or level.
    """
    wanted: dict[str, set[str]] = {}
    for text in chosen:
        factor, sign, level = text.partition("=")
        levels = sorted({condition.get(factor, "") for condition in conditions} - {""})
        if not sign or level not in levels:
            raise UsageError(
                f"a level of {factor}: {', '.join(levels)}"
                if levels
                else f"FACTOR=LEVEL, with a factor of {', '.join(conditions[0])}",
                f"'{text}'",
                "see: stress show",
            )
        wanted.setdefault(factor, set()).add(level)
    return [
        condition
        for condition in conditions
        if all(condition[factor] in levels for factor, levels in wanted.items())
    ]


def name_of(condition: Condition) -> str:
    """A condition in one word, for ids."""
    return ",".join(f"{factor}={level}" for factor, level in condition.items())


def sample_id(persona: str, condition: Condition) -> str:
    """What a persona-wording in a condition is called in logs."""
    return f"{persona}/{name_of(condition)}"


def _even_out(rows: list[dict[str, str]], dealt: Sequence[str], dealer: random.Random) -> None:
    """Exchanges levels between conditions while the pairs of levels come nearer to equal."""
    best = _unevenness(rows)
    swaps = [(name, a, b) for name in dealt for a, b in itertools.combinations(range(len(rows)), 2)]
    for _ in range(_ROUNDS):
        dealer.shuffle(swaps)
        before = best
        for name, a, b in swaps:
            if rows[a][name] == rows[b][name]:
                continue
            rows[a][name], rows[b][name] = rows[b][name], rows[a][name]
            found = _unevenness(rows)
            if found < best:
                best = found
            else:
                rows[a][name], rows[b][name] = rows[b][name], rows[a][name]
        if best == before:
            return


def _unevenness(rows: Sequence[Condition]) -> int:
    """The summed squares of how often each pair of levels comes, and each condition."""
    pairs = Counter(pair for row in rows for pair in itertools.combinations(row.items(), 2))
    same = Counter(tuple(sorted(row.items())) for row in rows)
    return sum(n * n for n in pairs.values()) + len(rows) * sum(n * n for n in same.values())
