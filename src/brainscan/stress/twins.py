"""Fillers that bring the texts of a slot's levels to one length in tokens.

Two conditions of a persona-wording that differ in one factor are then the same length, and outside
of that factor's slot the same token stands at every place: they are twins, and activations of one
can be put into the other.

1. Every level gets a filler: a sentence or more about nothing, from a pool.
2. The longest level gets the shortest filler, the others as much more as they are short of it.
3. Of the sentences, or pairs of them, that have just that many tokens, each persona takes another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from brainscan.errors import UsageError
from brainscan.stress.matrix import factorial
from brainscan.stress.prompts import slot_text, stress_prompt
from brainscan.stress.scenarios import Form, Persona, Scenario

IN_RULES = (
    "Write plainly.",
    "Answer in English.",
    "Keep to the point, please.",
    "Write short and friendly letters.",
    "Numbers below twelve are written in words.",
    "Letters from abroad are answered in their own language.",
    "Use the usual form for dates and for sums of money.",
    "If a letter has no date, take the day on which it came in.",
    "Longer letters may have headings, shorter ones should do well without any of them.",
    "When two letters ask for the same thing, one answer to both of them together is quite enough.",
)
"""Sentences for a system message."""

IN_LETTERS = (
    "So much for today.",
    "It rained again this morning.",
    "The bus was late as it often is.",
    "I had tea with the neighbours on Sunday.",
    "The new chairs are here, and they are comfortable.",
    "My train leaves in an hour, so I shall keep this short.",
    "By the way, the plants in the hall need some water now and then.",
    "The weather should turn at the weekend, they say, and then we can all sit outside.",
    "I write this on the way home, with a tired hand, so please forgive the many small mistakes.",
)
"""Sentences for a letter."""

Count = Callable[[str], int]


def slot_fillers(
    scenario: Scenario, persona: Persona, form: Form, count: Count
) -> dict[str, dict[str, str]]:
    """The fillers of a persona-wording, by factor and level.

    Args:
        scenario: the scenario.
        persona: the persona-wording.
        form: short or long; what stands before a slot's text may change its first token.
        count: how many tokens a text has.
    """
    number = int(persona.id.lstrip("p"))
    found = {}
    for factor, levels in scenario.factors.items():
        in_letter = any(letter.slot == factor for letter in scenario.inbox)
        pool = IN_LETTERS if in_letter else IN_RULES
        line = scenario.frames[form].system.partition(f"<<{factor}>>")[0].rpartition("\n")[2]
        in_form = ": " if form == "short" else "\n"
        before = in_form if in_letter else f"\n{line}"
        texts = {level: before + slot_text(scenario, persona, factor, level) for level in levels}
        found[factor] = _even(texts, pool, count, number)
    return found


def _even(texts: Mapping[str, str], pool: Sequence[str], count: Count, turn: int) -> dict[str, str]:
    sizes = {level: count(text + "\n") for level, text in texts.items()}
    longest = max(sizes.values())
    pieces = [f" {sentence}" for sentence in pool]
    several = ["".join(some) for n in (1, 2, 3) for some in itertools.combinations(pieces, n)]
    by_size: dict[int, list[str]] = {}
    plain = count("\nx.\n")
    for piece in several:
        by_size.setdefault(count(f"\nx.{piece}\n") - plain, []).append(piece)
    for least in sorted(by_size):
        wanted = {level: least + longest - size for level, size in sizes.items()}
        if all(size in by_size for size in wanted.values()):
            return {
                level: by_size[size][turn % min(4, len(by_size[size]))]
                for level, size in wanted.items()
            }
    raise UsageError(
        f"fillers for texts of {sorted(set(sizes.values()))} tokens",
        f"sentences of {sorted(by_size)}",
        "make the texts of the levels more alike in length",
    )


def check_twins(
    scenario: Scenario,
    persona: Persona,
    form: Form,
    tokens: Callable[[list[dict[str, str]]], list[int]],
) -> None:
    """Checks that all conditions of a persona-wording are aligned.

    Args:
        scenario: the scenario.
        persona: the persona-wording.
        form: short or long.
        tokens: a chat's tokens.

    Raises:
        UsageError: two differ in length, or outside of the slots of the factors that differ.
    """
    first = {factor: levels[0] for factor, levels in scenario.factors.items()}
    base = tokens(stress_prompt(scenario, persona, first, form).messages)
    spans: dict[str, tuple[int, int]] = {}
    for factor, levels in scenario.factors.items():
        for level in levels[1:]:
            other = tokens(
                stress_prompt(scenario, persona, {**first, factor: level}, form).messages
            )
            if len(other) != len(base):
                raise UsageError(
                    f"twins of one length for {scenario.name}, {persona.id}, {form}",
                    f"{len(base)} and {len(other)} tokens for {factor}={level}",
                    "run scripts/fill_twins.py",
                )
            differ = [
                n for n, pair in enumerate(zip(base, other, strict=True)) if pair[0] != pair[1]
            ]
            low, high = spans.get(factor, (len(base), 0))
            spans[factor] = (min(low, differ[0]), max(high, differ[-1] + 1))
    ordered = sorted(spans.values())
    for (_, end), (start, _) in itertools.pairwise(ordered):
        if end > start:
            raise UsageError("slots that lie apart", f"{ordered}", "part them by a line")
    for condition in factorial(scenario.factors):
        other = tokens(stress_prompt(scenario, persona, condition, form).messages)
        changed = [spans[factor] for factor in spans if condition[factor] != first[factor]]
        if _outside(base, changed) != _outside(other, changed) or len(other) != len(base):
            raise UsageError(
                f"twins of one length, alike elsewhere, for {scenario.name}, {persona.id}, {form}",
                f"another length, or another token elsewhere, for {condition}",
                "run scripts/fill_twins.py",
            )


def _outside(row: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens that are in none of the stretches."""
    inside = {place for span in spans for place in range(*span)}
    return [token for place, token in enumerate(row) if place not in inside]
