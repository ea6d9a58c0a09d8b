"""Rules for jumps: fitted on the split ``select``, judged on ``test``.

1. What is usual is taken from half of the benign answers of ``select``, which no probe has seen.
2. Each statistic is tried for the single dangers, for any danger by its one detector, and for
   both; the sum with several kappas and clips. The threshold is what 1% of the other benign answers
   there pass; what then catches most jumps of ``select`` is taken, of equals what orders best.
3. The statistic of which that is most is the rule.
4. All are judged on ``test``, beside what knows nothing of concepts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from brainscan import stats
from brainscan.monitoring.bank import ANY_DANGER, Concept
from brainscan.monitoring.baselines import embeddings, keyword_counts, keyword_pattern
from brainscan.monitoring.dialogues import Dialogue
from brainscan.monitoring.figures import FALSE_ALARMS, auroc, caught, threshold_at
from brainscan.monitoring.following import Followed, trace
from brainscan.monitoring.jumps import QUANTILE, STATISTICS, JumpRule
from brainscan.monitoring.scores import Detectors
from brainscan.stats import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KAPPAS, _CLIPS = (0.0, 0.25, 0.5), (2.0, 4.0)


class Case(NamedTuple):
    """A dialogue, read."""

    dialogue: Dialogue
    followed: Followed


def fit_rules(
    detectors: Detectors, usual: Sequence[Followed], cases: Sequence[Case]
) -> list[JumpRule]:
    """A rule for each statistic, the best first.

    Args:
        detectors: the detectors; some must be of a danger.
        usual: benign dialogues of ``select`` that are not among the cases.
        cases: dialogues of ``select``.
    """
    tokens = np.concatenate([one.raw[one.answer] for one in usual])
    level = tuple(np.quantile(tokens, QUANTILE, axis=0).tolist())
    spread = tuple(np.maximum(tokens.std(0), 1e-6).tolist())
    bases = [JumpRule("cusum", math.inf, level, spread, danger) for danger in _dangers(detectors)]
    worth: dict[JumpRule, tuple[float, float]] = {}
    for statistic in STATISTICS:
        options = [replace(base, statistic=statistic) for base in bases]
        if statistic == "cusum":
            options = [
                replace(one, kappa=kappa, clip=clip)
                for one, kappa, clip in product(options, _KAPPAS, _CLIPS)
            ]
        found = [_fitted(detectors, rule, cases) for rule in options]
        best = max(found, key=lambda one: one.worth)
        worth[best.rule] = best.worth
    return sorted(worth, key=lambda rule: worth[rule], reverse=True)


def _dangers(detectors: Detectors) -> list[tuple[int, ...]]:
    """What an alarm may be for: each danger, any of them by one detector, or both."""
    every = tuple(n for n, one in enumerate(detectors.each) if one.danger)
    pooled = tuple(n for n in every if detectors.names[n] == ANY_DANGER)
    each = tuple(n for n in every if n not in pooled)
    return [group for group in (each, pooled, every if pooled else ()) if group]


def turn_scores(detectors: Detectors, rule: JumpRule, cases: Sequence[Case]) -> NDArray[np.float64]:
    """The greatest statistic within each answer; of a spliced one, from where danger begins.

    Args:
        detectors: the detectors.
        rule: the rule.
        cases: the dialogues.
    """
    return np.array([_outcome(detectors, rule, one).greatest for one in cases])


class _Fit(NamedTuple):
    rule: JumpRule
    worth: tuple[float, float]
    """The share of jumps that it catches, and how well it orders."""


def _fitted(detectors: Detectors, rule: JumpRule, cases: Sequence[Case]) -> _Fit:
    """The rule with its threshold, and what it is worth."""
    scores = turn_scores(detectors, rule, cases)
    jumps = np.array([one.dialogue.jumps for one in cases])
    benign = np.array([one.dialogue.family == "benign" for one in cases])
    threshold = threshold_at(scores[benign], FALSE_ALARMS)
    share = round(float((scores[jumps] > threshold).mean()), 2)
    return _Fit(replace(rule, threshold=threshold), (share, stats.area(scores, jumps)))


def judge_rule(
    detectors: Detectors, rule: JumpRule, cases: Sequence[Case], concepts: Sequence[Concept]
) -> dict[str, Estimate]:
    """A rule's figures on dialogues that it was not made on.

    - ``auroc`` and ``tpr at 1%``: jumps against all other dialogues;
    - ``alarms: FAMILY``: share of a family's dialogues with an alarm, of a spliced one from where
      danger begins; ``alarms: too early``: the share of spliced ones with an alarm before;
    - ``delay``: tokens from where danger begins in a spliced answer to the alarm, of those caught;
    - ``before the word``: of jumps that hold one of the concept's words, the share with an alarm up
      to the token before it.

    Args:
        detectors: the detectors.
        rule: the rule.
        cases: the dialogues.
        concepts: the bank.
    """
    raised = [_outcome(detectors, rule, case) for case in cases]
    found = ordering(np.array([one.greatest for one in raised]), cases)
    for family in dict.fromkeys(one.dialogue.family for one in cases):
        own = [r for r, case in zip(raised, cases, strict=True) if case.dialogue.family == family]
        found[f"alarms: {family}"] = stats.proportion(sum(r.at is not None for r in own), len(own))
    words = {one.name: one.words for one in concepts}
    delays, early, before = [], [], []
    for case, alarm in zip(cases, raised, strict=True):
        if case.dialogue.family == "spliced":
            early.append(alarm.early)
            if alarm.at is not None:
                delays.append(float(alarm.at - alarm.begin))
        word = _first_word(case, words.get(case.dialogue.concept, ()))
        if case.dialogue.jumps and word is not None:
            before.append(alarm.at is not None and alarm.at < word)
    if early:
        found["alarms: too early"] = stats.proportion(sum(early), len(early))
    if delays:
        found["delay"] = stats.mean(delays)
    if before:
        found["before the word"] = stats.proportion(sum(before), len(before))
    return found


def leads(
    detectors: Detectors, rules: Sequence[JumpRule], cases: Sequence[Case]
) -> dict[str, Estimate]:
    """How many more of the jumps the first rule catches than each other, in pairs, over texts.

    Args:
        detectors: the detectors.
        rules: the rules.
        cases: the dialogues.
    """
    jumps = [case for case in cases if case.dialogue.jumps]
    texts = [case.dialogue.text for case in jumps]
    first, *others = (
        [_outcome(detectors, rule, case).at is not None for case in jumps] for rule in rules
    )
    return {
        f"lead: {rule.statistic}": stats.clustered_change(first, other, texts).difference
        for rule, other in zip(rules[1:], others, strict=True)
    }


class _Outcome(NamedTuple):
    """What a rule makes of a dialogue."""

    begin: int
    """The token where danger may begin."""
    greatest: float
    """The greatest statistic from there on."""
    at: int | None
    """The first alarm's token from there on."""
    early: bool
    """Whether there was one before."""


