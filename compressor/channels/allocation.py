"""How many channels each group loses, and which: uniform, global, or to a target.

Which channels go is settled by what they are worth; how many by a ratio. A target (MACs) is met by
bisection over the ratio. What widths layers may have is another matter (``limits.py``).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.channels.dependencies import Group
from compressor.channels.importance import Scores, normalised

Removed = NDArray[np.int64]
"""Classes that go."""


def worth(groups: list[Group], scores: Scores, *, raw: bool) -> Scores:
    """Scores that can be compared across groups; infinite for what may not be removed.

    They are multiples of their group's mean, or as they are where ``raw`` is set (the scales of
    batch norms are comparable themselves). A group that has a channel without a score stays.
    """
    compared = scores if raw else normalised(groups, scores)
    found = np.full(len(scores), np.inf)
    for group in groups:
        if np.isfinite(compared[group.classes]).all():
            found[group.classes] = compared[group.classes]
    return found


def uniform(groups: list[Group], worths: Scores, ratios: Sequence[float]) -> Removed:
    """Of each group the fraction that ``ratios`` has for it, the least worth first."""
    gone = []
    for group, ratio in zip(groups, ratios, strict=True):
        if np.isfinite(worths[group.classes]).all():
            order = np.argsort(worths[group.classes], kind="stable")
            gone.append(group.classes[order[: round(ratio * len(order))]])
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *gone]))


def threshold(groups: list[Group], worths: Scores, ratio: float) -> Removed:
    """The fraction ``ratio`` of all channels, wherever they are worth least."""
    known = [group for group in groups if np.isfinite(worths[group.classes]).all()]
    if not known:
        return np.zeros(0, dtype=np.int64)
    classes = np.concatenate([group.classes for group in known])
    widths = np.concatenate([np.full(len(group.classes), group.width) for group in known])
    order = np.argsort(worths[classes], kind="stable")
    count = int(np.searchsorted(np.cumsum(widths[order]), round(ratio * widths.sum()), "right"))
    return np.sort(classes[order[:count]])


def to_target(
    remove: Callable[[float], Removed], cost: Callable[[Removed], float], target: float
) -> tuple[Removed, Removed]:
    """What goes at two ratios next to each other, of which the second is the least at which
    ``cost`` (1 for the whole network) is at most ``target``.

    Where no ratio reaches it, twice what comes nearest.
    """
    low, high = 0.0, 1.0
    before, best = remove(low), remove(high)
    if cost(best) > target:
        return best, best
    for _ in range(16):
        middle = (low + high) / 2
        found = remove(middle)
        if cost(found) <= target:
            high, best = middle, found
        else:
            low, before = middle, found
    return before, best
