"""Controls: edits that should not do what the edit does, at equal change of norm.

A random control is the same kind of edit on a feature drawn at random, at the strength at which it
moves activations as far as the original. No further layer runs to find that strength:

1. Capture the edited hookpoint's activations on neutral text, once.
2. Apply the original edit to them; the mean of ||x' - x|| over all real tokens is its change, of
   which nothing is counted where the edit does not act.
3. Draw a random feature as `draws` says, until one moves the text at all: a latent that fires
   there about as often, another neuron of the layer, or a vector of random orientation. For an
   AblateSet one is drawn for each target, none twice.
4. Set the strength. Add and Scale change norms in proportion to the strength (the factor's distance
   from 1), so one pass gives it, and so does an AblateSet whose targets all go to zero, as those of
   a control do, wherever the edit's own go; Clamp is found by bisection.
5. Measure the control's change the same way, so that a report can show that they match.

Ablate, ProjectOut and Swap have no strength to set: their control is a Scale of the random feature
(of a random latent's decoder direction for ProjectOut), below 1 and if need be below 0.

Several edits are matched one by one, each on unedited activations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch

from brainscan import stats
from brainscan.dictionaries import Dictionary
from brainscan.errors import UsageError
from brainscan.interventions.base import as_number
from brainscan.interventions.batches import by_length, check_untouched, padded
from brainscan.interventions.draws import draw_sets, draws
from brainscan.interventions.edits import (
    Ablate,
    AblateSet,
    Add,
    Clamp,
    Edit,
    ProjectOut,
    Scale,
    with_dictionary,
)
from brainscan.interventions.targets import Direction, bind
from brainscan.interventions.texts import Passage, neutral_passages, passage_tokens
from brainscan.models import LanguageModel, Site, capture
from brainscan.shapes import Float, Int, Tensor
from brainscan.stats import Estimate

_PASSAGES = 64
_BATCH = 8
_HALVINGS = 40
_LARGEST = 1e6

_Matched = TypeVar("_Matched", bound=Edit)


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

    The random targets of an `AblateSet` go towards zero, wherever its own go, and the control's
    strength sets how far.

    Args:
        lm: the model.
        dictionary: whose latents to edit and to draw from; None, or at another hookpoint than an
            edit's, leaves it to the edit's own or the shipped one.
        edits: the edits to match.
        seed: chooses the random features.
        passages: neutral text; the first 64 of ours when left out.

    Raises:
        UsageError: no other feature acts on that text where the edit does, a set has more targets
            than there are others, or the model is being edited.
    """
    check_untouched(lm, "to match controls on")
    texts = neutral_passages(_PASSAGES) if passages is None else passages
    generator = random.Random(seed)
    matched = []
    for edit in with_dictionary(edits, dictionary):
        read_at = [hookpoint for hookpoint, _ in _push(lm, edit).attach(lm)]
        text = _record(lm, read_at, texts)
        matched.append(_match(lm, edit, text, generator))
    return Control(tuple(match.edit for match in matched), tuple(matched))


