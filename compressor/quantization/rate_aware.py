"""Weight sharing that knows what its indices will cost: entropy-constrained scalar quantization.

K-means asks only for the least error. Behind an entropy coder that is the wrong question: rare
centroids cost many bits, frequent ones few, and zero is the cheapest of all. Entropy-constrained
quantization (Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization") minimises

    sum over weights of  h (w - c)^2 + lambda * bits(c),    bits(c) = -log2(share of weights at c)

by turns: assign each weight to the centroid where error and bits together are least, move centroids
to the means of their weights, count again. Each turn lowers the sum. Zero is a centroid that does
not move; pruned weights stay there, so that its share tells what positions cost, and weights
that are not worth their bits join them. Centroids that nobody chooses vanish.

h is what an error in a weight costs the loss (the diagonal of the Fisher information: Choi,
El-Khamy and Lee 2017, "Towards the limit of network quantization", section 3), 1 where unknown. It
is taken in steps of half an octave, so that weights of one step share their decision bounds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.errors import StageError
from compressor.quantization.clustering import Init, cluster
from compressor.quantization.runs import Doubles, Floats, Runs

MAX_TURNS = 200
RANGE = 12  # octaves: a weight that costs less than the largest by more counts as if by so many


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
    values: Floats,
    k: int,
    rate: float,
    *,
    importance: Floats | None = None,
    pruned: int = 0,
    init: Init = "linear",
    seed: int = 0,
) -> Quantization:
    """Quantize ``values`` (n,) to zero and at most k centroids.

    Args:
        values: the weights that are not pruned, float32, finite.
        rate: lambda over the mean square of ``values``: what a bit is worth. The error per weight
            comes out near 0.7 x ``rate`` of the mean square where codes are fine (the slope of
            D(R), Gish and Pierce 1968); 0 is k-means with zero as one more centroid.
        importance: (n,) float32, 0 or more: h of each weight, in any unit.
        pruned: how many weights of the tensor are zero already.
        init, seed: of the k-means that it starts from.

    Raises StageError for a negative rate, and for what `cluster` refuses.
    """
    if not rate >= 0:
        raise StageError(f"a rate is 0 or more, not {rate}")
    start = cluster(values, k, init=init, seed=seed)
    step_of, parts = _parts(values, importance)
    price = rate * float(np.mean(values.astype(np.float64) ** 2))
    total = len(values) + pruned
    moved = start.codebook.astype(np.float64)
    counts = np.bincount(start.labels, minlength=len(moved)).astype(np.float64)
    zeros = float(pruned)
    last: list[Doubles] | None = None
    for _ in range(MAX_TURNS):
        used = counts > 0
        entries = np.concatenate([moved[used], [0.0]])
        shares = np.concatenate([counts[used], [max(zeros, 1.0)]]) / total
        order = np.argsort(entries, kind="stable")
        entries, costs = entries[order], -price * np.log2(shares[order])
        chosen = [_envelope(entries, costs / part.weight) for part in parts]
        sizes, moved = _gather(parts, chosen, entries)
        zeros = pruned + float(sizes[entries == 0].sum())
        counts = np.where(entries == 0, 0.0, sizes)
        edges = [found[1] for found in chosen]
        if last is not None and all(map(np.array_equal, edges, last)):
            break
        last = edges
    found = np.empty(len(values), dtype=np.intp)
    for step, (best, edges_of) in enumerate(chosen):
        inside = step_of == step
        found[inside] = best[np.searchsorted(edges_of, values[inside], side="right")]
    return _result(values, entries, found, pruned)


@dataclass(frozen=True)
class _Part:
    """The weights of one importance: their runs, and h over the mean of all."""

    runs: Runs
    weight: float


def _parts(values: Floats, importance: Floats | None) -> tuple[NDArray[np.intp], list[_Part]]:
    """Which part each value belongs to, (n,), and the parts."""
    if importance is None or not importance.max() > 0:
        return np.zeros(len(values), dtype=np.intp), [_Part(Runs(np.sort(values)), 1.0)]
    wide = importance.astype(np.float64)
    octaves = np.log2(np.maximum(wide, wide.max() * 2.0**-RANGE))
    levels, step_of = np.unique(np.rint(2 * octaves), return_inverse=True)
    weights = 2.0 ** (levels / 2)
    weights /= np.mean(weights[step_of])
    return step_of, [
        _Part(Runs(np.sort(values[step_of == step])), float(weight))
        for step, weight in enumerate(weights)
    ]


def _gather(
    parts: list[_Part], chosen: list[tuple[NDArray[np.intp], Doubles]], entries: Doubles
) -> tuple[Doubles, Doubles]:
    """How many weights chose each entry, and their mean, weighted by importance."""
    sizes, mass, sums = np.zeros((3, len(entries)))
    for part, (best, edges) in zip(parts, chosen, strict=True):
        ordered = part.runs.ordered
        bounds = np.concatenate([[0], np.searchsorted(ordered, edges), [len(ordered)]])
        count = np.diff(bounds)
        filled = best[count > 0]
        means = part.runs.means(np.unique(bounds))
        sizes[best] += count
        mass[filled] += part.weight * count[count > 0]
        sums[filled] += part.weight * count[count > 0] * means
    moved = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), entries)
    return sizes, moved


def _envelope(entries: Doubles, costs: Doubles) -> tuple[NDArray[np.intp], Doubles]:
    """Which entries are best for some weight, ascending, and the weights between them.

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
    return np.array(kept, dtype=np.intp), np.array(edges)


def _result(values: Floats, entries: Doubles, found: NDArray[np.intp], pruned: int) -> Quantization:
    total = len(values) + pruned
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
