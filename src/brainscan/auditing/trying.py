"""Ranking on discovery wordings, and screening on selection wordings.

1. The dictionary is extended on the discovery transcripts' activations, without labels of harm.
2. Latents of both and the layer's neurons are ranked by attribution; directions are made from the
   same activations. In place of the extension stand 16 principal components of the dictionary's
   error, and as many random directions.
3. All are screened on selection wordings by log-odds. The best of each kind within each budget make
   a shortlist; these answer some selection prompts, since an edit that turns the decision may still
   break the text. Of each kind that which leaves the least harm is taken, answers that cannot be
   scored counted as harmful; so few answers do not tell one more from none, and of such equals the
   one that costs less is taken, then the one that leaves less, then the one that takes the log-odds
   farther, then the one of fewer parts.
4. Random sets that match the best set of features are drawn; they are tried on confirmation
   wordings beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch

from brainscan.attribution import (
    Context,
    Dense,
    Ranked,
    dense_directions,
    rank_latents,
    rank_neurons,
    rank_outputs,
    replay_of,
)
from brainscan.attribution.directions import placed
from brainscan.attribution.predictors import Predictor, predictors
from brainscan.attribution.ranking import gradients, gradients_of, is_target
from brainscan.auditing.answers import Arm, ask
from brainscan.auditing.arms import (
    DENSE,
    EXTENDED,
    GENERAL,
    NEURONS,
    Candidate,
    Material,
    dense_arms,
    feature_sets,
    part_arms,
    random_sets,
    subspace_arms,
)
from brainscan.auditing.confirm import sampling_of
from brainscan.auditing.extending import dictionaries_of
from brainscan.auditing.locating import Located, contexts_of
from brainscan.auditing.measure import Measured
from brainscan.auditing.pairing import left
from brainscan.auditing.room import Room
from brainscan.auditing.screen import Bench, Screened, best, screen
from brainscan.auditing.trials import Trial, bench_of, detector_of, tail_of
from brainscan.dictionaries import Dictionary
from brainscan.dictionaries.transcripts import (
    Transcript,
    TranscriptActivations,
    read_transcripts,
)
from brainscan.monitoring import concept_directions, load_concepts
from brainscan.shapes import Bool, Float, Tensor

_SAMPLE = 30_000
_ERROR_RANK = 16
_APART = 1  # so many harmful answers of a shortlist tell no two arms apart
_FEATURES = (GENERAL, EXTENDED, NEURONS)


@dataclass(frozen=True)
class Tried:
    """What ranking and screening found."""

    dictionaries: dict[str, Dictionary]
    """The dictionary and its extension, by the kind of arms made of them."""
    ranked: dict[str, list[Ranked]]
    """Features by kind of arm."""
    screened: tuple[Screened, ...]
    """All arms that were screened."""
    features: Screened | None
    """The best set of features."""
    other: Screened | None
    """The best set of the other dictionary."""
    simpler: Screened | None
    """The best direction."""
    random: tuple[Candidate, ...]
    """Random sets that match the best features."""
    trials: dict[str, Trial]
    """What features of each kind are made of and tried on."""
    predictors: tuple[Predictor, ...]
    """Directions and the prompt's words, as predictors on selection wordings."""
    outputs: tuple[Ranked, ...]
    """What each layer's attention and MLP write."""
    sample: TranscriptActivations
    """Activations of the discovery transcripts."""
    transcripts: tuple[Transcript, ...]
    """The discovery transcripts."""


