"""One-dimensional k-means for weight sharing (Deep Compression, sections 3.1 and 3.2).

There are two ways. From the paper's three starts, Lloyd's algorithm goes down to a local optimum,
as there. ``optimal`` goes to the global one, or so near that it makes no difference, and is faster.

On a line every cluster is one run of the sorted values, so Lloyd's algorithm needs neither
distances nor labels while it runs. With the values sorted once and their sums kept, one iteration
is k - 1 binary searches for the midpoints between centroids and k differences of sums::

    sort                     O(n log n)   once
    one Lloyd iteration      O(k log n)   exact: the very step of the textbook algorithm
    labels                   O(n)         once, in the order of the input

That is cheap enough for thousands of iterations. They are worth it: after the customary 300 from a
linear start, 256 clusters of a normal distribution have three times the inertia of the optimum.

The rules, which leave nothing to chance or to the machine:

1. A value belongs to the nearest centroid; half-way between two, to the lower.
2. A centroid moves to the mean of its values.
3. A centroid without values moves to where it is of use. Two ways are known, neither always the
   better, so where it happens both are followed to the end and the lower inertia wins: the value
   farthest from its centroid (as scikit-learn does), or one half of the cluster of greatest
   inertia, cut at its mean (far better where a few outliers stretch the range).
4. Where no value has a nearer centroid, Lloyd's algorithm would stop, often far from an optimum.
   Single values then change clusters where that lowers the inertia once the means have followed
   (Hartigan and Wong, 1979). It ends where no such value is left, or after ``max_iterations``.
5. Centroids are then rounded to float32; labels and inertia are those of the rounded codebook.
6. For ``optimal``, rules 1 and 2 hold among cells of values (`cells.py`) in place of single ones,
   and dynamic programming (`optimal.py`) finds the runs of cells to start with. Beyond MOST
   clusters that takes too long: rules 1 to 5 then start from runs of much the same inertia.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from compressor.errors import StageError
from compressor.quantization.cells import gather
from compressor.quantization.labels import Labels, labelled_inertia, nearest_labels
from compressor.quantization.optimal import MOST, even_pieces, optimal_centroids
from compressor.quantization.runs import CHUNK, Bounds, Doubles, Floats, Runs

Start = Literal["linear", "density", "random"]
Init = Literal[Start, "optimal"]
STARTS: tuple[Start, ...] = get_args(Start)
INITS: tuple[Init, ...] = get_args(Init)


@dataclass(frozen=True)
class Clustering:
    """What k-means found: ``codebook[labels]`` are the shared values.

    codebook: float32 (m,), ascending and distinct, every entry used, m <= k.
    labels: (n,), the smallest unsigned type that holds m - 1, in the order of the input.
    inertia: sum of squared distances between the values and their codebook entries.
    iterations: how often the centroids were moved.
    """

    codebook: Floats
    labels: Labels
    inertia: float
    iterations: int


def cluster(
    values: Floats,
    k: int,
    *,
    init: Init = "linear",
    seed: int = 0,
    max_iterations: int | None = None,
) -> Clustering:
    """Cluster ``values``, float32 (n,), into at most k shared values.

    init: where Lloyd's algorithm starts, ``linear``, ``density`` or ``random`` (see
    :func:`initial_centroids`); or ``optimal`` for an inertia within 1 % of the least there is for
    up to 256 clusters, the very least where no more than 4096 values are distinct.

    Where there are no more than k distinct values, they are the codebook and the inertia is 0.
    ``max_iterations`` is 2000 unless given, fewer for thousands of clusters: see
    :func:`default_iterations`. Apart from ``labels``, and from the last digits of the inertia for
    ``optimal``, the result does not depend on the order of the values. Peak memory is about 1.5 x
    the input, next to the input; about 0.3 x for ``optimal`` and up to 256 clusters.

    Raises StageError for k < 1, for no values at all, and for NaN or infinite ones.
    """
    if values.dtype != np.float32 or values.ndim != 1:
        raise ValueError(f"values must be float32 of shape (n,), not {values.dtype} {values.shape}")
    limit = default_iterations(k) if max_iterations is None else max_iterations
    if k < 1 or limit < 1:
        raise StageError(f"k = {k}, max_iterations = {limit}: both must be 1 or more")
    if init not in INITS:
        raise StageError(f"init = {init!r} is not known; use one of {', '.join(INITS)}")
    if not len(values):
        raise StageError("no values to cluster; prune less, or leave this layer out of sharing")
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):  # NaN is both
        raise StageError("NaN or infinite weights cannot be clustered; repair or retrain the model")
    if init == "optimal" and k <= MOST:
        return _optimal(values, k, limit)
    return _descended(values, k, init, seed, limit)


def default_iterations(k: int) -> int:
    """As many as take about a second, up to 2000: 256 clusters of most layers end well before."""
    return max(64, min(2_000, (1 << 22) // max(k, 1)))


def initial_centroids(ordered: Floats, k: int, init: Start, seed: int = 0) -> Doubles:
    """Where k-means starts (Deep Compression, section 3.2): float64 (k,), ascending.

    ordered: ascending float32 (n,). linear: evenly spaced from minimum to maximum, which keeps the
    few large weights well represented. density: the values at the middles of k equal steps of the
    cumulative distribution. random (Forgy): k of the values, drawn without replacement, so k <= n.
    Values that occur more than once may be drawn more than once, by density as well.
    """
    n = len(ordered)
    if init == "linear":
        return np.linspace(float(ordered[0]), float(ordered[-1]), k)
    if init == "density":
        return ordered[(2 * np.arange(k) + 1) * n // (2 * k)].astype(np.float64)
    # The raw stream of PCG64 is the same in every version of NumPy; its samplers are not.
    generator, drawn = np.random.PCG64(seed), set[int]()
    while len(drawn) < min(k, n):
        drawn.add(int(generator.random_raw()) * n >> 64)
    return ordered[sorted(drawn)].astype(np.float64)


def _optimal(values: Floats, k: int, max_iterations: int) -> Clustering:
    """Rules 6 and 5: at most a few values are sorted."""
    cells = gather(values)
    centroids, iterations = optimal_centroids(values, cells, k, max_iterations)
    codebook = centroids.astype(np.float32) + np.float32(0)
    before = np.cumsum(cells.counts)
    tails = np.searchsorted(before, [before[-1] * 0.001, before[-1] * 0.999])
    low, high = cells.points[tails].astype(np.float32)
    labels = nearest_labels(values, codebook, low, high)
    inertia, counts = labelled_inertia(values, codebook, labels)
    if not counts.all():  # values of one cell that went to both of its neighbours
        codebook = codebook[counts > 0]
        labels = nearest_labels(values, codebook, low, high)
    return Clustering(codebook, labels, inertia, iterations)


def _descended(values: Floats, k: int, init: Init, seed: int, max_iterations: int) -> Clustering:
    """Rules 1 to 5, with everything sorted."""
    ordered = np.sort(values)
    runs = Runs(ordered)
    centroids, iterations = _distinct(ordered, k), 0
    if centroids is None:
        if init == "optimal":
            start = runs.means(even_pieces(runs, k))
        else:
            start = initial_centroids(ordered, k, init, seed)
        centroids, iterations = _best_descent(runs, start, max_iterations)
    # Means of disjoint runs stay distinct when rounded: between any two lies the float32 value that
    # ends the lower run, and the one that starts the upper. Adding 0 turns -0.0 into 0.0.
    codebook = centroids.astype(np.float32) + np.float32(0)
    bounds = runs.nearest(codebook)
    codebook = codebook[bounds[1:] > bounds[:-1]]
    inertia = _inertia(ordered, codebook, np.unique(bounds))
    tail = len(ordered) // 1000
    labels = nearest_labels(values, codebook, ordered[tail], ordered[-1 - tail])
    return Clustering(codebook, labels, inertia, iterations)


def _distinct(ordered: Floats, limit: int) -> Doubles | None:
    """The distinct values, or None where there are more than ``limit``: O(limit log n)."""
    found, position = list[np.float32](), 0
    while position < len(ordered):
        if len(found) == limit:
            return None
        found.append(ordered[position])
        position += int(np.searchsorted(ordered[position:], ordered[position], side="right"))
    return np.array(found, dtype=np.float64)


def _best_descent(runs: Runs, start: Doubles, max_iterations: int) -> tuple[Doubles, int]:
    """Centroids (k,) and the number of moves: rules 1 to 4 from ascending centroids ``start``."""
    outcomes = []
    for refill in (_farthest_values, _halves_of_worst):
        centroids, iterations, refilled = _descend(runs, start, max_iterations, refill)
        inertia = runs.inertias(np.unique(runs.nearest(centroids))).sum()
        outcomes.append((inertia, iterations, centroids))
        if not refilled:
            break
    _, iterations, centroids = min(outcomes, key=lambda outcome: outcome[0])
    return centroids, iterations


# (runs, bounds of the non-empty ones, their centroids, how many to add) -> bounds with those added
Refill = Callable[[Runs, Bounds, Doubles, int], Bounds]


def _descend(
    runs: Runs, centroids: Doubles, max_iterations: int, refill: Refill
) -> tuple[Doubles, int, bool]:
    """Centroids, the number of moves, and whether any centroid was ever without values."""
    before, refilled = np.empty(0, np.intp), False
    for iteration in range(max_iterations):
        bounds = runs.nearest(centroids)
        used = bounds[1:] > bounds[:-1]
        if np.array_equal(bounds, before):
            bounds = runs.exchanged(bounds) if used.all() else bounds
            if np.array_equal(bounds, before):
                return centroids, iteration, refilled
        before = bounds
        if not used.all():
            refilled = True
            bounds = refill(runs, np.unique(bounds), centroids[used], int(np.sum(~used)))
        centroids = runs.means(bounds)
    return centroids, max_iterations, refilled


def _farthest_values(runs: Runs, bounds: Bounds, centroids: Doubles, count: int) -> Bounds:
    """Make each of the ``count`` values farthest from their centroids a run of its own.

    They lie at the ends of runs: the search starts from the farthest ends and goes inwards.
    """
    ordered, k = runs.ordered, len(centroids)
    ends = np.concatenate([bounds[:-1], bounds[1:] - 1])
    distances = np.abs(ordered[ends] - np.tile(centroids, 2))
    first = np.argsort(-distances, kind="stable")[:count]
    heap = [(-float(distances[i]), int(ends[i]), int(i)) for i in first]
    heapq.heapify(heap)
    alone = set[int]()
    while len(alone) < count and heap:
        _, position, i = heapq.heappop(heap)
        alone.add(position)
        run, inwards = i % k, position + (1 if i < k else -1)
        if bounds[run] <= inwards < bounds[run + 1]:
            distance = abs(float(ordered[inwards]) - centroids[run])
            heapq.heappush(heap, (-distance, inwards, i))
    singles = np.array(sorted(alone))
    refilled = np.unique(np.concatenate([bounds, singles, singles + 1]))
    # A run that went into single values altogether leaves its centroid to be placed again.
    return _halves_of_worst(runs, refilled, centroids, k + count + 1 - len(refilled))


def _halves_of_worst(runs: Runs, bounds: Bounds, _centroids: Doubles, count: int) -> Bounds:
    """Cut the run of greatest inertia at its mean, ``count`` times.

    There is always one with two distinct values to part: there are more of those than centroids.
    """
    spans = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    inertias = runs.inertias(bounds).tolist()
    heap = [(-inertia, *span) for inertia, span in zip(inertias, spans, strict=True)]
    heapq.heapify(heap)
    added = []
    for _ in range(count):
        _, start, end = heapq.heappop(heap)
        cut = int(runs.middles(np.array([start, end]))[0])
        lower, upper = runs.inertias(np.array([start, cut, end])).tolist()
        heapq.heappush(heap, (-lower, start, cut))
        heapq.heappush(heap, (-upper, cut, end))
        added.append(cut)
    return np.sort(np.concatenate([bounds, np.array(added, np.intp)]))


def _inertia(ordered: Floats, codebook: Floats, bounds: Bounds) -> float:
    """Sum of squared distances, where ``ordered[bounds[i]:bounds[i + 1]]`` share codebook[i]."""
    total = 0.0
    for start in range(0, len(ordered), CHUNK):
        chunk = ordered[start : start + CHUNK].astype(np.float64)
        inside = np.clip(bounds, start, start + len(chunk))
        total += float(np.sum((chunk - np.repeat(codebook, inside[1:] - inside[:-1])) ** 2))
    return total
