"""Controls: edits that should not do what the edit does, at equal change of norm.

A random control is the same kind of edit on a feature drawn at random, at the strength at which it
moves activations as far as the original. No further layer runs to find that strength:

1. Capture the edited hookpoint's activations on neutral text, once.
2. Apply the original edit to them; the mean of ||x' - x|| over all real tokens is its change, of
   which nothing is counted where the edit does not act.
3. Draw a random feature: a latent that fires on that text, another neuron of the layer, or for a
   direction a vector of random orientation.
4. Set the strength. Add and Scale change norms in proportion to the strength (the factor's distance
   from 1), so one pass gives it; Clamp is found by bisection.
5. Measure the control's change the same way, so that a report can show that they match.

Ablate, ProjectOut and Swap have no strength to set: their control is a Scale of the random feature
(of a random latent's decoder direction for ProjectOut), below 1 and if need be below 0.

Several edits are matched one by one, each on unedited activations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from brainscan import stats
from brainscan.dictionaries import Address, Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.batches import by_length, padded
from brainscan.interventions.edits import (
    Ablate,
    Add,
    Clamp,
    Edit,
    ProjectOut,
    Scale,
    Swap,
    as_number,
    with_dictionary,
)
from brainscan.interventions.targets import Direction, LatentTarget, NeuronTarget, Target, bind
from brainscan.interventions.texts import Passage, neutral_passages, passage_tokens
from brainscan.models import LanguageModel, Site, capture
from brainscan.shapes import Bool, Float, Int, Tensor
from brainscan.stats import Estimate

_PASSAGES = 64
_BATCH = 8
_HALVINGS = 40
_LARGEST = 1e6


class MatchedEdit(NamedTuple):
    """An edit's control, and how far each moves activations of neutral text."""

    edit: Edit
    """The control."""

    change: Estimate
    """Mean of ||x' - x|| over neutral tokens, by the original."""

    control_change: Estimate
    """The same, by the control."""


class Control(NamedTuple):
    """The controls of a set of edits."""

    edits: tuple[Edit, ...]
    """What to apply: a control for each edit, in order."""

    matched: tuple[MatchedEdit, ...]
    """How well each one matches."""


def random_latent_control(
    lm: LanguageModel,
    dictionary: Dictionary | None,
    edits: Sequence[Edit],
    seed: int,
    *,
    passages: Sequence[Passage] | None = None,
) -> Control:
    """The same kinds of edits on random features, at equal change of norm on neutral text.

    Args:
        lm: the model.
        dictionary: whose latents to edit and to draw from; None, or at another hookpoint than an
            edit's, leaves it to the edit's own or the shipped one.
        edits: the edits to match.
        seed: chooses the random features.
        passages: neutral text; the first 64 of ours when left out.

    Raises:
        UsageError: no other latent fires on that text.
    """
    texts = neutral_passages(_PASSAGES) if passages is None else passages
    generator = random.Random(seed)
    matched = []
    for edit in with_dictionary(edits, dictionary):
        hooks = edit.attach(lm)
        text = _record(lm, [hookpoint for hookpoint, _ in hooks], texts)
        matched.append(_match(lm, edit, text, generator))
    return Control(tuple(match.edit for match in matched), tuple(matched))


