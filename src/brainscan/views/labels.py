"""Names beside the points of a plot, placed so that they cover little.

1. A name may stand at any of eight sides of its point, those beside it first.
2. Each name in turn is put where it covers least of the points, of their intervals, of the
   reference line and of the other names, and does not leave the plot; this is done a few times.

The size of the plot in pixels is not known here, so that of a page of common width is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SIDES = (
    ("middle right", 1, 0),
    ("middle left", -1, 0),
    ("top right", 1, 1),
    ("bottom right", 1, -1),
    ("top left", -1, 1),
    ("bottom left", -1, -1),
    ("top center", 0, 1),
    ("bottom center", 0, -1),
)
"""Plotly's word for a side, and where it lies."""

_WIDTH, _HEIGHT = 950.0, 330.0
_LETTER, _LINE = 7.0, 16.0
_MARKER = 9.0
_REFERENCE = 110.0
_OUTSIDE = 10.0
_ROUNDS = 3


class Point(NamedTuple):
    """A point of the plot, in shares of its width and height."""

    x: float
    """Where it stands across."""
    y: float
    """Where it stands upward."""
    low: float
    """The lower end of its interval."""
    high: float
    """The upper end of its interval."""
    name: str
    """What to write beside it, on one or more lines; empty for nothing."""


class _Box(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float

    def covers(self, other: _Box) -> float:
        """The area that both have in common."""
        across = min(self.right, other.right) - max(self.left, other.left)
        upward = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(across, 0.0) * max(upward, 0.0)


def label_places(points: Sequence[Point], reference: float | None = None) -> list[str]:
    """On which side of each point its name should stand, in plotly's words.

    Args:
        points: the points; those without a name are only kept clear of.
        reference: where a line across the plot stands, with its name above its right end.
    """
    taken = [box for point in points for box in _drawn(point)]
    if reference is not None:
        y = reference * _HEIGHT
        taken.append(_Box(0.0, _WIDTH, y - 1, y + 1))
        taken.append(_Box(_WIDTH - _REFERENCE, _WIDTH, y, y + _LINE))
    boxes = [[_label(point, across, upward) for _, across, upward in SIDES] for point in points]
    sides = [0] * len(points)
    named = [i for i, point in enumerate(points) if point.name]
    for _ in range(_ROUNDS):
        for i in named:
            others = [boxes[other][sides[other]] for other in named if other != i]
            costs = [_cost(box, taken + others) for box in boxes[i]]
            sides[i] = costs.index(min(costs))
    return [SIDES[side][0] for side in sides]


def _drawn(point: Point) -> tuple[_Box, _Box]:
    x, y, half = point.x * _WIDTH, point.y * _HEIGHT, _MARKER
    interval = _Box(x - 2, x + 2, point.low * _HEIGHT, point.high * _HEIGHT)
    return _Box(x - half, x + half, y - half, y + half), interval


def _label(point: Point, across: int, upward: int) -> _Box:
    lines = point.name.split("\n")
    width, height = _LETTER * max(map(len, lines)), _LINE * len(lines)
    x = point.x * _WIDTH + across * (_MARKER + width / 2)
    y = point.y * _HEIGHT + upward * (_MARKER + height / 2)
    return _Box(x - width / 2, x + width / 2, y - height / 2, y + height / 2)


def _cost(box: _Box, taken: Sequence[_Box]) -> float:
    inside = box.covers(_Box(0.0, _WIDTH, 0.0, _HEIGHT))
    outside = (box.right - box.left) * (box.top - box.bottom) - inside
    return sum(box.covers(other) for other in taken) + _OUTSIDE * outside
