"""Which rows, columns and kernel positions of a tensor share a scale: the writer's choice.

1. An index's score is the logarithm of its mean magnitude; scores a step apart get classes one
   apart. Several steps are tried, the same for all axes, since classes of axes are added.
2. An axis whose classes cost more than they save is dropped.
3. Each index in turn moves to the class whose tables write its weights in the fewest bits, given
   the classes of the other axes; twice.

Everything is an integer, so the choice is the same on every machine. Sizes on the way are
estimates (entropies, and a typical size of tables); the caller compares exact ones.
"""

import numpy as np
import numpy.typing as npt

from compressor.artifact.classes import MAX_CLASSES, Axis, Classes, one_class, three_axes
from compressor.artifact.types import BLOCK
from compressor.coding.gaps import Symbols
from compressor.coding.modelling import ONE_BIT, entropy, log2

_STEPS = (ONE_BIT // 4, ONE_BIT // 2, ONE_BIT)  # octaves between classes
_GROUPS = 8
_FEWEST_WEIGHTS = 32  # weights of an index for its class to be worth its bits
_TABLE_BITS = 24
_SYMBOL_BITS = 5  # of a table, for each two symbols

Sums = npt.NDArray[np.int64]


def find_classes(
    flat: Symbols, shape: tuple[int, ...], codebook: npt.NDArray[np.float32]
) -> Classes:
    """Return classes for indices ``flat`` (n,) of a tensor of ``shape``; perhaps one class."""
    cube = flat.reshape(three_axes(shape))
    usable = [flat.size >= _FEWEST_WEIGHTS * size and size > 1 for size in cube.shape]
    best = one_class(shape)
    if not any(usable):
        return best
    symbols = len(codebook) + 1
    magnitudes = _magnitudes(codebook)
    scores = [log2(1 + sums) for sums in _mean_magnitudes(cube, magnitudes)]
    least = estimate(cube, best, symbols)
    for step in _STEPS:
        found = Classes(
            tuple(  # type: ignore[arg-type]
                _binned(score, step) if use else none
                for score, use, none in zip(scores, usable, one_class(shape).axes, strict=True)
            )
        )
        if (size := estimate(cube, found, symbols)) < least:
            best, least = found, size
    for place in range(3):
        without = _with_axis(best, place, np.zeros(cube.shape[place], dtype=np.uint8))
        if best.numbers[place] > 1 and (size := estimate(cube, without, symbols)) <= least:
            best, least = without, size
    return _refined(cube, best, magnitudes, symbols, least)


def count_tables(cube: Symbols, classes: Classes, symbols: int) -> Sums:
    """Return how often each symbol occurs in each context, (tables, symbols)."""
    counts = np.zeros(classes.tables * symbols, dtype=np.int64)
    plane = cube.shape[1] * cube.shape[2]
    for start, stop in row_blocks(cube.shape):
        keys = classes.contexts(start * plane, stop * plane).astype(np.int64) * symbols
        keys += cube[start:stop].reshape(-1)
        counts += np.bincount(keys, minlength=len(counts))
    return counts.reshape(classes.tables, symbols)


def row_blocks(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return ranges of rows that have about `BLOCK` weights each."""
    rows = max(1, BLOCK // (shape[1] * shape[2]))
    return [(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def estimate(cube: Symbols, classes: Classes, symbols: int) -> int:
    """Return about how many bits, in 2^-16, the weights, tables and classes take."""
    counts = count_tables(cube, classes, symbols)
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


def _mean_magnitudes(cube: Symbols, magnitudes: Sums) -> list[Sums]:
    """Return 16 times the mean magnitude of each index of each axis."""
    totals = [np.zeros(size, dtype=np.int64) for size in cube.shape]
    for start, stop in row_blocks(cube.shape):
        block = magnitudes[cube[start:stop]]
        planes = block.sum(axis=2)
        totals[0][start:stop] = planes.sum(axis=1)
        totals[1] += planes.sum(axis=0)
        totals[2] += block.sum(axis=(0, 1))
    return [16 * total * len(total) // cube.size for total in totals]


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


def _refined(cube: Symbols, best: Classes, magnitudes: Sums, symbols: int, least: int) -> Classes:
    groups = _symbol_groups(cube, magnitudes)
    count = int(groups.max()) + 1
    classes = best
    for _ in range(2):
        for place in range(3):
            if classes.numbers[place] > 1:
                classes = _with_axis(classes, place, _moved(cube, classes, place, groups, count))
        if (size := estimate(cube, classes, symbols)) < least:
            best, least = classes, size
    return best


def _symbol_groups(cube: Symbols, magnitudes: Sums) -> npt.NDArray[np.uint8]:
    """Return a group for each symbol, (k + 1,): 0 for zero, the rest by magnitude, equal shares."""
    counts = np.zeros(len(magnitudes), dtype=np.int64)
    for start, stop in row_blocks(cube.shape):
        counts += np.bincount(cube[start:stop].reshape(-1), minlength=len(counts))
    order = np.argsort(magnitudes, kind="stable")[1:]  # without zero, the smallest
    before = np.cumsum(counts[order]) - counts[order]
    out = np.zeros(len(magnitudes), dtype=np.uint8)
    kept = max(int(counts[order].sum()), 1)
    out[order] = 1 + np.minimum(before * (_GROUPS - 1) // kept, _GROUPS - 2)
    return out


def _moved(
    cube: Symbols, classes: Classes, place: int, groups: npt.NDArray[np.uint8], count: int
) -> Axis:
    """Return the classes of axis ``place``, each index in the class that codes it best."""
    own = classes.axes[place]
    others = _with_axis(classes, place, np.zeros_like(own))
    found = np.zeros((len(own), others.tables * count), dtype=np.int64)
    flat = found.reshape(-1)
    plane = cube.shape[1] * cube.shape[2]
    for start, stop in row_blocks(cube.shape):
        keys = others.contexts(start * plane, stop * plane).astype(np.int64) * count
        keys += groups[cube[start:stop].reshape(-1)]
        cut = (stop - start, *cube.shape[1:])
        shape = [1, 1, 1]
        shape[place] = -1
        index = np.arange(start, stop) if place == 0 else np.arange(len(own))
        keys += np.broadcast_to(index.reshape(shape), cut).reshape(-1) * found.shape[1]
        low = start * found.shape[1] if place == 0 else 0
        high = stop * found.shape[1] if place == 0 else len(flat)
        flat[low:high] += np.bincount(keys - low, minlength=high - low)
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
