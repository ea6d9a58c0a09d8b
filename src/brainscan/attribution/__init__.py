"""Attribution: where a model decides, and what at a hookpoint the decision hangs on."""

from __future__ import annotations

from brainscan.attribution.contexts import Context, log_odds, replay_of
from brainscan.attribution.decision import Decision, Pair, decision_contexts, find_decision
from brainscan.attribution.directions import Dense, dense_directions, detector
from brainscan.attribution.location import Location, locate
from brainscan.attribution.ranking import Ranked, rank_latents, rank_neurons, rank_outputs

__all__ = [
    "Context",
    "Decision",
    "Dense",
    "Location",
    "Pair",
    "Ranked",
    "decision_contexts",
    "dense_directions",
    "detector",
    "find_decision",
    "locate",
    "log_odds",
    "rank_latents",
    "rank_neurons",
    "rank_outputs",
    "replay_of",
]