def sign_flipped(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The same edits with the change of the activation turned round.

    Add, Clamp and the strength of an AblateSet change sign; a factor f becomes 2 - f; what Ablate
    and ProjectOut remove is added once more.

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
        positions = batch.positions
        lengths = torch.tensor([rows[index].prompt_length for index in group])
        is_prompt = (positions >= 0) & (positions < lengths.to(lm.device)[:, None])
        text.sites.append(Site("", positions, is_prompt, batch.ids))
        text.passages.append(torch.tensor(group).repeat_interleave(batch.mask.sum(1).cpu()))
    return text


@torch.no_grad()
def _match(lm: LanguageModel, edit: Edit, text: _Text, generator: random.Random) -> MatchedEdit:
    """Draws features until one moves the text, at the strength that matches."""
    original = text.moved(lm, edit)
    wanted = float(torch.cat(original).mean())
    hookpoint = edit.attach(lm)[-1][0]
    for control in _controls(lm, edit, text, wanted, generator):
        moved = text.moved(lm, control)
        if wanted == 0 or any(norms.any() for norms in moved):
            return MatchedEdit(control, text.estimate(original), text.estimate(moved))
    raise UsageError(
        f"another feature of {hookpoint} that moves neutral text where the edit acts",
        "none",
        "edit more positions, or pass other passages",
    )


def _controls(
    lm: LanguageModel, edit: Edit, text: _Text, wanted: float, generator: random.Random
) -> Iterator[Edit]:
    """The edit on random features, in the order to try them."""
    x = _acted_on(lm, replace(edit, sinks=False), text)
    if isinstance(edit, AblateSet):
        for targets in draw_sets(lm, edit, x, generator):
            yield _matched_set(lm, edit, targets, text, wanted)
    else:
        for target in draws(lm, edit, x, generator):
            yield _matched(lm, edit, target, text, wanted)


def _matched_set(
    lm: LanguageModel,
    edit: AblateSet,
    targets: tuple[str | Direction, ...],
    text: _Text,
    wanted: float,
) -> AblateSet:
    """Other targets moved towards zero, as far as the change of norm wanted."""
    zero = torch.zeros(len(targets))
    return _proportional(
        lm,
        text,
        wanted,
        as_number(edit.strength),
        lambda s: replace(edit, targets=targets, to=zero, strength=s),
    )


def _matched(
    lm: LanguageModel, edit: Edit, target: str | Direction, text: _Text, wanted: float
) -> Edit:
    """The same kind of edit of a target, at the strength whose change of norm is the one wanted."""
    shared: dict[str, Any] = {"positions": edit.positions, "sinks": edit.sinks}
    if isinstance(target, str):
        shared["dictionary"] = edit.dictionary
    if isinstance(edit, Add):
        strength = as_number(edit.strength)
        return _proportional(lm, text, wanted, strength, lambda s: Add(target, s, **shared))
    if isinstance(edit, Clamp) and as_number(edit.value) != 0:
        return _clamp(lm, text, wanted, Clamp(target, edit.value, **shared))
    sign = 1.0 if isinstance(edit, Scale) and as_number(edit.factor) > 1 else -1.0
    return _proportional(lm, text, wanted, sign, lambda s: Scale(target, 1 + s, **shared))


def _proportional(
    lm: LanguageModel,
    text: _Text,
    wanted: float,
    direction: float,
    at: Callable[[float], _Matched],
) -> _Matched:
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
    x = _acted_on(lm, edit, text)
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


def _acted_on(lm: LanguageModel, edit: Edit, text: _Text) -> Float[Tensor, "token d"]:
    """The vectors at the tokens that an edit acts on, whatever it does there."""
    hooks = _push(lm, edit).attach(lm)
    edited = hooks[-1][0]
    found = []
    for number, site in enumerate(text.sites):
        before = after = text.values[edited][number]
        for hookpoint, hook in hooks:
            after = hook(text.values[hookpoint][number], replace(site, hookpoint=hookpoint))
        found.append(before[(after != before).any(-1)])
    return torch.cat(found)


def _push(lm: LanguageModel, edit: Edit) -> Add:
    """A change of all tokens that an edit acts on, even where the edit itself changes nothing."""
    hookpoint = edit.attach(lm)[-1][0]
    everywhere = Direction(hookpoint, torch.ones(lm.width(hookpoint)))
    return Add(everywhere, 1.0, positions=edit.positions, sinks=edit.sinks)


def _flipped(edit: Edit) -> Edit:
    shared = {name: getattr(edit, name) for name in ("positions", "sinks", "dictionary", "maximum")}
    match edit:
        case Add(strength=strength) | AblateSet(strength=strength):
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
        "edits with an opposite: Add, Clamp, Scale, Ablate to 0, ProjectOut of a direction, "
        "AblateSet",
        repr(edit),
        "leave it out of the sign-flipped control",
    )
