"""Least inertia: where to cut a line of weighted points into k runs, by dynamic programming.

Let E(c, j) be the least inertia of the first j points in c runs. Then, with the inertia of one run
from i to j a difference of stored sums,

    E(c, j) = min over i < j of  E(c - 1, i) + inertia(i, j)

and the best i never decreases with j (Wu 1991, "Optimal quantization by matrix searching"). So the
best i of every second j bound those of the others, level by level, and a level takes one pass
over its candidates. From c - 1 to c the best i never decreases either, which halves the passes.

The rules:

1. The points are the cells of `cells.py`. No more of them than k: they are the codebook.
2. More than PARTS points are first taken together into PARTS runs, cut where inertia is greatest;
   these even pieces go into the dynamic programming. That is optimal for up to PARTS points.
3. Beyond, Lloyd's algorithm then moves the ends of the k runs, point by point.
4. Where the cells' own inertia matters beside that of the runs, values lie in lumps narrower than
   cells. Then, as for few values, the distinct values are the points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.quantization.cells import Cells, distinct
from compressor.quantization.runs import Bounds, Doubles, Floats, Runs

PARTS = 4096
MOST = 256  # clusters for which this is worth its time, which grows with PARTS k
COARSE = 2e-3


def optimal_centroids(
    values: Floats, cells: Cells, k: int, max_iterations: int
) -> tuple[Doubles, int]:
    """Centroids, float64 ascending, of least inertia for ``values`` (n,) and how often they moved.

    cells: those of the values, from `cells.gather`.

    There are k, or as many as there are distinct values where that is fewer. Within 1 % of the
    optimum for k <= MOST; exactly optimal where there are no more than PARTS distinct values. Lumps
    of values a millionth as wide as the range is are beyond float64 sums: there it may miss both.
    """
    centroids, iterations, inertia = _least(cells, k, max_iterations)
    if cells.spread > COARSE * inertia:
        centroids, iterations, _ = _least(distinct(values), k, max_iterations)
    return centroids, iterations


def _least(cells: Cells, k: int, max_iterations: int) -> tuple[Doubles, int, float]:
    if len(cells.points) <= k:
        return cells.points, 0, 0.0
    line = Line.through(cells)
    pieces = even_pieces(line, PARTS)
    bounds = pieces[cut(line.joined(pieces), min(k, len(pieces) - 1))]
    bounds, iterations = line.settled(bounds, max_iterations)
    return line.means(bounds), iterations, float(np.cumsum(line.inertias(bounds))[-1])


@dataclass(frozen=True)
class Line:
    """Ascending weighted points and their sums; a run of them is ``bounds[r]:bounds[r + 1]``.

    Sums are of distances to a middle point, and count from there to both sides: far points, however
    huge, take no digits from those nearer. They are added one by one, so machines round alike.
    Their roundings hide the inertia of a run narrower than 1e-7 of its distance to the middle.

    points: float64 (m,). own: float64 (m,), the inertia within each. sizes, sums, squares: float64
    (m + 1,), of weights, distances and squared distances.
    """

    points: Doubles
    own: Doubles
    origin: float
    sizes: Doubles
    sums: Doubles
    squares: Doubles

    @property
    def length(self) -> int:
        return len(self.points)

    @classmethod
    def through(cls, cells: Cells) -> "Line":
        """The cells as points without inertia of their own."""
        origin = float(cells.points[len(cells.points) // 2])
        sizes, offsets = cells.counts.astype(np.float64), cells.points - origin
        terms = (sizes, sizes * offsets, sizes * offsets * offsets)
        return cls(cells.points, np.zeros(len(offsets)), origin, *map(_sums, terms))

    def joined(self, bounds: Bounds) -> "Line":
        """Runs as points."""
        sums = (of[bounds] for of in (self.sizes, self.sums, self.squares))
        return Line(self.means(bounds), self.inertias(bounds), self.origin, *sums)

    def means(self, bounds: Bounds) -> Doubles:
        """The mean of each run; none may be empty."""
        means = np.diff(self.sums[bounds]) / np.diff(self.sizes[bounds]) + self.origin
        return np.clip(means, self.points[bounds[:-1]], self.points[bounds[1:] - 1])

    def inertias(self, bounds: Bounds) -> Doubles:
        """Sum of squared distances of each run's points to their mean."""
        return self.between(bounds[:-1], bounds[1:])

    def between(self, start: Bounds, end: Bounds) -> Doubles:
        """The inertia of each run from ``start`` to ``end``, which must be greater."""
        squares = self.squares[end] - self.squares[start]
        sums = self.sums[end] - self.sums[start]
        inertia = squares - sums * sums / (self.sizes[end] - self.sizes[start])
        inertia = np.maximum(inertia, 0)
        # Where one point is all, only the rounding of the sums would be left.
        alone = end - start == 1
        inertia[alone] = self.own[start[alone]]
        return inertia

    def middles(self, bounds: Bounds) -> Bounds:
        """Where to cut each run at its mean; both parts have points if it has two."""
        below = np.searchsorted(self.points, self.means(bounds), side="right")
        return np.clip(np.minimum(below, bounds[1:] - 1), bounds[:-1], bounds[1:])

    def settled(self, bounds: Bounds, max_iterations: int) -> tuple[Bounds, int]:
        """Lloyd's algorithm from ``bounds``; and how often it moved them."""
        for iteration in range(max_iterations):
            means = self.means(bounds)
            inner = np.searchsorted(self.points, (means[1:] + means[:-1]) / 2, side="right")
            nearest = np.concatenate([[0], inner, [len(self.points)]])
            if np.array_equal(nearest, bounds) or (np.diff(nearest) == 0).any():
                return bounds, iteration
            bounds = nearest
        return bounds, max_iterations


