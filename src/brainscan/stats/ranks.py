"""How well scores order what should be high above what should be low."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def area(scores: ArrayLike, label: ArrayLike) -> float:
    """The area under the ROC curve: the share of pairs in order, ties as halves.

    It is a half where there is nothing to compare.

    Args:
        scores: the scores.
        label: which of them should be high.
    """
    import numpy as np
    from scipy.stats import rankdata

    values, chosen = np.asarray(scores, float), np.asarray(label, bool)
    high = int(chosen.sum())
    low = len(chosen) - high
    if not high or not low:
        return 0.5
    ranks = float(rankdata(values)[chosen].sum())
    return (ranks - high * (high + 1) / 2) / (high * low)