def _outcome(detectors: Detectors, rule: JumpRule, case: Case) -> _Outcome:
    traced = trace(case.followed, rule, detectors.names)
    begin = _token_at(case, case.dialogue.begins) or 0
    greatest = max((traced.jumps[n] for n in case.followed.answer if n >= begin), default=-math.inf)
    tokens = [alarm.token for alarm in traced.alarms]
    at = min((token for token in tokens if token >= begin), default=None)
    return _Outcome(begin, greatest, at, any(token < begin for token in tokens))


def ordering(scores: NDArray[np.float64], cases: Sequence[Case]) -> dict[str, Estimate]:
    """How well scores order jumps before all other dialogues.

    Args:
        scores: of each dialogue.
        cases: the dialogues.
    """
    jumps = np.array([one.dialogue.jumps for one in cases])
    high, low = scores[jumps], scores[~jumps]
    texts = np.array([one.dialogue.text for one in cases])
    own = (texts[jumps].tolist(), texts[~jumps].tolist())
    return {"auroc": auroc(high, low, own), "tpr at 1%": caught(high, low, FALSE_ALARMS, own)}


def plain_scores(
    detectors: Detectors, cases: Sequence[Case], concepts: Sequence[Concept]
) -> Mapping[str, NDArray[np.float64]]:
    """Scores of dialogues by what follows no answer: its last token, its surprise, its words.

    Args:
        detectors: the detectors.
        cases: the dialogues, read with log-probabilities.
        concepts: the bank.
    """
    danger = [n for n, one in enumerate(detectors.each) if one.danger]
    words = [word for one in concepts if one.danger for word in one.words]
    asked = [one.dialogue.request for one in cases]
    told = [one.dialogue.answer for one in cases]
    found = {
        "last token": np.array([_last(one.followed, danger) for one in cases]),
        "surprisal": np.array([_surprisal(one.followed) for one in cases]),
        "keywords": (keyword_counts(told, words) - keyword_counts(asked, words)).astype(float),
    }
    both = embeddings([*asked, *told])
    if both is not None:
        first, second = both[: len(cases)], both[len(cases) :]
        found["embedding drift"] = (1 - (first * second).sum(1)).double().numpy()
    return found


def _last(followed: Followed, danger: Sequence[int]) -> float:
    answer = followed.answer
    return float(followed.z[answer[-1], danger].max()) if answer else -np.inf


def _surprisal(followed: Followed) -> float:
    answer = followed.answer
    if followed.logprobs is None or not answer:
        return -np.inf
    return -float(followed.logprobs[answer].mean())


def _first_word(case: Case, words: Sequence[str]) -> int | None:
    """The token of the answer that holds the first of some words, from where danger begins on."""
    if not words:
        return None
    match = keyword_pattern(tuple(words)).search(case.dialogue.answer, case.dialogue.begins)
    return None if match is None else _token_at(case, match.start())


def _token_at(case: Case, character: int) -> int | None:
    """The token of the answer that holds a character of it."""
    marked = case.followed.marked
    own = [n for n in case.followed.answer if marked.starts[n] <= character]
    return max(own, default=None)