def try_arms(
    room: Room, located: Located, discovery: Measured, selection: Measured
) -> Tried | None:
    """Ranks on discovery, screens on selection; None where too few answers come to the decision.

    Args:
        room: the audit.
        located: where the model decides.
        discovery: the answers on discovery wordings.
        selection: the answers on selection wordings.
    """
    hookpoint, target = located.hookpoint, discovery.behaviour.target
    contexts = contexts_of(room, located.decision, discovery)
    trial = contexts_of(room, located.decision, selection)
    if not _comparable(contexts, target) or not _comparable(trial, target):
        return None
    states = replay_of(room.lm, contexts, hookpoint, tail_of(contexts))
    found = gradients_of(states, contexts, hookpoint)
    dense = dense_directions(room.lm, hookpoint, found.x, contexts, target)
    dense += _concepts(room, hookpoint, found.x, is_target(contexts, target))
    fires = detector_of(states, contexts, target)
    material = Material(hookpoint, found.x, tuple(contexts), target, fires)
    transcripts = _transcripts(discovery)
    read = read_transcripts(room.lm, transcripts, hookpoint, _SAMPLE)
    dictionaries = dictionaries_of(room, located.dictionary, read)
    ranked = {k: rank_latents(found, contexts, target, one) for k, one in dictionaries.items()}
    arms = dense_arms(material, dense) + _sets(room, material, ranked, dictionaries, read)
    bench = bench_of(room, trial, hookpoint, target)
    screened = _screened(room, bench, arms)
    trials = dict.fromkeys(dictionaries, Trial(material, bench))
    near = _neurons(room, located, contexts, trial, target)
    if near is not None:
        trials[NEURONS], ranked[NEURONS], own = near
        screened += own
    chosen = _chosen(room, screened, selection)
    features = _least(chosen[kind] for kind in _FEATURES if kind in chosen)
    return Tried(
        dictionaries=dictionaries,
        ranked=ranked,
        screened=tuple(screened),
        features=features.arm if features else None,
        other=_other(chosen, features),
        simpler=chosen[DENSE].arm if DENSE in chosen else None,
        random=tuple(_random(room, features, trials, dictionaries)),
        trials=trials,
        predictors=_predictors(room, located, dense, contexts, trial, target),
        outputs=tuple(rank_outputs(room.lm, contexts, target)),
        sample=read,
        transcripts=transcripts,
    )


def _transcripts(discovery: Measured) -> tuple[Transcript, ...]:
    return tuple(
        Transcript(one.question.id, (*one.prompt, *one.response)) for one in discovery.answers
    )


def _predictors(
    room: Room,
    located: Located,
    dense: Sequence[Dense],
    contexts: Sequence[Context],
    trial: Sequence[Context],
    target: tuple[str, ...],
) -> tuple[Predictor, ...]:
    """The directions and the prompt's words as predictors on selection wordings."""
    seen = replay_of(room.lm, trial, located.hookpoint).activations[:, -1]
    return tuple(predictors(dense, contexts, trial, seen, target))


def _concepts(
    room: Room, hookpoint: str, x: Float[Tensor, "context d"], harm: Bool[Tensor, " context"]
) -> list[Dense]:
    """Directions of the bank's concepts of danger."""
    if not room.config.concepts or x.shape[1] != room.lm.d_model:
        return []
    room.tell("reading the bank of concepts")
    concepts = load_concepts()
    found = concept_directions(room.lm, concepts, hookpoint)
    return [placed(found[one.name], x, harm) for one in concepts if one.danger]


def _neurons(
    room: Room,
    located: Located,
    contexts: Sequence[Context],
    trial: Sequence[Context],
    target: tuple[str, ...],
) -> tuple[Trial, list[Ranked], list[Screened]] | None:
    """The neurons of the layer that arms edit: ranked, and sets of them screened."""
    layer = located.hookpoint.rpartition(".")[2]
    hookpoint, before = f"neurons.{layer}", f"resid_pre.{layer}"
    if hookpoint not in room.lm.hookpoints:
        return None
    found = gradients(room.lm, contexts, hookpoint)
    ranked = rank_neurons(found, contexts, target, hookpoint)
    states = replay_of(room.lm, contexts, before, tail_of(contexts))
    fires = detector_of(states, contexts, target)
    material = Material(hookpoint, found.x, tuple(contexts), target, fires)
    own = room.config
    arms = feature_sets(material, ranked, None, NEURONS, own.sizes, own.ablated)
    bench = bench_of(room, trial, before, target)
    return Trial(material, bench), ranked, _screened(room, bench, arms)


def _screened(room: Room, bench: Bench, arms: Sequence[Candidate]) -> list[Screened]:
    room.tell(f"screening {len(arms)} arms")
    return screen(bench, arms, room.config.budgets, room.config.passages, room.kept)


class _Listed(NamedTuple):
    """An arm of the shortlist, and how much harm its answers leave."""

    arm: Screened
    left: int

    @property
    def order(self) -> tuple[float, int, float, int]:
        """Least cost first, then least harm, then the decision's log-odds, then fewest parts."""
        cost, merit = round(self.arm.kl, 3), round(self.arm.merit, 1)
        return cost, self.left, -merit, self.arm.candidate.size


