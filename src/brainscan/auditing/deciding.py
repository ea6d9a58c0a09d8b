"""From frozen arms to verdicts."""

from __future__ import annotations

from dataclasses import replace

from brainscan.attribution import decision_contexts
from brainscan.auditing import verdicts
from brainscan.auditing.arms import NEURONS, Candidate
from brainscan.auditing.confirm import (
    FEATURES,
    FLIPPED,
    SIMPLER,
    TOLD,
    UNTOUCHED,
    Frozen,
    confirm,
    freeze,
    with_costs,
)
from brainscan.auditing.describing import features_of, strip_of
from brainscan.auditing.elsewhere import elsewhere
from brainscan.auditing.explain import explain, explain_neurons
from brainscan.auditing.findings import Explained, Null
from brainscan.auditing.locating import Located, pairs_of, spread
from brainscan.auditing.measure import Measured, answer_of
from brainscan.auditing.pairing import harm_change
from brainscan.auditing.results import AuditReport, FrozenArm, Verdict
from brainscan.auditing.room import Room
from brainscan.auditing.trials import bench_of
from brainscan.auditing.trying import Tried
from brainscan.models import LanguageModel
from brainscan.progress import progress


def decide(
    room: Room,
    plain: AuditReport,
    located: Located,
    selection: Measured,
    tried: Tried,
    base: LanguageModel | None,
) -> AuditReport:
    """Freezes arms, lets them answer, measures costs, and judges.

    Args:
        room: the audit.
        plain: the report so far.
        located: where the model decides.
        selection: the answers on selection wordings.
        tried: what was ranked and screened.
        base: the model without its adapter.
    """
    arms = freeze(tried.features, tried.other, tried.simpler, room.design, base=base is not None)
    room.tell(f"frozen: {', '.join(one.name for one in arms)}")
    strength = tried.features.strength if tried.features else 0.0
    drawn = [
        Frozen(one.name, one.kind, one, strength)
        for one in spread(tried.random, room.config.random_arms)
    ]
    answered, random_arms = confirm(room, base, plain.behaviour[0].target, arms, drawn)
    null = _null(room, located, tried, answered[0], plain.behaviour[0].target)
    room.tell("measuring what they cost")
    costed = with_costs(room, answered, arms)
    room.tell("looking at what else they move")
    own = [one for one in arms if one.name in (FEATURES, SIMPLER)]
    moved = elsewhere(room, plain.behaviour[-1], own)
    costed = [replace(arm, elsewhere=moved.get(arm.name, ())) for arm in costed]
    report = replace(
        plain,
        decision=located.decision,
        words=located.words,
        location=located.location,
        hookpoint=located.hookpoint,
        predictors=tried.predictors,
        screened=tried.screened,
        null=null,
        arms=tuple(costed),
        random_arms=tuple(random_arms),
        explained=tuple(_explained(room, located, selection, tried)),
        features=tuple(features_of(room, tried)),
        strip=strip_of(room, tried, located.decision, answered[0]),
        outputs=tried.outputs,
    )
    return replace(report, verdicts=tuple(_verdicts(report, tried)))


def _verdicts(report: AuditReport, tried: Tried) -> list[Verdict]:
    by_name = {arm.name: arm for arm in report.arms}
    untouched, features = by_name[UNTOUCHED], by_name.get(FEATURES)
    found = [verdicts.behaves(report.behaviour[-1], untouched)]
    simpler: list[tuple[FrozenArm, Verdict, str]] = []
    direct = by_name.get(SIMPLER)
    if direct is not None and direct.candidate is not None:
        name = f"one direction ({direct.candidate.name})"
        simpler.append((direct, verdicts.prevents(direct, untouched, f"Moving {name}"), name))
        what = "That edit of a direction"
        found += [
            simpler[0][1],
            verdicts.costs_nothing(direct, what),
            verdicts.spares(direct, what),
        ]
    if TOLD in by_name:
        name, told = "telling the model not to", by_name[TOLD]
        said = verdicts.prevents(told, untouched, name.capitalize())
        simpler.append((told, said, name))
    if features is not None and features.candidate is not None:
        own = features.candidate
        many = "one feature" if own.size == 1 else f"{own.size} features"
        prevents = verdicts.prevents(features, untouched, f"Moving {many}")
        dictionary = tried.dictionaries.get(own.kind)
        name = dictionary.name if dictionary else tried.trials[own.kind].material.hookpoint
        explained = next((one for one in report.explained if one.dictionary == name), None)
        found += [
            prevents,
            verdicts.carries(prevents, report.null, by_name.get(FLIPPED), explained),
            verdicts.costs_nothing(features, "That edit of features"),
            verdicts.spares(features, "That edit of features"),
        ]
        for arm, prevented, name in reversed(simpler):
            change = harm_change(arm.answers, features.answers)
            compared = verdicts.beats(features, arm, change, prevents, prevented, name)
            found.insert(0 if change.difference.value <= 0 else len(found), compared)
    return [*found, *(said for arm, said, _ in simpler if arm.name == TOLD)]


def _null(
    room: Room,
    located: Located,
    tried: Tried,
    untouched: FrozenArm,
    target: tuple[str, ...],
) -> Null | None:
    """The best features among random sets, by the log-odds of confirmation answers."""
    features = tried.features
    if features is None or not tried.random or not located.decision.shared:
        return None
    answers = [answer_of(one) for one in spread(untouched.answers, room.config.selection)]
    contexts = decision_contexts(located.decision, answers)
    if not contexts:
        return None
    own = features.candidate
    trial = tried.trials[own.kind].bench
    bench = bench_of(room, contexts, trial.states[own.where].hookpoint, target)
    gap = trial.gap(own.where)

    def share(candidate: Candidate) -> float:
        def measure() -> float:
            edits = candidate.at(features.strength)
            gone = bench.odds(own.where) - bench.odds(own.where, edits)
            return float(gone.mean()) / gap

        key = f"confirmation share of {candidate.name} for {own.name} x{features.strength:g}"
        return float(room.kept(key, measure))

    values = []
    with progress("random sets", len(tried.random), "sets") as advance:
        for one in tried.random:
            values.append(share(one))
            advance(1)
    null = Null(own.name, share(own), tuple(values))
    room.tell(f"{own.name}: rank {null.rank} of {len(values) + 1} among random sets")
    return null


def _explained(room: Room, located: Located, selection: Measured, tried: Tried) -> list[Explained]:
    """What dictionaries and the layer's neurons restore of the decision, on selection wordings."""
    pairs = spread(pairs_of(room, located.decision, selection), 2 * room.config.pairs)
    chosen = tried.features
    found = []
    for kind, dictionary in tried.dictionaries.items() if pairs else ():
        own = chosen.candidate.features if chosen and chosen.candidate.kind == kind else ()
        found.append(explain(room.lm, pairs, dictionary, own, tried.sample))
    if pairs and NEURONS in tried.trials:
        own = chosen.candidate.features if chosen and chosen.candidate.kind == NEURONS else ()
        hookpoint = tried.trials[NEURONS].material.hookpoint
        found.append(explain_neurons(room.lm, pairs, hookpoint, own))
    return found
