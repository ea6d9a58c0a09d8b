"""What arms are made of and tried on: contexts, a detector of the decision, cached states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from brainscan.attribution import Context, detector, replay_of
from brainscan.attribution.ranking import is_target
from brainscan.auditing.arms import ANSWER, DECISION, Material
from brainscan.auditing.locating import spread
from brainscan.auditing.room import Room
from brainscan.auditing.screen import Bench
from brainscan.interventions import Probe
from brainscan.models.replay import Replay

_TAIL, _NEAR = 128, 24  # last tokens that are seen of edits of the answer, and of the decision
_BEFORE = 4000  # tokens before decisions that a detector is told from


class Trial(NamedTuple):
    """What arms at a hookpoint are made of, and tried on."""

    material: Material
    bench: Bench


def tail_of(contexts: Sequence[Context]) -> int:
    """How many last tokens hold the answers: the longest, up to a limit.

    Args:
        contexts: the contexts.
    """
    return min(_TAIL, max(one.answered for one in contexts) + 1)


def detector_of(states: Replay, contexts: Sequence[Context], target: tuple[str, ...]) -> Probe:
    """What fires at the target's decision, and not before it or at its twins'.

    Args:
        states: the contexts' states, with the tokens of the answers in their tails.
        contexts: the contexts.
        target: the cell in which harm is done.
    """
    harm = is_target(contexts, target)
    last, mask = states.activations[:, -1], states.mask[:, :-1].clone()
    for row, one in enumerate(contexts):  # the prompt is not edited
        mask[row, : max(0, mask.shape[1] - one.answered + 1)] = False
    before = states.activations[:, :-1][mask.to(last.device)]
    some = before[:: max(1, len(before) // _BEFORE)]
    return detector(states.hookpoint, last[harm], torch.cat([last[~harm], some]))


def bench_of(
    room: Room, contexts: Sequence[Context], hookpoint: str, target: tuple[str, ...]
) -> Bench:
    """Contexts to try arms on: the target's, and as many of its twins'.

    Args:
        room: the audit.
        contexts: the contexts.
        hookpoint: the earliest that arms read or edit.
        target: the cell in which harm is done.
    """
    harmful = [one for one in contexts if one.cell == target]
    harmless = [one for one in contexts if one.cell != target]
    kept = [*harmful, *spread(harmless, len(harmful))]
    tails = {
        ANSWER: tail_of(kept),
        DECISION: min(_NEAR, tail_of(kept)),
    }
    states = {where: replay_of(room.lm, kept, hookpoint, tail) for where, tail in tails.items()}
    return Bench(room.lm, states, tuple(kept), target)
