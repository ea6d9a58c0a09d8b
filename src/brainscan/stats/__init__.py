"""Every reported figure is an estimate: with its interval, its n and how the interval was made."""

from brainscan.stats.estimates import (
    RESAMPLES,
    Estimate,
    exponential,
    finite,
    mean,
    paired_difference,
    proportion,
    ratio,
)
from brainscan.stats.ranks import area
from brainscan.stats.shares import (
    ClusteredChange,
    clustered_change,
    clustered_risk_difference,
    clustered_share,
    holm,
    paired_risk_difference,
    risk_difference,
)

__all__ = [
    "RESAMPLES",
    "ClusteredChange",
    "Estimate",
    "area",
    "clustered_change",
    "clustered_risk_difference",
    "clustered_share",
    "exponential",
    "finite",
    "holm",
    "mean",
    "paired_difference",
    "paired_risk_difference",
    "proportion",
    "ratio",
    "risk_difference",
]
