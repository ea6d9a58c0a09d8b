"""The arms of a screen: what is edited, where, and how strongly.

An arm moves some coordinates of a hookpoint's activation from where they are towards their mean
over harmless contexts (`AblateSet`): a set of latents or neurons, or the component along a
direction. At a strength of 1 they have that mean; -1 is the same change the other way round. Sets
of features may be ablated instead: they go to zero.

Each is tried at two places: at every token of the answer, and only where a detector of the decision
fires. The detector (`attribution.detector`) is the same for all arms of a hookpoint, so that what
differs is what is edited. Where the model decides before it has
written anything, the last token of the prompt is what it decides at: then edits act there too, by
the detector alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

from brainscan.attribution import Context, Dense, Ranked
from brainscan.attribution.ranking import is_target
from brainscan.dictionaries import Address, Dictionary
from brainscan.interventions import AblateSet, Direction, Edit, Positions, Probe, Where
from brainscan.interventions.base import BaseEdit
from brainscan.models import Hook, Intervention, LanguageModel
from brainscan.shapes import Float, Tensor

ANSWER, DECISION = "every token of the answer", "where the detector fires"
"""Where an arm's edit acts."""

GENERAL, EXTENDED, NEURONS, DENSE = "features", "features, extended", "neurons", "direction"
RANDOM, REPLACED = "random features", "directions in place of the extension"
PARTS = "parts of a dictionary's sum"
"""Kinds of arms."""

_NEAREST = 20
_FACTOR = 2.0
_TRIES = 50
_MOST_SCALE = 3.0


@dataclass(frozen=True)
class Candidate:
    """What an arm edits, before its strength is chosen."""

    name: str
    """What it is called."""
    kind: str
    """Its kind."""
    where: str
    """`ANSWER` or `DECISION`."""
    size: int
    """How many coordinates it moves."""
    at: Callable[[float], tuple[Intervention, ...]]
    """What it does at a strength."""
    features: tuple[str, ...] = ()
    """The features that it edits, if it is a set of such."""
    ablated: bool = False
    """Whether these go to zero."""

    def edits(self, strength: float) -> tuple[Edit, ...]:
        """Its edits at a strength; moving a dictionary's error is none, and cannot be saved.

        Args:
            strength: how strongly.
        """
        return tuple(one for one in self.at(strength) if isinstance(one, Edit))


@dataclass(frozen=True)
class Material:
    """What arms at a hookpoint are made of: the discovery contexts' activations there."""

    hookpoint: str
    """Where."""
    x: Float[Tensor, "context d"]
    """The activations at the decision."""
    contexts: tuple[Context, ...]
    """The contexts."""
    target: tuple[str, ...]
    """The cell in which harm is done."""
    detector: Probe
    """Fires at the decision."""

    @property
    def early(self) -> bool:
        """Whether the model decides before it has written anything."""
        return any(not one.answered for one in self.contexts)

    @property
    def harmless(self) -> Float[Tensor, "context d"]:
        """The activations of the others."""
        return self.x[~is_target(self.contexts, self.target)]


def feature_sets(
    material: Material,
    ranked: Sequence[Ranked],
    dictionary: Dictionary | None,
    kind: str,
    sizes: Sequence[int],
    ablated: bool = False,
) -> list[Candidate]:
    """Sets of the features that matter most, of each size, at both places.

    Args:
        material: what the means are taken over.
        ranked: the features, those that matter most first.
        dictionary: the latents' dictionary; None for neurons.
        kind: what the arms are called.
        sizes: how many features a set has; larger ones than there are features have all.
        ablated: whether each set comes ablated too.
    """
    found = []
    for size in sorted({min(size, len(ranked)) for size in sizes if ranked}):
        names = tuple(one.address for one in ranked[:size])
        to = torch.tensor([one.harmless for one in ranked[:size]])
        name = f"top {size} {kind}"
        found += _both(material, name, kind, names, to, dictionary, names)
        if ablated:
            sets = _both(material, f"{name}, ablated", kind, names, to * 0, dictionary, names)
            found += [replace(one, ablated=True) for one in sets]
    return found


