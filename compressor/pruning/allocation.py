"""Allocation: how a sparsity is shared out among layers, exactly to the weight.

Pure functions on arrays. A *score* is what a weight is worth, its magnitude for example; the lowest
scores are pruned, and of equal ones those that stand first, so the same scores give the same masks.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, NDArray[np.floating]]
Masks = dict[str, NDArray[np.bool_]]
Floats = NDArray[np.float64]


def allocate(scores: Scores, sparsities: Mapping[str, float], scope: str) -> Masks:
    """A mask per layer, False for what is pruned, of the layer's shape.

    ``scope`` "layer" prunes round(sparsity x n) of each layer's n weights. The others take one
    sparsity for all and prune round(sparsity x N) of the N weights of all layers together.
    """
    if scope == "layer":
        return {
            name: without_lowest(values, zeros(sparsities[name], values.size))
            for name, values in scores.items()
        }
    total = zeros(max(sparsities.values()), sum(values.size for values in scores.values()))
    if scope == "erk":
        counts = erk_zeros({name: values.shape for name, values in scores.items()}, total)
        return {name: without_lowest(values, counts[name]) for name, values in scores.items()}
    return _pooled(scores, total, lamp if scope == "lamp" else np.ravel)


def zeros(sparsity: float, weights: int) -> int:
    """round(sparsity x weights), halves to even."""
    return round(sparsity * weights)


def sparsity(masks: Masks) -> float:
    """Of all these layers together."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.size for m in masks.values())


def without_lowest(scores: NDArray[np.floating], count: int) -> NDArray[np.bool_]:
    """True but for the ``count`` lowest scores; of equal scores the first go first."""
    if not count:
        return np.ones(scores.shape, bool)
    flat = scores.ravel()
    last = np.partition(flat, count - 1)[count - 1]  # the highest that goes
    mask: NDArray[np.bool_] = flat < last
    lower = int(mask.sum())
    np.logical_not(mask, out=mask)
    mask[np.flatnonzero(flat == last)[: count - lower]] = False
    return mask.reshape(scores.shape)


def lamp(scores: NDArray[np.floating]) -> Floats:
    """Layer-adaptive scores (n,): w^2 over the sum of all squares that are no smaller.

    Lee et al. 2021 (arXiv:2010.07611, equation 1). The largest weight of every layer scores 1, so
    no layer vanishes before all others are down to one weight.
    """
    squares = np.square(scores.ravel().astype(np.float64))
    order = np.argsort(squares, kind="stable")
    remaining = np.cumsum(squares[order][::-1])[::-1]
    adaptive = np.zeros_like(squares)
    adaptive[order] = np.divide(
        squares[order], remaining, out=np.zeros_like(squares), where=remaining > 0
    )
    return adaptive


def erk_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Erdos-Renyi-kernel densities whose weighted mean is ``density``.

    A layer's is proportional to (out + in + height + width) / (out x in x height x width); where
    that passes 1 the layer stays dense, and the rest share what is left (Evci et al. 2020,
    arXiv:1911.11134, section 3).
    """
    sizes = {name: float(np.prod(shape)) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = {name for name in rest if raw[name] * scale > 1}
        if not full:
            return {name: 1.0 if name in dense else raw[name] * scale for name in shapes}
        # The densest only: that leaves more to the others, of which some may not be full then.
        highest = max(raw[name] for name in full)
        dense |= {name for name in full if raw[name] == highest}


def erk_zeros(shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, int]:
    """Zeros per layer by these densities, ``total`` in all: the largest remainders round up."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    densities = erk_densities(shapes, 1 - total / sum(sizes.values()))
    wanted = {name: size * (1 - densities[name]) for name, size in sizes.items()}
    counts = {name: min(int(value), sizes[name]) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _pooled(scores: Scores, total: int, flat: Callable[..., NDArray[np.floating]]) -> Masks:
    mask = without_lowest(np.concatenate([flat(values) for values in scores.values()]), total)
    ends = np.cumsum([values.size for values in scores.values()])[:-1]
    parts = zip(scores.items(), np.split(mask, ends), strict=True)
    return {name: part.reshape(values.shape) for (name, values), part in parts}
