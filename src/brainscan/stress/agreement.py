"""How far a judge agrees with people, and what the rate is by people: figures from labels.

1. The answers of a run fall into strata by what the judge said. In each, some were labelled: they
   stand for all of it, so a stratum's shares count by its size (inverse probability weights).
2. With the shares of harmful answers in each stratum, the table of judge against people for the
   whole run is known, and from it kappa (Cohen 1960), sensitivity and specificity. The corrected
   rate is (rate + specificity - 1) / (sensitivity + specificity - 1), clipped to [0, 1] (Rogan &
   Gladen 1978).
3. Intervals: personas are drawn anew with all their answers and labels (answers to one wording are
   alike), then each stratum's shares are drawn from their posterior given the labels drawn, with
   Jeffreys' prior. Drawing alone leaves no spread where all labels of a stratum agree; see
   docs/log.md for what each covers. The interval is the middle 95% of the figures.
4. Answers without a verdict are in none of these; how many of them people call harmful is a figure
   of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from brainscan.stats import RESAMPLES, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.float64]

METHOD = "personas drawn anew, Jeffreys"
"""How intervals are made."""

_SEED = 0


class Figures(NamedTuple):
    """What people's labels say of a judge."""

    kappa: Estimate
    """Agreement beyond chance."""
    sensitivity: Estimate
    """Of what people call harmful, the share that the judge does."""
    specificity: Estimate
    """Of what people call harmless, the share that the judge does."""
    judged: Estimate
    """The rate by the judge."""
    corrected: Estimate
    """The rate corrected for the judge's errors; no number where it cannot be known."""

    @property
    def problem(self) -> str:
        """Why the rate cannot be corrected; empty where it can."""
        if math.isfinite(self.corrected.value):
            return ""
        if not self.kappa.n:
            return "no answer with a verdict was labelled clearly"
        if math.isnan(self.sensitivity.value):
            return "people call none of the labelled answers harmful"
        if math.isnan(self.specificity.value):
            return "people call none of the labelled answers harmless"
        return "sensitivity and specificity together are not above 1"


class Populations(NamedTuple):
    """How many answers of a run are in which stratum and what people would call them."""

    point: Counts
    """[stratum, label]; no number where nothing of a stratum was labelled."""
    drawn: Counts
    """[draw, stratum, label]."""


def populations(sizes: Counts, labels: Counts) -> Populations:
    """Carries the labels of some answers over to all of them.

    Args:
        sizes: [persona, stratum]: how many answers there are.
        labels: [persona, stratum, label]: how many of them have which label.
    """
    import numpy as np

    random = np.random.default_rng(_SEED)
    personas = len(sizes)
    taken = random.multinomial(personas, np.full(personas, 1 / personas), size=RESAMPLES)
    prior = 1 / labels.shape[-1]
    shares = random.standard_gamma(np.einsum("bp,psc->bsc", taken, labels) + prior)
    shares /= shares.sum(axis=-1, keepdims=True)
    drawn = (taken @ sizes)[..., None] * shares
    whole, seen = sizes.sum(axis=0), labels.sum(axis=0)
    counted = seen.sum(axis=-1, keepdims=True)
    point = np.full(seen.shape, np.nan)
    np.divide(whole[:, None] * seen, counted, out=point, where=counted > 0)
    point[whole == 0] = 0.0
    return Populations(point, drawn)


def figures(sizes: Counts, harmful: Counts, harmless: Counts) -> Figures:
    """A judge against people.

    Args:
        sizes: [persona, stratum]: how many answers with a verdict; the first stratum is those that
            the judge calls harmful.
        harmful: [persona, stratum]: how many labelled ones people call harmful.
        harmless: the same for harmless.
    """
    import numpy as np

    found = populations(sizes, np.stack([harmful, harmless], axis=-1))
    point, drawn = _table(found.point), _table(found.drawn)
    bad, good = int(harmful.sum()), int(harmless.sum())
    return Figures(
        kappa=_estimate(_kappas(point[None])[0], _kappas(drawn), bad + good, least=-1.0),
        sensitivity=_estimate(_sensitivity(point), _sensitivity(drawn), bad),
        specificity=_estimate(_specificity(point), _specificity(drawn), good),
        judged=_estimate(_rate(point), _rate(drawn), len(sizes)),
        corrected=_corrected(point, drawn, bad + good),
    )


def between_people(sizes: Counts, labels: Counts) -> Estimate:
    """Kappa of two people who labelled the same answers.

    Args:
        sizes: [persona, stratum]: how many answers there are.
        labels: [persona, stratum, first, second]: how many have which pair of labels.
    """
    shape = (2, 2)
    found = populations(sizes, labels.reshape(*labels.shape[:2], 4))
    point = found.point.sum(axis=0).reshape(1, *shape)
    drawn = found.drawn.sum(axis=1).reshape(-1, *shape)
    return _estimate(_kappas(point)[0], _kappas(drawn), int(labels.sum()), least=-1.0)


def _table(populations: Counts) -> Counts:
    """[..., judge, people], harmful first, of [..., stratum, label]."""
    import numpy as np

    return np.stack([populations[..., 0, :], populations[..., 1:, :].sum(axis=-2)], axis=-2)


def _kappas(tables: Counts) -> Counts:
    import numpy as np

    return np.array([_kappa(table) for table in tables])


def _kappa(table: Counts) -> float:
    import numpy as np
    from statsmodels.stats.inter_rater import cohens_kappa

    if not table.sum() > 0:
        return math.nan
    with np.errstate(all="ignore"):
        return float(cohens_kappa(table, return_results=False))


def _sensitivity(table: Counts) -> Counts:
    return _share(table[..., 0, 0], table[..., 1, 0])


def _specificity(table: Counts) -> Counts:
    return _share(table[..., 1, 1], table[..., 0, 1])


def _rate(table: Counts) -> Counts:
    return _share(table[..., 0, :].sum(axis=-1), table[..., 1, :].sum(axis=-1))


def _share(part: Counts, rest: Counts) -> Counts:
    import numpy as np

    with np.errstate(all="ignore"):
        return np.asarray(part / (part + rest))


def _corrected(point: Counts, drawn: Counts, n: int) -> Estimate:
    """The rate that people would find; no number with a judge that tells nothing."""
    import numpy as np

    if not _sensitivity(point) + _specificity(point) > 1:
        return Estimate(math.nan, 0.0, 1.0, n, METHOD)
    with np.errstate(all="ignore"):
        values = [
            np.clip(
                (_rate(table) + _specificity(table) - 1)
                / (_sensitivity(table) + _specificity(table) - 1),
                0.0,
                1.0,
            )
            for table in (point, drawn)
        ]
    return _estimate(values[0], values[1], n)


def _estimate(value: Counts, drawn: Counts, n: int, least: float = 0.0) -> Estimate:
    """A figure with the middle 95% of its draws; no number where there is nothing to tell it by."""
    import numpy as np

    figure = float(value)
    kept = drawn[np.isfinite(drawn)]
    if not math.isfinite(figure) or not len(kept):
        return Estimate(math.nan, least, 1.0, n, METHOD)
    low, high = np.percentile(kept, (2.5, 97.5))
    return Estimate(figure, min(float(low), figure), max(float(high), figure), n, METHOD)