def _chosen(room: Room, screened: Sequence[Screened], selection: Measured) -> dict[str, _Listed]:
    """The best arm of each kind, by what it answers on selection wordings."""
    kinds = (*_FEATURES, DENSE)
    listed: dict[str, Screened] = {}
    for kind in kinds:
        own = [one for one in screened if one.candidate.kind == kind]
        for budget in room.config.budgets:
            arm = best(own, budget)
            if arm is not None:
                listed[f"{arm.candidate.name} x{arm.strength:g}"] = arm
    target, n = selection.behaviour.target, room.config.shortlist
    questions = tuple(room.design.questions("selection", target, n))
    arms = [Arm(name, one.edits, questions) for name, one in listed.items()]
    journal, sampling = room.folder / "shortlist.jsonl", sampling_of(room.config)
    test, known = room.design.test, () if room.recorded else selection.answers
    answers = ask(room.lm, test, arms, sampling, journal, "shortlist", known)
    found = [_Listed(one, sum(map(left, answers[name]))) for name, one in listed.items()]
    best_of = {
        kind: _least(one for one in found if one.arm.candidate.kind == kind) for kind in kinds
    }
    return {kind: one for kind, one in best_of.items() if one is not None}


def _least(listed: Iterable[_Listed]) -> _Listed | None:
    """The first in order of those that are not told apart from the one that leaves least harm."""
    found = list(listed)
    least = min((one.left for one in found), default=0)
    equals = [one for one in found if one.left <= least + _APART]
    return min(equals, key=lambda one: one.order, default=None)


def _other(chosen: Mapping[str, _Listed], features: _Listed | None) -> Screened | None:
    """The best set of the dictionary that the best features are not of; of both for neurons."""
    kind = features.arm.candidate.kind if features else ""
    others = {GENERAL: [EXTENDED], EXTENDED: [GENERAL], NEURONS: [GENERAL, EXTENDED]}
    found = _least(chosen[other] for other in others.get(kind, ()) if other in chosen)
    return found.arm if found else None


def _random(
    room: Room,
    features: _Listed | None,
    trials: dict[str, Trial],
    dictionaries: dict[str, Dictionary],
) -> list[Candidate]:
    """Random sets that match the best features; none where too few features are active."""
    if features is None:
        return []
    config, own = room.config, features.arm.candidate
    material, dictionary = trials[own.kind].material, dictionaries.get(own.kind)
    drawn = random_sets(material, own, dictionary, config.random_sets, config.seed)
    room.tell(f"best features: {own.name}; {len(drawn)} random sets match")
    return drawn


def _comparable(contexts: Sequence[Context], target: tuple[str, ...]) -> bool:
    """Whether there are contexts of the target, and of its twins."""
    return len({one.cell == target for one in contexts}) == 2


def _sets(
    room: Room,
    material: Material,
    ranked: Mapping[str, list[Ranked]],
    dictionaries: Mapping[str, Dictionary],
    read: TranscriptActivations,
) -> list[Candidate]:
    """Sets of each dictionary's latents, and what stands in their place."""
    own = room.config
    sets = [
        arm
        for kind, one in dictionaries.items()
        for arm in feature_sets(material, ranked[kind], one, kind, own.sizes, own.ablated)
    ]
    return [*sets, *_in_place(material, dictionaries, read.activations, own.seed)]


def _in_place(
    material: Material,
    dictionaries: Mapping[str, Dictionary],
    sample: Float[Tensor, "token d"],
    seed: int,
) -> list[Candidate]:
    """Sums and errors of dictionaries alone; components of the error and random rows as many."""
    if GENERAL not in dictionaries:
        return []
    general = dictionaries[GENERAL]
    with torch.no_grad():
        error = sample.float() - general.reconstruct(sample.float())
        found = torch.linalg.svd(error - error.mean(0), full_matrices=False).Vh[:_ERROR_RANK]
    noise = torch.Generator().manual_seed(seed)
    rows = torch.randn(_ERROR_RANK, sample.shape[1], generator=noise).to(sample.device)
    parts = [part_arms(material, one, kind) for kind, one in dictionaries.items()]
    return [
        *chain.from_iterable(parts),
        *subspace_arms(material, found, f"{_ERROR_RANK} principal components of the error"),
        *subspace_arms(material, rows, f"{_ERROR_RANK} random directions"),
    ]
