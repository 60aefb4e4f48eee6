"""Weight sharing that knows what its indices will cost: entropy-constrained scalar quantization.

K-means asks only for the least error. Behind an entropy coder that is the wrong question: rare
centroids cost many bits, frequent ones few, and zero is the cheapest of all. Entropy-constrained
quantization (Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization") minimises

    sum over weights of  (w - c)^2 + lambda * bits(c),    bits(c) = -log2(share of weights at c)

by turns: assign each weight to the centroid where error and bits together are least, move centroids
to the means of their weights, count again. Each turn lowers the sum. Zero is a centroid that does
not move; pruned weights stay there, so that its share tells what positions cost, and weights
that are not worth their bits join them. Centroids that nobody chooses vanish.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.errors import StageError
from compressor.quantization.clustering import Init, cluster
from compressor.quantization.runs import Doubles, Floats, Runs

MAX_TURNS = 200


@dataclass(frozen=True)
class Quantization:
    """What `quantize` found.

    Attributes:
        codebook: (m,) float32, ascending, none of them 0.
        indices: (n,) int32; 0 is zero, i > 0 is ``codebook[i - 1]``.
        inertia: sum of squared errors.
        bits: ideal code length of the tensor's indices, pruned weights included, in bits.
    """

    codebook: Floats
    indices: NDArray[np.int32]
    inertia: float
    bits: float


def quantize(
    values: Floats, k: int, rate: float, *, pruned: int = 0, init: Init = "linear", seed: int = 0
) -> Quantization:
    """Quantize ``values`` (n,) to zero and at most k centroids.

    Args:
        values: the weights that are not pruned, float32, finite.
        rate: lambda over the mean square of ``values``: what a bit is worth. The error per weight
            comes out near 0.7 x ``rate`` of the mean square where codes are fine (the slope of
            D(R), Gish and Pierce 1968); 0 is k-means with zero as one more centroid.
        pruned: how many weights of the tensor are zero already.
        init, seed: of the k-means that it starts from.

    Raises StageError for a negative rate, and for what `cluster` refuses.
    """
    if not rate >= 0:
        raise StageError(f"a rate is 0 or more, not {rate}")
    start = cluster(values, k, init=init, seed=seed)
    ordered = np.sort(values)
    runs = Runs(ordered)
    price = rate * float(np.mean(values.astype(np.float64) ** 2))
    total = len(values) + pruned
    moved = start.codebook.astype(np.float64)
    counts = np.bincount(start.labels, minlength=len(moved)).astype(np.float64)
    zeros = float(pruned)
    last = None
    for _ in range(MAX_TURNS):
        used = counts > 0
        entries = np.concatenate([moved[used], [0.0]])
        shares = np.concatenate([counts[used], [max(zeros, 1.0)]]) / total
        order = np.argsort(entries, kind="stable")
        entries, costs = entries[order], -price * np.log2(shares[order])
        entries, edges = _envelope(entries, costs)
        bounds = np.concatenate([[0], np.searchsorted(ordered, edges), [len(ordered)]])
        if last is not None and np.array_equal(bounds, last):
            break
        last = bounds
        sizes = np.diff(bounds)
        at_zero = entries == 0
        zeros = pruned + float(sizes[at_zero].sum())
        kept = ~at_zero & (sizes > 0)
        counts = sizes[kept].astype(np.float64)
        moved = _means(runs, bounds, kept)
    return _result(values, entries, edges, total, pruned)


def _means(runs: Runs, bounds: NDArray[np.intp], kept: NDArray[np.bool_]) -> Doubles:
    """Means of the runs that are kept."""
    found = [runs.means(bounds[i : i + 2])[0] for i in np.flatnonzero(kept)]
    return np.array(found, dtype=np.float64)


def _envelope(entries: Doubles, costs: Doubles) -> tuple[Doubles, Doubles]:
    """The entries that are best for some weight, ascending, and the weights between them.

    Up to w^2, the cost of entry c at weight w is the line c^2 + cost - 2 c w; the best entries are
    those on the lower envelope of the lines.
    """
    kept: list[int] = []
    edges: list[float] = []
    heights = entries**2 + costs
    for i in range(len(entries)):
        while kept:
            j = kept[-1]
            if entries[i] == entries[j]:
                edge = -np.inf if heights[i] < heights[j] else np.inf
            else:
                edge = (heights[i] - heights[j]) / (2 * (entries[i] - entries[j]))
            if (edges and edge <= edges[-1]) or edge == -np.inf:
                kept.pop()
                if edges:
                    edges.pop()
                continue
            break
        if not kept:
            kept.append(i)
        elif edge < np.inf:
            kept.append(i)
            edges.append(float(edge))
    return entries[kept], np.array(edges)


def _result(
    values: Floats, entries: Doubles, edges: Doubles, total: int, pruned: int
) -> Quantization:
    found = np.searchsorted(edges, values, side="right")
    counts = np.bincount(found, minlength=len(entries))
    used = (counts > 0) & (entries != 0)
    number = np.cumsum(used) * used
    codebook = entries[used].astype(np.float32)
    indices = number[found].astype(np.int32)
    table = np.concatenate([np.zeros(1), codebook.astype(np.float64)])
    inertia = float(np.sum((values - table[indices]) ** 2))
    shares = np.append(counts[used], total - counts[used].sum()) / total
    shares = shares[shares > 0]
    return Quantization(
        codebook, indices, inertia, float(-total * np.sum(shares * np.log2(shares)))
    )
