"""Values gathered into cells along the line: their counts and means, without sorting them.

The bits of float32, read as integers and with those of negative numbers turned over, ascend with
the values. The upper 16 of those 32 bits are the sign, the exponent and seven bits of the fraction:
128 *blocks* for each power of two. A block of finite values is an arithmetic progression, so a sum
over any part of it follows from a sum of integers, which is exact in whatever order it is taken.

    pass 1   values in each block
    plan     into how many cells to cut each block, a power of two up to one for each value
    pass 2   values in each cell, and the sum of their lower 16 bits

Clusters of least squared error are as wide as the density to the power -1/3 (Panter and Dite 1951).
Cells that follow that rule serve clusters alike everywhere, far out and in a peak: a block of n
values and width w gets cells in proportion to (n w^2)^(1/3). It gets no more than 8 to 16 for each
value, so that a few huge ones do not take them all.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.quantization.runs import Doubles, Floats

Counts = NDArray[np.int64]
Words = NDArray[np.uint32]

CELLS = 1 << 16
PIECE = 1 << 17  # values handled at once: every piece costs an addition for each cell
BLOCKS = 1 << 16
FINITE = slice(0x0080, 0xFF80)  # blocks of finite values; outside are infinity and NaN


class Cells(NamedTuple):
    """Groups of neighbouring values, none of them empty.

    points: float64 (m,), ascending: the mean of each cell's values.
    counts: int64 (m,), how many values it holds.
    spread: at most this much inertia is within the cells: 0 where each is a single value.
    """

    points: Doubles
    counts: Counts
    spread: float


def gather(values: Floats) -> Cells:
    """Cells of ``values``, finite float32 (n,), n > 0.

    Each is one distinct value where n <= CELLS; else there are no more than CELLS.
    """
    if len(values) <= CELLS:
        return distinct(values)
    held = np.zeros(BLOCKS, np.int64)
    for blocks, _ in _pieces(values):
        held += np.bincount(blocks, minlength=BLOCKS)
    return _histogram(values, held)


def distinct(values: Floats) -> Cells:
    """One cell for each distinct value. This sorts."""
    points, counts = np.unique(values, return_counts=True)
    return Cells(points.astype(np.float64), counts, 0.0)


def _histogram(values: Floats, held: Counts) -> Cells:
    """Cells of many values; held: how many are in each block."""
    bits = _plan(held)
    sizes = np.where(held > 0, np.left_shift(1, bits), 0)
    first = np.cumsum(sizes) - sizes
    shifts = (16 - bits).astype(np.uint32)
    total = int(sizes.sum())
    counts, sums = np.zeros(total, np.int64), np.zeros(total)
    for blocks, lower in _pieces(values):
        cells: Counts = first.take(blocks) + (lower >> shifts.take(blocks))
        counts += np.bincount(cells, minlength=total)
        sums += np.bincount(cells, weights=lower, minlength=total)  # of integers: exact
    used = np.flatnonzero(counts)
    counts, sums = counts[used], sums[used]
    of = np.repeat(np.arange(BLOCKS), sizes)[used]  # the block of each cell
    starts, steps = _progressions()
    widths = steps[of] * (np.left_shift(1, 16 - bits[of]) - 1)
    # No variance is greater than that of values at the ends; a single value has none.
    spread = float(np.cumsum((counts > 1) * counts * widths**2 / 4)[-1])
    return Cells(starts[of] + steps[of] * (sums / counts), counts, spread)


def _plan(held: Counts) -> NDArray[np.int64]:
    """log2 of the number of cells in each block, (BLOCKS,); in whole numbers, so alike everywhere.

    held: values in each block.
    """
    used = np.flatnonzero(held)
    _, steps = _progressions()
    weights = np.frexp(held[used] * (np.abs(steps[used]) * BLOCKS) ** 2)[1].astype(np.int64)
    enough = np.minimum(np.frexp(held[used].astype(np.float64))[1] + 3, 16)

    def cut(level: int) -> NDArray[np.int64]:
        wanted: NDArray[np.int64] = np.clip((weights - level) // 3, 0, enough)
        return wanted

    low, high = int(weights.min()) - 48, int(weights.max())  # enough for all; 1 for each
    while low < high:
        level = (low + high) // 2
        if np.left_shift(1, cut(level)).sum() <= CELLS:
            high = level
        else:
            low = level + 1
    bits = np.zeros(BLOCKS, np.int64)
    bits[used] = cut(low)
    return bits


def _pieces(values: Floats) -> Iterator[tuple[Words, Words]]:
    """The block of each value, and the lower half of its ordered bits; piece by piece."""
    for start in range(0, len(values), PIECE):
        bits = (values[start : start + PIECE] + np.float32(0)).view(np.uint32)  # -0.0 is 0.0
        turned = np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
        ordered: Words = np.bitwise_xor(bits, turned)
        yield ordered >> np.uint32(16), ordered & np.uint32(0xFFFF)


def _progressions() -> tuple[Doubles, Doubles]:
    """The first value of each block and the step to the next: float64 (BLOCKS,), both exact."""
    blocks = np.arange(BLOCKS, dtype=np.uint32)
    upper = np.where(blocks >= 0x8000, blocks ^ 0x8000, ~blocks & 0xFFFF) << 16
    flipped = np.where(blocks >= 0x8000, 0, 0xFFFF).astype(np.uint32)
    ends = np.stack([upper | flipped, upper | (flipped ^ 0xFFFF)]).view(np.float32)
    ends[:, : FINITE.start] = ends[:, FINITE.stop :] = 0
    first, last = ends.astype(np.float64)
    return first, (last - first) / 0xFFFF
