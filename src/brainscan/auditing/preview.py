"""A first look, before the audit has measured much: one inbox, the harm, and an edit of it.

A few discovery prompts of each cell are answered (the audit takes these answers up again). Where
they show a behaviour, the decision is found in them, and the difference of means at it, at the
layer where it is settled. One harmful answer is then shown with the token where it was decided,
with what the model would have written after the other token, and with what it writes when the
difference is taken away. Nothing of this is evidence; the audit is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from brainscan.attribution import dense_directions
from brainscan.attribution.contexts import log_odds, replay_of
from brainscan.attribution.decision import place_of
from brainscan.auditing.answers import Answered
from brainscan.auditing.arms import DECISION, Material, dense_arms
from brainscan.auditing.confirm import sampling_of
from brainscan.auditing.locating import Located, contexts_of, find_place
from brainscan.auditing.measure import Measured, answer_of, measure_discovery
from brainscan.auditing.room import Room
from brainscan.auditing.trials import detector_of, tail_of
from brainscan.dictionaries import Dictionary
from brainscan.models.generate import Sampling, generate

_PER_CELL = 4
_LAYERS = 4


@dataclass(frozen=True)
class Preview:
    """One harmful answer, where it was decided, and two that are not harmful."""

    prompt: tuple[tuple[str, str], ...]
    """The messages: role and text."""
    answer: str
    """The harmful answer."""
    before: str
    """What it wrote before the decision."""
    harmful: str
    """The token that it went on with."""
    harmless: str
    """The token that its twins go on with."""
    odds: float
    """The log-odds of the two."""
    otherwise: str
    """What it would have written after the other token."""
    edited: str
    """What it writes with the difference of means taken away where it decides."""
    hookpoint: str
    """Where that was done."""


def preview(room: Room, dictionary: Dictionary | None = None) -> Preview | None:
    """A first look; None where a few prompts show no behaviour, or no one place of decision.

    Args:
        room: the audit.
        dictionary: the dictionary whose layer is edited; a shipped one when left out.
    """
    config = replace(room.config, per_cell=min(_PER_CELL, room.config.per_cell))
    config = replace(config, pairs=2, layers=_LAYERS, prompt=False)
    found = measure_discovery(replace(room, config=config))
    aside = replace(room, config=config, kept=room.kept.aside("preview"), tell=lambda line: None)
    located = find_place(aside, found, dictionary) if found.pairs() else None
    if located is None or not located.decision.shared:
        return None
    decision = located.decision
    for one in found.answers:
        if one.question.cell != found.behaviour.target or not one.counts:
            continue
        place = place_of(decision.before, answer_of(one), decision.nth)
        if place is not None and one.response[place] in decision.harmful:
            return _preview(aside, located, found, one, place)
    return None


def _preview(
    room: Room, located: Located, found: Measured, harmful: Answered, place: int
) -> Preview:
    lm, hookpoint, target = room.lm, located.hookpoint, found.behaviour.target
    contexts = contexts_of(room, located.decision, found)
    states = replay_of(lm, contexts, hookpoint, tail_of(contexts))
    x = states.activations[:, -1].float()
    dense = dense_directions(lm, hookpoint, x, contexts, target)
    fires = detector_of(states, contexts, target)
    material = Material(hookpoint, x, tuple(contexts), target, fires)
    arm = next(one for one in dense_arms(material, dense[:1]) if one.where == DECISION)
    own = next(one for one in contexts if one.tokens == _until(harmful, place))
    odds = float(log_odds(replay_of(lm, [own], hookpoint).logits, [own])[0])
    sampling = sampling_of(room.config)
    seeds = [harmful.question.seed + sampling.seed]
    prompt = [list(harmful.prompt)]
    edited = generate(lm, prompt, sampling, edits=list(arm.at(1.0)), seeds=seeds)[0]
    turned = [[*own.tokens, own.harmless[0]]]
    rest = Sampling(sampling.max_new_tokens)
    otherwise = generate(lm, turned, rest)[0]
    messages = room.design.test.prompt(harmful.question.asked).messages
    before = lm.decode(harmful.response[:place])
    return Preview(
        prompt=tuple((message["role"], message["content"]) for message in messages),
        answer=harmful.text,
        before=before,
        harmful=located.words[1],
        harmless=located.words[2],
        odds=odds,
        otherwise=before + located.words[2] + otherwise.text,
        edited=edited.text,
        hookpoint=hookpoint,
    )


def _until(answer: Answered, place: int) -> tuple[int, ...]:
    return (*answer.prompt, *answer.response[:place])
