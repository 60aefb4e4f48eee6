"""How many channels each group loses, and which: uniform, global, or to a target.

Which channels go is settled by their scores; how many by a ratio. A target (MACs) is met by
bisection over the ratio.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.channels.dependencies import Group
from compressor.channels.importance import Scores, normalised

Removed = NDArray[np.int64]
"""Classes that go."""

Width = Callable[[Group, int], int]
"""(group, classes wanted) -> classes kept: a width that the hardware likes."""


@dataclass(frozen=True)
class Bounds:
    """``keep`` is the fewest channels of a layer, ``width`` what widths the hardware likes."""

    keep: int
    width: Width

    def kept(self, group: Group, wanted: int) -> int:
        """Classes that a group keeps where ``wanted`` would be left."""
        least = min(len(group.classes), max(1, math.ceil(self.keep / group.width)))
        chosen = self.width(group, max(least, wanted))
        return min(len(group.classes), max(least, chosen))


def uniform(
    groups: list[Group], scores: Scores, ratios: Sequence[float], bounds: Bounds
) -> Removed:
    """Of each group the fraction that ``ratios`` has for it, the least worth first."""
    gone = []
    for group, ratio in zip(groups, ratios, strict=True):
        if ratio > 0 and np.isfinite(scores[group.classes]).all():
            wanted = len(group.classes) - round(ratio * len(group.classes))
            gone.append(_least(group, scores, bounds.kept(group, wanted)))
    return _joined(gone)


def threshold(
    groups: list[Group], scores: Scores, ratio: float, bounds: Bounds, raw: bool
) -> Removed:
    """The fraction ``ratio`` of all channels, wherever they are worth least.

    Scores are compared as multiples of their group's mean, or as they are where ``raw`` is set (the
    scales of batch norms are comparable themselves).
    """
    compared = scores if raw else normalised(groups, scores)
    known = [group for group in groups if np.isfinite(compared[group.classes]).all()]
    if not known:
        return _joined([])
    values = np.concatenate([compared[group.classes] for group in known])
    widths = np.concatenate([np.full(len(group.classes), group.width) for group in known])
    order = np.argsort(values, kind="stable")
    count = int(np.searchsorted(np.cumsum(widths[order]), round(ratio * widths.sum()), "right"))
    edge = values[order[count]] if count < len(values) else math.inf
    gone = []
    for group in known:
        wanted = int((compared[group.classes] >= edge).sum())
        gone.append(_least(group, compared, bounds.kept(group, wanted)))
    return _joined(gone)


def to_target(
    remove: Callable[[float], Removed], cost: Callable[[Removed], float], target: float
) -> tuple[float, Removed]:
    """The least ratio at which ``cost`` (1 for the whole network) is at most ``target``.

    Where no ratio reaches it, the one that comes nearest.
    """
    low, high = 0.0, 1.0
    best = remove(high)
    if cost(best) > target:
        return high, best
    for _ in range(16):
        middle = (low + high) / 2
        found = remove(middle)
        if cost(found) <= target:
            high, best = middle, found
        else:
            low = middle
    return high, best


def _least(group: Group, scores: Scores, kept: int) -> Removed:
    order = np.argsort(scores[group.classes], kind="stable")
    return group.classes[order[: len(group.classes) - kept]]


def _joined(parts: list[Removed]) -> Removed:
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))


def multiple(step: int) -> Width:
    """Widths that are multiples of ``step``, or the whole width: whichever is nearest."""

    def width(group: Group, wanted: int) -> int:
        per_class = group.width
        whole = len(group.classes)
        unit = step // math.gcd(step, per_class)  # classes that make a multiple
        near = max(unit, unit * round(wanted / unit))
        return whole if near > whole or abs(whole - wanted) < abs(near - wanted) else near

    return width
