"""One edit and one metric of the user's, with the controls that an audit would ask for.

The metric is measured untouched, under the edit, under its opposite, and under random features of
the same kind that move neutral text as far (`random_latent_control`). An edit does something if

1. the metric changes: the interval of the paired differences leaves out 0;
2. few random features change it as much in either direction: its place among them has a chance
   below 0.05;
3. its opposite does not change it the same way.

Beside it stands what the edit costs on neutral text and on the capability set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

from brainscan import stats
from brainscan.auditing.results import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from brainscan.auditing.verdicts import ALPHA
from brainscan.dictionaries import Dictionary
from brainscan.errors import UsageError
from brainscan.interventions import (
    Control,
    Edit,
    Effects,
    Passage,
    capability_items,
    measure_effects,
    neutral_passages,
    random_latent_control,
    sign_flipped,
    with_dictionary,
)
from brainscan.models import LanguageModel
from brainscan.progress import progress
from brainscan.stats import Estimate
from brainscan.views import Html, RateView, fragment, rates, table

Metric: TypeAlias = Callable[[LanguageModel], Sequence[float]]
"""Measures a model, edited or not: a number for each item, always in the same order."""


@dataclass(frozen=True)
class EditTest:
    """What an edit does to a metric, and what its controls do; shows itself in a notebook."""

    before: Estimate
    """The metric's mean, untouched."""
    after: Estimate
    """Its mean under the edit."""
    change: Estimate
    """The difference, paired by item."""
    flipped: Estimate | None
    """The same under the opposite; None for an edit that has none."""
    random: tuple[float, ...]
    """The mean change under each random control."""
    effects: Effects
    """What the edit costs."""

    @property
    def p(self) -> float:
        """The chance of so large a change, either way, if the edit were one of the random ones."""
        own = abs(self.change.value)
        return (1 + sum(abs(value) >= own for value in self.random)) / (len(self.random) + 1)

    @property
    def status(self) -> str:
        """Whether it is supported that the edit, and not just any, changes the metric."""
        moved = self.change.low > 0 or self.change.high < 0
        same = self.flipped is not None and (
            min(self.change.low, self.flipped.low) > 0
            or max(self.change.high, self.flipped.high) < 0
        )
        if moved and self.p < ALPHA and not same:
            return SUPPORTED
        enough = 1 / (len(self.random) + 1) < ALPHA
        return INCONCLUSIVE if not enough or (moved and self.p < 2 * ALPHA) else NOT_SUPPORTED

    def to_json(self) -> dict[str, Any]:
        """The test as a JSON object."""
        return {
            "status": self.status,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "change": self.change.to_json(),
            "flipped": self.flipped.to_json() if self.flipped else None,
            "null": {"n": len(self.random), "p": self.p, "values": list(self.random)},
            "cost": self.effects.to_json(),
        }

    def _repr_html_(self) -> str:
        views = [RateView("the edit", self.change)]
        if self.flipped is not None:
            views.append(RateView("its opposite", self.flipped, control=True))
        ends = [end for view in views for end in (view.estimate.low, view.estimate.high)]
        low, high = min(0.0, *ends, *self.random), max(0.0, *ends, *self.random)
        rows = [
            ("untouched", str(self.before)),
            ("under the edit", str(self.after)),
            ("random controls", f"{len(self.random)}, p = {self.p:.3g}"),
            ("KL, nats per token", str(self.effects.kl)),
            ("capability", str(self.effects.capability_change)),
        ]
        bars = rates(views, low=low, high=high, as_percent=False)
        title = f"<h3>The edit changes the metric: {self.status}</h3>"
        return fragment(Html(f"{title}{bars}{table(('', ''), rows)}"))


def test_edit(
    lm: LanguageModel,
    edit: Edit | Sequence[Edit],
    metric: Metric,
    *,
    controls: int = 39,
    dictionary: Dictionary | None = None,
    seed: int = 0,
    passages: int | Sequence[Passage] = 64,
    items: int = 100,
) -> EditTest:
    """Tests whether an edit, and not just any of its size, changes a metric.

    Args:
        lm: the model, without edits.
        edit: the edit, or several that are applied together.
        metric: measures the model as it is at that moment.
        controls: how many random controls; at least 20 for a chance below 0.05.
        dictionary: whose latents are edited; the edits' own or the shipped one when left out.
        seed: chooses the random controls.
        passages: what controls are matched and costs measured on: so many of our neutral
            passages, or texts of your own for an edit that acts on no neutral one.
        items: capability items.

    Raises:
        UsageError: the metric gives no numbers, or not as many each time; or the edit changes
            nothing in the passages, so that no control can be matched to it.
    """
    edits = with_dictionary([edit] if isinstance(edit, Edit) else edit, dictionary)
    texts = neutral_passages(passages) if isinstance(passages, int) else passages
    plain = _measured(lm, (), metric)
    edited = _measured(lm, edits, metric, len(plain))
    opposite = _opposite(edits)
    flipped = _measured(lm, opposite, metric, len(plain)) if opposite else None
    changes = []
    with progress("random controls", controls) as advance:
        for number in range(controls):
            control = random_latent_control(lm, dictionary, edits, seed + number, passages=texts)
            _check_matched(control)
            changes.append(fmean(_measured(lm, control.edits, metric, len(plain))) - fmean(plain))
            advance(1)
    return EditTest(
        before=stats.mean(plain),
        after=stats.mean(edited),
        change=stats.paired_difference(edited, plain),
        flipped=stats.paired_difference(flipped, plain) if flipped else None,
        random=tuple(changes),
        effects=measure_effects(lm, edits, passages=texts, items=capability_items(items)),
    )


test_edit.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for one of its own


def _opposite(edits: Sequence[Edit]) -> tuple[Edit, ...] | None:
    """The sign-flipped edits; None where one has no opposite."""
    try:
        return sign_flipped(edits)
    except UsageError:
        return None


def _check_matched(control: Control) -> None:
    """Refuses controls that do nothing because the edit does nothing where they were matched."""
    if not any(one.change.value for one in control.matched):
        raise UsageError(
            "an edit that changes some token of the passages, for controls as large",
            "none is changed",
            "pass texts that it acts on as passages",
        )


def _measured(
    lm: LanguageModel, edits: Sequence[Edit], metric: Metric, n: int | None = None
) -> list[float]:
    with lm.edit(*edits):
        values = [float(value) for value in metric(lm)]
    if not values or (n is not None and len(values) != n):
        raise UsageError(
            f"a metric of {n} items each time" if n else "a metric of at least one item",
            f"{len(values)} numbers",
            "measure the same items, whatever the model answers",
        )
    return values