def even_pieces(line: Line | Runs, count: int) -> Bounds:
    """Bounds of ``count`` runs of much the same inertia: those of most are cut at their mean.

    Fewer where no run has an inertia any more. Runs of least inertia are like that where they are
    many, so for thousands of clusters this is where to start.
    """
    bounds = np.array([0, line.length])
    while len(bounds) <= count:
        inertias = line.inertias(bounds)
        # Cut evenly, a run leaves eighths of its inertia; those come after the others.
        (runs,) = np.nonzero((inertias > 0) & (inertias >= inertias.max() / 8))
        if not len(runs):
            break
        most = runs[np.argsort(-inertias[runs], kind="stable")]
        chosen = np.sort(most[: count + 1 - len(bounds)])
        bounds = np.insert(bounds, chosen + 1, line.middles(bounds)[chosen])
    return bounds


def cut(line: Line, k: int) -> Bounds:
    """Bounds (k + 1,) of the k runs that have the least inertia together; of >= k points."""
    m = len(line.points)
    least = np.full(m + 1, np.inf)
    least[1:] = line.between(np.zeros(m, np.intp), np.arange(1, m + 1))
    starts = np.zeros((k + 1, m + 1), np.int32)  # [c, j]: where the last of c runs to j starts
    for c in range(2, k + 1):
        least = _with_one_more(line, least, starts[c - 1], c, starts[c])
    bounds = [m]
    for c in range(k, 0, -1):
        bounds.append(int(starts[c, bounds[-1]]))
    return np.array(bounds[::-1])


def _with_one_more(
    line: Line, least: Doubles, fewer: NDArray[np.int32], c: int, starts: NDArray[np.int32]
) -> Doubles:
    """E(c, j) for all j from ``least`` = E(c - 1, j); sets ``starts``.

    Each level of a binary tree of rows j at once, from the root: the best starts of the rows on
    both sides are known by then and bound a row's own, as does the one for a run fewer, ``fewer``.
    """
    m = len(line.points)
    found = np.full(m + 1, np.inf)
    starts[c - 1] = c - 1
    step = 1 << (m - c).bit_length()
    while step:
        ends = np.arange(c - 1 + step, m + 1, 2 * step)
        low = np.maximum(starts[ends - step], fewer[ends])
        high = ends - 1
        known = ends + step <= m
        high[known] = np.minimum(high[known], starts[ends[known] + step])
        lengths = np.maximum(high - low, 0) + 1
        first = np.cumsum(lengths) - lengths
        tried = np.arange(int(lengths.sum())) + np.repeat(low - first, lengths)
        costs = least[tried] + line.between(tried, np.repeat(ends, lengths))
        found[ends] = np.minimum.reduceat(costs, first)
        best = np.flatnonzero(costs == np.repeat(found[ends], lengths))
        starts[ends] = tried[best[np.searchsorted(best, first)]]
        step //= 2
    return found


def _sums(terms: Doubles) -> Doubles:
    """S, (m + 1,), with S[j] - S[i] the sum of terms i to j - 1, counted from the middle."""
    middle = len(terms) // 2
    below, above = -np.cumsum(terms[:middle][::-1])[::-1], np.cumsum(terms[middle:])
    return np.concatenate([below, [0.0], above])
