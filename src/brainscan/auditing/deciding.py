"""From frozen arms to verdicts."""

from __future__ import annotations

from dataclasses import replace

from brainscan.attribution import Ranked
from brainscan.auditing import verdicts
from brainscan.auditing.arms import feature_sets
from brainscan.auditing.confirm import (
    FEATURES,
    FLIPPED,
    SIMPLER,
    TOLD,
    UNTOUCHED,
    confirm,
    freeze,
    with_costs,
)
from brainscan.auditing.explain import explain
from brainscan.auditing.locating import Located, spread
from brainscan.auditing.pairing import harm_change
from brainscan.auditing.results import (
    NOT_SUPPORTED,
    AuditReport,
    Explained,
    FeatureFound,
    Verdict,
)
from brainscan.auditing.room import Room
from brainscan.auditing.screen import Screened
from brainscan.auditing.trying import Tried
from brainscan.dictionaries import Address
from brainscan.features.label import promotes
from brainscan.features.outputs import has_outputs, outputs
from brainscan.models import LanguageModel

_SHOWN = 12
_PROMOTED = 5


def decide(
    room: Room, plain: AuditReport, located: Located, tried: Tried, base: LanguageModel | None
) -> AuditReport:
    """Freezes arms, lets them answer, measures costs, and judges.

    Args:
        room: the audit.
        plain: the report so far.
        located: where the model decides.
        tried: what was ranked and screened.
        base: the model without its adapter.
    """
    arms = freeze(tried.features, tried.other, tried.simpler, room.design, base=base is not None)
    room.tell(f"frozen: {', '.join(one.name for one in arms)}")
    target = plain.behaviour[0].target
    chosen = spread(tried.random, room.config.random_arms)
    answered, random_arms = confirm(
        room.lm, base, room.design, target, arms, chosen, room.config, room.folder
    )
    room.tell("measuring what they cost")
    costed = with_costs(room.lm, answered, arms, room.config, room.folder, room.kept)
    explained = _explained(room, located, tried)
    report = replace(
        plain,
        decision=located.decision,
        words=located.words,
        location=located.location,
        hookpoint=located.hookpoint,
        dense=tried.dense,
        screened=tried.screened,
        null=tried.null,
        arms=tuple(costed),
        random_arms=tuple(random_arms),
        explained=tuple(explained),
        features=tuple(_features(room, tried)),
    )
    return replace(report, verdicts=tuple(_verdicts(report, tried)))


def _verdicts(report: AuditReport, tried: Tried) -> list[Verdict]:
    by_name = {arm.name: arm for arm in report.arms}
    untouched = by_name[UNTOUCHED]
    found = [verdicts.behaves(report.behaviour[-1], untouched)]
    features, simpler = by_name.get(FEATURES), by_name.get(SIMPLER)
    if simpler is not None:
        what = (
            f"Moving one direction ({simpler.screened.candidate.name if simpler.screened else ''})"
        )
        found.append(verdicts.prevents(simpler, untouched, what))
    if features is not None and features.screened is not None:
        own = features.screened.candidate
        prevents = verdicts.prevents(features, untouched, f"Moving {own.size} features")
        kind = tried.dictionaries.get(own.kind)
        explained = next((e for e in report.explained if kind and e.dictionary == kind.name), None)
        found.append(prevents)
        found.append(verdicts.carries(prevents, report.null, by_name.get(FLIPPED), explained))
        found.append(verdicts.costs_nothing(features, "That edit of features"))
        if simpler is not None:
            change = harm_change(simpler.answers, features.answers)
            compared = verdicts.beats(features, simpler, change.difference, change.chance)
            place = 0 if compared.status == NOT_SUPPORTED else len(found)
            found.insert(place, compared)
    told = by_name.get(TOLD)
    if told is not None:
        found.append(verdicts.prevents(told, untouched, "Telling the model not to"))
    return found


def _explained(room: Room, located: Located, tried: Tried) -> list[Explained]:
    pairs = spread(located.decision.pairs, 2 * room.config.pairs)
    chosen = tried.features
    found = []
    for kind, dictionary in tried.dictionaries.items():
        own = chosen.candidate.features if chosen and chosen.candidate.kind == kind else ()
        found.append(explain(room.lm, pairs, dictionary, own, tried.sample))
    return found


def _features(room: Room, tried: Tried) -> list[FeatureFound]:
    """The chosen set's features, with what each does alone."""
    chosen = tried.features
    if chosen is None:
        return []
    kind = chosen.candidate.kind
    first = tried.ranked[kind][: min(chosen.candidate.size, _SHOWN)]
    return [_feature(room, tried, chosen, ranked) for ranked in first]


def _feature(room: Room, tried: Tried, chosen: Screened, ranked: Ranked) -> FeatureFound:
    kind, where = chosen.candidate.kind, chosen.candidate.where
    dictionary, trial = tried.dictionaries.get(kind), tried.trials[kind]
    alone = next(
        one
        for one in feature_sets(trial.material, [ranked], dictionary, kind, [1])
        if one.where == where
    )
    key = f"share of {ranked.address} alone, {where} x{chosen.strength:g}"
    effect = room.kept.estimate(
        key, lambda: trial.bench.shares(where, alone.at(chosen.strength))[0]
    )
    promoted: tuple[str, ...] = ()
    rate = float("nan")
    if dictionary is not None:
        index = Address.parse(ranked.address).index
        rate = float(dictionary.firing_rate[index])
        if has_outputs(room.lm, dictionary):
            best = outputs(room.lm, dictionary, _PROMOTED, [index]).promoted[0].tolist()
            promoted = tuple(room.lm.token_strings(best))
    return FeatureFound(ranked, promotes(promoted), "U", effect, rate, promoted)
