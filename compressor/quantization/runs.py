"""Clusters on a line: runs of ascending values, between the midpoints of ascending centroids.

A run is ``ordered[bounds[i]:bounds[i + 1]]``. Everything that k-means asks of it (its mean, its
inertia, where it ends) comes from a few stored sums and binary searches, without touching its
values: O(log n) each.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bounds = NDArray[np.intp]

BLOCK = 16  # values per stored sum: an eighth of the memory of the values themselves
CHUNK = 1 << 16  # values handled at once where temporaries are needed; fits the L2 cache


class Runs:
    """Means and inertias of runs of ``ordered``: finite, ascending float32 (n,).

    Sums are float64, added one by one, so every machine rounds alike.
    """

    def __init__(self, ordered: Floats) -> None:
        self.ordered = ordered
        self._sums = _block_sums(ordered, 1)

    @property
    def length(self) -> int:
        return len(self.ordered)

    @cached_property
    def _squares(self) -> Doubles:
        return _block_sums(self.ordered, 2)

    def nearest(self, centroids: Floats | Doubles) -> Bounds:
        """Bounds (k + 1,) of the values nearest to each of k ascending centroids; empty runs too.

        A value half-way between two centroids belongs to the lower.
        """
        inner = np.searchsorted(self.ordered, cuts(centroids), side="right")
        return np.concatenate([[0], inner, [len(self.ordered)]])

    def means(self, bounds: Bounds) -> Doubles:
        """Mean of each run; none may be empty."""
        means = self._over(bounds, self._sums, 1) / (bounds[1:] - bounds[:-1])
        # A difference of large sums may miss by a rounding; a mean lies within its run.
        return np.clip(means, self.ordered[bounds[:-1]], self.ordered[bounds[1:] - 1])

    def inertias(self, bounds: Bounds) -> Doubles:
        """Sum of squared distances to the mean of each run: > 0 if its values differ, else 0."""
        sums, squares = self._over(bounds, self._sums, 1), self._over(bounds, self._squares, 2)
        spans = self.ordered[bounds[1:] - 1].astype(np.float64) - self.ordered[bounds[:-1]]
        # The two ends alone give span^2 / 2, a floor for what cancellation may leave.
        inertias = np.maximum(squares - sums**2 / (bounds[1:] - bounds[:-1]), spans**2 / 2)
        inertias[spans == 0] = 0
        return inertias

    def middles(self, bounds: Bounds) -> Bounds:
        """Where to cut each run at its mean; both parts have values if it has two distinct ones."""
        starts, ends = bounds[:-1], bounds[1:]
        below = np.searchsorted(self.ordered, _round_down(self.means(bounds)), side="right")
        # Rounding may put the mean on the maximum; the upper part must not come out empty.
        below_last = np.searchsorted(self.ordered, self.ordered[ends - 1], side="left")
        # Equal values may go on beyond the run.
        return np.clip(np.minimum(below, below_last), starts, ends)

    def exchanged(self, bounds: Bounds) -> Bounds:
        """Move single values across bounds where that lowers the inertia; the same if none does.

        A mean follows the value that joins its run, and backs off from one that leaves. Counting
        that in (Hartigan and Wong, 1979), a value may do better in a run whose mean is farther.
        """
        means, sizes = self.means(bounds), bounds[1:] - bounds[:-1]

        def joining(values: Doubles, run: Bounds) -> Doubles:
            added: Doubles = (values - means[run]) ** 2 * sizes[run] / (sizes[run] + 1)
            return added

        def leaving(values: Doubles, run: Bounds) -> Doubles:
            saved: Doubles = (values - means[run]) ** 2 * sizes[run] / np.maximum(sizes[run] - 1, 1)
            return saved * (1 - 1e-9)  # a gain must be more than a rounding

        for first in (1, 2):  # every other bound: no run is changed from both its ends
            right = np.arange(first, len(bounds) - 1, 2)
            left, moved = right - 1, bounds.copy()
            last = self.ordered[bounds[right] - 1].astype(np.float64)
            following = self.ordered[bounds[right]].astype(np.float64)
            up = leaving(last, left) - joining(last, right)
            down = leaving(following, right) - joining(following, left)
            moved[right] += np.where(np.maximum(up, down) > 0, np.where(down > up, 1, -1), 0)
            if not np.array_equal(moved, bounds):
                return moved
        return bounds

    def _over(self, bounds: Bounds, block_sums: Doubles, power: int) -> Doubles:
        blocks = bounds // BLOCK
        positions = blocks * BLOCK + np.arange(BLOCK)[:, None]  # (BLOCK, runs + 1)
        rest = self.ordered.take(positions, mode="clip").astype(np.float64) ** power
        rest[positions >= bounds] = 0
        before: Doubles = block_sums[blocks] + rest.sum(axis=0)
        return before[1:] - before[:-1]


def cuts(centroids: Floats | Doubles) -> Floats:
    """The greatest float32 that belongs to the lower of each two neighbours: (k - 1,)."""
    exact = centroids.astype(np.float64)
    return _round_down((exact[:-1] + exact[1:]) / 2)


def _round_down(exact: Doubles) -> Floats:
    """v <= exact if and only if v <= _round_down(exact), for every float32 v."""
    rounded = exact.astype(np.float32)
    return np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _block_sums(ordered: Floats, power: int) -> Doubles:
    """Sum of ``ordered[: i * BLOCK] ** power`` for every i: float64 (n // BLOCK + 1,)."""
    sums = np.zeros(len(ordered) // BLOCK + 1)
    before = 0.0
    for start in range(0, len(ordered), CHUNK):
        running = np.cumsum(ordered[start : start + CHUNK].astype(np.float64) ** power)
        running += before
        before = running[-1]
        ends = running[BLOCK - 1 :: BLOCK]
        sums[start // BLOCK + 1 :][: len(ends)] = ends
    return sums
