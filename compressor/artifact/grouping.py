"""Which rows, columns and kernel positions of a tensor share a scale: the writer's choice.

1. An index's score is the logarithm of its mean magnitude; scores a step apart get classes one
   apart. Several steps are tried, the same for all axes, since classes of axes are added.
2. An axis whose classes cost more than they save is dropped.
3. Each index in turn moves to the class whose tables write its weights in the fewest bits, given
   the classes of the other axes; twice.

Everything is an integer, so the choice is the same on every machine. Sizes on the way are
estimates (entropies, and a typical size of tables); the caller compares exact ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.artifact.classes import MAX_CLASSES, Axis, Classes, one_class, three_axes
from compressor.artifact.types import BLOCK
from compressor.coding import entries_core, native
from compressor.coding.gaps import Symbols
from compressor.coding.modelling import ONE_BIT, entropy, log2

_STEPS = (ONE_BIT // 4, ONE_BIT // 2, ONE_BIT)  # octaves between classes
_GROUPS = 8
_FEWEST_WEIGHTS = 32  # weights of an index for its class to be worth its bits
_TABLE_BITS = 24
_SYMBOL_BITS = 5  # of a table, for each two symbols
_ALL = 1 << 18
_THINNEST = 32

Sums = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Sample:
    """Weights by which classes are chosen: their indices (m,), and where they are on each axis."""

    symbols: Symbols
    places: tuple[Sums, Sums, Sums]
    sizes: tuple[int, int, int]

    def contexts(self, classes: Classes) -> Sums:
        """Return the context of each weight, (m,)."""
        axes = zip(classes.axes, self.places, self.sizes, strict=True)
        first, *others = (axis.astype(np.int64)[at] for axis, at, size in axes if size > 1)
        return sum(others, start=first)


def _sample(flat: Symbols, shape: tuple[int, ...]) -> _Sample:
    """Take all weights of a tensor; of a large one every 2nd to 32nd, in diagonals.

    So each row and each column keeps its share.
    """
    sizes = three_axes(shape)
    columns = sizes[1] * sizes[2]
    step = max(1, min(_THINNEST, len(flat) // _ALL))
    rows = np.arange(sizes[0])[:, None]
    column = np.arange(0, columns, step) + -rows % step
    inside = column < columns
    row, column = np.broadcast_to(rows, column.shape)[inside], column[inside]
    second, third = np.divmod(column, sizes[2]) if sizes[2] > 1 else (column, 0 * column)
    return _Sample(flat[row * columns + column], (row, second, third), sizes)


def find_classes(
    flat: Symbols, shape: tuple[int, ...], codebook: npt.NDArray[np.float32]
) -> Classes:
    """Return classes for indices ``flat`` (n,) of a tensor of ``shape``; perhaps one class."""
    best = one_class(shape)
    if not any(_usable(len(flat), size) for size in three_axes(shape)):
        return best
    sample = _sample(flat, shape)
    usable = [_usable(len(sample.symbols), size) for size in sample.sizes]
    symbols = len(codebook) + 1
    magnitudes = _magnitudes(codebook)
    scores = [log2(1 + sums) for sums in _mean_magnitudes(sample, magnitudes)]
    least = _estimate(sample, best, symbols)
    for step in _STEPS:
        found = Classes(
            tuple(  # type: ignore[arg-type]
                _binned(score, step) if use else none
                for score, use, none in zip(scores, usable, one_class(shape).axes, strict=True)
            )
        )
        if (size := _estimate(sample, found, symbols)) < least:
            best, least = found, size
    for place in range(3):
        without = _with_axis(best, place, np.zeros(sample.sizes[place], dtype=np.uint8))
        if best.numbers[place] > 1 and (size := _estimate(sample, without, symbols)) <= least:
            best, least = without, size
    return _refined(sample, best, magnitudes, symbols, least) if best.tables > 1 else best


def _usable(weights: int, size: int) -> bool:
    """Whether an axis of ``size`` may have classes."""
    return weights >= _FEWEST_WEIGHTS * size and size > 1


def count_tables(cube: Symbols, classes: Classes, symbols: int) -> Sums:
    """Return how often each symbol occurs in each context, (tables, symbols)."""
    counts = np.zeros((classes.tables, symbols), dtype=np.int64)
    core = native.library()
    if core is not None:
        entries_core.count_tables(core, cube.reshape(-1), classes.of_matrix(), counts)
        return counts
    plane = cube.shape[1] * cube.shape[2]
    rows = max(1, BLOCK // plane)
    for start in range(0, cube.shape[0], rows):
        block = cube[start : start + rows]
        keys = classes.contexts(start * plane, (start + len(block)) * plane).astype(np.int64)
        keys = keys * symbols + block.reshape(-1)
        counts += np.bincount(keys, minlength=counts.size).reshape(counts.shape)
    return counts


def _estimate(sample: _Sample, classes: Classes, symbols: int) -> int:
    """Return about how many bits, in 2^-16, the weights, tables and classes take."""
    keys = sample.contexts(classes) * symbols + sample.symbols
    counts = np.bincount(keys, minlength=classes.tables * symbols).reshape(-1, symbols)
    tables = _TABLE_BITS * classes.tables + _SYMBOL_BITS * int(np.count_nonzero(counts)) // 2
    sequences = sum(entropy(np.bincount(axis)) for axis in classes.axes)
    return entropy(counts) + tables * ONE_BIT + sequences


def _magnitudes(codebook: npt.NDArray[np.float32]) -> Sums:
    """Return |w| of each index, (k + 1,), as integers up to 2^16; not finite counts as largest."""
    finite = np.isfinite(codebook)
    wide = np.abs(np.where(finite, codebook, np.float32(0)).astype(np.float64))
    largest = float(wide.max(initial=0.0)) or 1.0
    scaled = np.where(finite, np.rint(wide / largest * 65536.0), 65536.0)
    return np.concatenate([[0], np.maximum(scaled.astype(np.int64), 1)])


def _mean_magnitudes(sample: _Sample, magnitudes: Sums) -> list[Sums]:
    """Return 16 times the mean magnitude of each index of each axis."""
    weights = magnitudes[sample.symbols]
    found = []
    for at, size in zip(sample.places, sample.sizes, strict=True):
        # Sums of integers up to 2^16, exact as float64 for 2^36 weights and more.
        totals = np.bincount(at, weights, minlength=size).astype(np.int64)
        found.append(16 * totals * size // len(weights))
    return found


def _binned(scores: Sums, step: int) -> Axis:
    middle = int(np.sort(scores)[len(scores) // 2])
    low, high = -MAX_CLASSES // 2, MAX_CLASSES // 2 - 1
    bins: Sums = np.clip((scores - middle + step // 2) // step, low, high)
    axis: Axis = (bins - bins.min()).astype(np.uint8)
    return axis


def _with_axis(classes: Classes, place: int, axis: Axis) -> Classes:
    axes = list(classes.axes)
    axes[place] = axis
    return Classes((axes[0], axes[1], axes[2]))


def _refined(sample: _Sample, best: Classes, magnitudes: Sums, symbols: int, least: int) -> Classes:
    groups = _symbol_groups(sample, magnitudes)
    classes = best
    for _ in range(2):
        for place in range(3):
            if classes.numbers[place] > 1:
                classes = _with_axis(classes, place, _moved(sample, classes, place, groups))
        if (size := _estimate(sample, classes, symbols)) < least:
            best, least = classes, size
    return best


def _symbol_groups(sample: _Sample, magnitudes: Sums) -> Sums:
    """Return a group for each symbol, (k + 1,): 0 for zero, the rest by magnitude, equal shares."""
    counts = np.bincount(sample.symbols, minlength=len(magnitudes))
    order = np.argsort(magnitudes, kind="stable")[1:]  # without zero, the smallest
    before = np.cumsum(counts[order]) - counts[order]
    out = np.zeros(len(magnitudes), dtype=np.int64)
    kept = max(int(counts[order].sum()), 1)
    out[order] = 1 + np.minimum(before * (_GROUPS - 1) // kept, _GROUPS - 2)
    return out


def _moved(sample: _Sample, classes: Classes, place: int, groups: Sums) -> Axis:
    """Return the classes of axis ``place``, each index in the class that codes it best."""
    own = classes.axes[place]
    others = _with_axis(classes, place, np.zeros_like(own))
    count = int(groups.max()) + 1
    width = others.tables * count
    keys = sample.contexts(others) * count + groups[sample.symbols]
    keys += sample.places[place] * width
    found = np.bincount(keys, minlength=len(own) * width).reshape(len(own), width)
    tables = np.zeros((classes.tables, count), dtype=np.int64)
    for value in range(classes.numbers[place]):
        sums = found[own == value].sum(axis=0).reshape(others.tables, count)
        tables[value : value + others.tables] += sums
    costs = log2(tables.sum(axis=1, keepdims=True) + count) - log2(tables + 1)
    choices = [
        found @ costs[value : value + others.tables].reshape(-1)
        for value in range(classes.numbers[place])
    ]
    chosen = np.argmin(np.stack(choices), axis=0)
    return np.unique(chosen, return_inverse=True)[1].reshape(-1).astype(np.uint8)