def sign_flipped(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The same edits with the change of the activation turned round.

    Add and Clamp change sign; a factor f becomes 2 - f; what Ablate and ProjectOut remove is added
    once more.

    Args:
        edits: the edits.

    Raises:
        UsageError: an edit has no opposite: Swap, or Ablate to another value than 0.
    """
    return tuple(_flipped(edit) for edit in edits)


@dataclass(frozen=True)
class _Text:
    """Activations of neutral text, a row per passage."""

    values: dict[str, list[Float[Tensor, "_ _ d"]]]
    sites: list[Site]
    passages: list[Int[Tensor, " _"]]
    """The passage of each real token of each batch."""

    def moved(self, lm: LanguageModel, edit: Edit) -> list[Float[Tensor, " _"]]:
        """||x' - x|| of each real token, by an edit."""
        norms = []
        for number, site in enumerate(self.sites):
            before = after = torch.empty(0)
            for hookpoint, hook in edit.attach(lm):
                before = self.values[hookpoint][number]
                after = hook(before, replace(site, hookpoint=hookpoint))
            norms.append((after - before).norm(dim=-1)[site.positions >= 0])
        return norms

    def estimate(self, norms: Sequence[Float[Tensor, " _"]]) -> Estimate:
        """The mean norm, clustered by passage."""
        passages = torch.cat(self.passages)
        sums = torch.zeros(int(passages.max()) + 1, dtype=torch.float64)
        sums.index_add_(0, passages, torch.cat(list(norms)).double().cpu())
        return stats.ratio(sums.numpy(), passages.bincount().numpy())


@torch.no_grad()
def _record(lm: LanguageModel, hookpoints: Sequence[str], texts: Sequence[Passage]) -> _Text:
    rows = [passage_tokens(lm, passage) for passage in texts]
    text = _Text({name: [] for name in hookpoints}, [], [])
    for group in by_length(lm, [len(row.ids) for row in rows], _BATCH):
        batch = padded([rows[index].ids for index in group], lm.device)
        with capture(lm, list(text.values), stop=True) as seen:
            lm.forward(batch.ids, batch.mask)
        for name, kept in text.values.items():
            kept.append(seen[name].float())
        positions = torch.where(batch.mask.bool(), batch.mask.cumsum(1) - 1, -1)
        lengths = torch.tensor([rows[index].prompt_length for index in group])
        is_prompt = (positions >= 0) & (positions < lengths.to(lm.device)[:, None])
        text.sites.append(Site("", positions, is_prompt, batch.ids))
        text.passages.append(torch.tensor(group).repeat_interleave(batch.mask.sum(1).cpu()))
    return text


@torch.no_grad()
def _match(lm: LanguageModel, edit: Edit, text: _Text, generator: random.Random) -> MatchedEdit:
    """Draws a feature and sets the strength."""
    original = text.moved(lm, edit)
    wanted = float(torch.cat(original).mean())
    target = _draw(lm, edit, text, generator)
    shared: dict[str, Any] = {"positions": edit.positions, "sinks": edit.sinks}
    if isinstance(target, str):
        shared["dictionary"] = edit.dictionary
    control: Edit
    if isinstance(edit, Add):
        control = _proportional(
            lm, text, wanted, as_number(edit.strength), lambda s: Add(target, s, **shared)
        )
    elif isinstance(edit, Clamp) and as_number(edit.value) != 0:
        control = _clamp(lm, text, wanted, Clamp(target, edit.value, **shared))
    else:
        upward = isinstance(edit, Scale) and as_number(edit.factor) > 1
        control = _proportional(
            lm, text, wanted, 1.0 if upward else -1.0, lambda s: Scale(target, 1 + s, **shared)
        )
    return MatchedEdit(control, text.estimate(original), text.estimate(text.moved(lm, control)))


def _draw(lm: LanguageModel, edit: Edit, text: _Text, generator: random.Random) -> str | Direction:
    """A random target of the same kind as the edit's."""
    named = edit.a if isinstance(edit, Swap) else edit.target
    target = bind(lm, named, edit.dictionary, edit.maximum)
    values = text.values[target.hookpoint]
    if isinstance(target, LatentTarget):
        index = _firing_latent(target.dictionary, _avoided(edit), values, generator)
        if isinstance(edit, ProjectOut):
            row = target.dictionary.W_dec[index]
            return Direction(target.hookpoint, row, name=f"{target.hookpoint}/{index}")
        return str(Address(target.hookpoint, index))
    width = lm.width(target.hookpoint)
    if isinstance(target, NeuronTarget) and not isinstance(edit, ProjectOut):
        others = [index for index in range(width) if index not in _avoided(edit)]
        return str(Address(target.hookpoint, generator.choice(others), target.sign))
    noise = torch.Generator().manual_seed(generator.getrandbits(63))
    vector = torch.randn(width, generator=noise)
    mean = named.mean if isinstance(named, Direction) else None
    return Direction(target.hookpoint, vector, name="random", mean=mean)


def _avoided(edit: Edit) -> set[int]:
    named = (edit.a, edit.b) if isinstance(edit, Swap) else (edit.target,)
    return {Address.parse(name).index for name in named if isinstance(name, str)}


def _firing_latent(
    dictionary: Dictionary,
    avoided: set[int],
    values: Sequence[Float[Tensor, "_ _ d"]],
    generator: random.Random,
) -> int:
    fires = torch.zeros(dictionary.n_latents, dtype=torch.bool)
    for value in values:
        code = dictionary.encode(value)
        fires[code.indices[code.values > 0].cpu()] = True
    fires &= (dictionary.activation_max > 0).cpu()
    fires[list(avoided)] = False
    candidates = fires.nonzero()[:, 0].tolist()
    if not candidates:
        raise UsageError(
            f"another latent of {dictionary.name} that fires on neutral text",
            "none",
            "use a dictionary trained for this model",
        )
    return int(generator.choice(candidates))


def _proportional(
    lm: LanguageModel,
    text: _Text,
    wanted: float,
    direction: float,
    at: Callable[[float], Edit],
) -> Edit:
    """The edit whose change of norm, proportional to its strength, is the one wanted."""
    each = float(torch.cat(text.moved(lm, at(1.0))).mean())
    if each == 0 or wanted == 0:
        return at(0.0)
    return at(wanted / each if direction > 0 else -wanted / each)


def _clamp(lm: LanguageModel, text: _Text, wanted: float, edit: Clamp) -> Edit:
    """The clamp, on the same side of zero, whose change of norm is the one wanted.

    Away from zero the change grows with the value; where even the smallest value moves more than
    wanted, that one is taken.
    """
    target = bind(lm, edit.target, edit.dictionary, edit.maximum)
    side = 1.0 if as_number(edit.value) > 0 else -1.0
    chosen = _chosen(lm, text, replace(edit, value=side * 1.0), target)
    x = torch.cat([values[mask] for values, mask in chosen])
    if len(x) == 0:
        return edit
    n_tokens = sum(len(passages) for passages in text.passages)
    old, unit = target.read(x), target.unit(x)

    def change(value: float) -> float:
        new = (side * value * unit).expand(len(x))
        return float((target.write(x, old, new) - x).norm(dim=-1).sum()) / n_tokens

    low, high = 0.0, 1.0
    while change(high) < wanted and high < _LARGEST:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if change(middle) >= wanted else (middle, high)
    return replace(edit, value=side * high)


def _chosen(
    lm: LanguageModel, text: _Text, edit: Edit, target: Target
) -> list[tuple[Float[Tensor, "_ _ d"], Bool[Tensor, "_ _"]]]:
    """The activations and the tokens of them that an edit acts on."""
    found = []
    for number, site in enumerate(text.sites):
        before = text.values[target.hookpoint][number]
        after = before
        for hookpoint, hook in edit.attach(lm):
            after = hook(text.values[hookpoint][number], replace(site, hookpoint=hookpoint))
        found.append((before, (after != before).any(-1)))
    return found


def _flipped(edit: Edit) -> Edit:
    shared = {name: getattr(edit, name) for name in ("positions", "sinks", "dictionary", "maximum")}
    match edit:
        case Add(strength=strength):
            return replace(edit, strength=-strength)
        case Clamp(value=value):
            return replace(edit, value=-value)
        case Scale(factor=factor):
            return replace(edit, factor=2 - factor)
        case Ablate(target=target, to=to) if as_number(to) == 0:
            return Scale(target, 2.0, **shared)
        case ProjectOut(target=Direction() as target):
            return Scale(target, 2.0, **shared)
        case ProjectOut(target=str(target)):
            pass
    raise UsageError(
        "edits with an opposite: Add, Clamp, Scale, Ablate to 0, ProjectOut of a direction",
        repr(edit),
        "leave it out of the sign-flipped control",
    )