def dense_arms(material: Material, found: Sequence[Dense]) -> list[Candidate]:
    """An arm for each direction, at both places.

    Args:
        material: what the means are taken over.
        found: the directions.
    """
    arms = []
    for dense in found:
        to = torch.tensor([dense.harmless])
        arms += _both(material, dense.kind, DENSE, (dense.direction,), to, None)
    return arms


def subspace_arms(
    material: Material,
    rows: Float[Tensor, "n d"],
    name: str,
    kind: str = REPLACED,
) -> list[Candidate]:
    """An arm that moves the components along several vectors.

    Args:
        material: what the means are taken over.
        rows: the vectors.
        name: what they are.
        kind: the arm's kind.
    """
    directions = tuple(
        Direction(material.hookpoint, row, name=f"{name} {n}") for n, row in enumerate(rows)
    )
    to = material.harmless.mean(0) @ F.normalize(rows.float(), dim=1).T
    return _both(material, name, kind, directions, to.cpu(), None)


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorMoved(BaseEdit):
    """Moves what a dictionary leaves unexplained towards a vector; its reconstruction stays."""

    dictionary: Dictionary
    """The dictionary."""
    to: Float[Tensor, " d"]
    """Where the error goes: to zero, so that the reconstruction is left alone, or to a mean."""
    strength: float = 1.0
    """How far: 0 changes nothing, 1 goes all the way."""

    def attach(self, lm: LanguageModel) -> Sequence[tuple[str, Hook]]:
        """The hooks that make the edit on this model."""

        def change(x: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
            error = x - self.dictionary.reconstruct(x).to(x)
            return x + self.strength * (self.to.to(x) - error)

        return self._place(lm, self.dictionary.hookpoint, change)


def part_arms(material: Material, dictionary: Dictionary, kind: str) -> list[Candidate]:
    """The dictionary's reconstruction alone, and its error alone moved to its harmless mean.

    What the first takes away lies in the error; what the second does, no feature can do.

    Args:
        material: what the mean is taken over.
        dictionary: the dictionary.
        kind: what arms of its features are called.
    """
    x = material.harmless.float()
    error = (x - dictionary.reconstruct(x)).mean(0)
    found = []
    for name, to in ((f"{kind}: the sum alone", error * 0), (f"{kind}: the error alone", error)):
        for where in (DECISION,) if material.early else (ANSWER, DECISION):
            at = partial(_moved, dictionary, to, _positions(material, where))
            found.append(Candidate(f"{name}, {where}", PARTS, where, len(to), at))
    return found


def _moved(
    dictionary: Dictionary, to: Float[Tensor, " d"], positions: Positions, strength: float
) -> tuple[ErrorMoved, ...]:
    moved = ErrorMoved(dictionary=dictionary, to=to, strength=strength, positions=positions)
    return (moved,)


def random_sets(
    material: Material, chosen: Candidate, dictionary: Dictionary | None, n: int, seed: int
) -> list[Candidate]:
    """Different sets of random features that match a set in size, activity and change of norm.

    Each of the set's features is stood for by another whose mean activation over the contexts is
    within a factor of 2 of its own, or among the nearest: as many as it takes to draw n different
    sets. Where fewer than twice as many others are active as the set has, its own features may be
    drawn too, though never all of them: random sets are then the better for it. A set's strength is
    the one at which the mean change of norm at the target's decisions is the chosen set's at
    strength 1; sets that would need more than 3 times their own are drawn anew.

    Args:
        material: the contexts' activations.
        chosen: the set to match.
        dictionary: the latents' dictionary; None for neurons.
        n: how many sets; fewer come back where there are not so many that match.
        seed: chooses.
    """
    code = material.x
    if dictionary is not None:
        code = dictionary.dense(dictionary.encode(material.x)).float()
    harm = is_target(material.contexts, material.target).to(code.device)
    own = [Address.parse(name).index for name in chosen.features]
    activity, to = code.abs().mean(0), code[~harm].mean(0) * (not chosen.ablated)

    def norm(features: Sequence[int]) -> float:
        index = torch.tensor(features, device=code.device)
        moved = to[index] - code[harm][:, index]
        if dictionary is not None:
            moved = moved @ dictionary.W_dec.float()[index]
        return float(moved.norm(dim=-1).mean())

    wanted, draw = norm(own), random.Random(seed)
    pools = _pools(activity, own, max(_NEAREST, 2 * (n if len(own) == 1 else len(own))))
    sets: dict[frozenset[int], Candidate] = {}
    for _ in range(_TRIES * n):
        drawn = _distinct(pools, draw)
        each = norm(drawn) if len(drawn) == len(own) else 0.0
        known = frozenset(drawn) in (*sets, frozenset(own))
        if len(sets) == n or not each or wanted > _MOST_SCALE * each or known:
            continue
        names = tuple(str(Address(material.hookpoint, index)) for index in drawn)
        at = partial(_random, material, chosen, dictionary, names, to[drawn].cpu(), wanted / each)
        name = f"random set {len(sets) + 1}"
        sets[frozenset(drawn)] = Candidate(name, RANDOM, chosen.where, len(names), at, names)
    return list(sets.values())


def _random(
    material: Material,
    chosen: Candidate,
    dictionary: Dictionary | None,
    names: tuple[str, ...],
    to: Float[Tensor, " target"],
    scale: float,
    strength: float,
) -> tuple[Edit, ...]:
    """A random set's edit, as far in norm as the chosen set's at that strength."""
    return (_edit(material, chosen.where, names, to, dictionary, strength * scale),)


def _pools(activity: Float[Tensor, " feature"], own: Sequence[int], least: int) -> list[list[int]]:
    """For each of the own features those that may stand for it, at least so many if there are."""
    active = activity > 0
    without = active.clone()
    without[list(own)] = False
    if int(without.sum()) >= 2 * len(own):
        active = without
    others = active.nonzero()[:, 0]
    pools = []
    for index in own:
        apart = (activity[others].log() - activity[index].clamp_min(1e-6).log()).abs()
        order = apart.argsort()
        near = int((apart <= torch.tensor(_FACTOR).log()).sum())
        pools.append(others[order[: max(near, least)]].tolist())
    return pools


def _distinct(pools: Sequence[Sequence[int]], draw: random.Random) -> list[int]:
    """One of each pool, none twice; fewer where a pool has no other left."""
    taken: dict[int, None] = {}
    for pool in pools:
        free = [index for index in pool if index not in taken]
        if free:
            taken[draw.choice(free)] = None
    return list(taken)


def _both(
    material: Material,
    name: str,
    kind: str,
    targets: tuple[str | Direction, ...],
    to: Float[Tensor, " target"],
    dictionary: Dictionary | None,
    features: tuple[str, ...] = (),
) -> list[Candidate]:
    """The arm at both places."""

    def arm(where: str) -> Candidate:
        def at(strength: float) -> tuple[Edit, ...]:
            return (_edit(material, where, targets, to, dictionary, strength),)

        return Candidate(f"{name}, {where}", kind, where, len(targets), at, features)

    return [arm(DECISION)] if material.early else [arm(ANSWER), arm(DECISION)]


def _edit(
    material: Material,
    where: str,
    targets: tuple[str | Direction, ...],
    to: Float[Tensor, " target"],
    dictionary: Dictionary | None,
    strength: float,
) -> AblateSet:
    positions = _positions(material, where)
    return AblateSet(targets, to, strength, positions=positions, dictionary=dictionary)


def _positions(material: Material, where: str) -> Positions:
    """The tokens that arms act on."""
    within: Literal["all", "response"] = "all" if material.early else "response"
    return "response" if where == ANSWER else Where(material.detector, 0.0, within=within)
