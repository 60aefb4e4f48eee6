"""The frequency table that writes given counts in the fewest bytes, itself included.

All in integers, logarithms too, so that the same counts give the same table on every machine.
Levels are found by dynamic programming over symbols x levels, which weighs the bits of each
level's difference to the one before against what a wrong frequency costs: with N symbols in all,
level l costs c l + (N / ln 2) 2^-l bits for a symbol that occurs c times, an upper bound of the
code length (log2 x <= (x - 1) / ln 2) that is exact where the frequencies sum to one.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from compressor.coding.buffer import varint
from compressor.coding.frequencies import (
    ABSENT,
    BUCKETS,
    FIRST_OCTAVE,
    FLAT,
    LEVELS,
    MANTISSAS,
    PRECISION,
    SINGLE,
    TOTAL,
    Frequencies,
    Levels,
    bucket_starts,
    flat_frequencies,
    frequencies_of,
    pack_levels,
    single_frequencies,
)
from compressor.coding.gamma import SKIP, fold, gamma

Counts = npt.NDArray[np.int64]

ONE_BIT = 1 << 16
"""Costs are in units of 2^-16 bit."""
MAX_USED = 1 << 12
"""Most symbols that occur, for a table to be worth its precision."""
_OCTAVES = 15
_PER_LN2 = 94548  # round(2^16 / ln 2)
_MANY = 1 << 18  # symbols for which the finest steps pay, whatever the table costs
_SEARCHED = 128  # items for which levels are searched for; more take the nearest


@dataclass(frozen=True, eq=False)
class Model:
    """A table: its frequencies, its bytes, and the bits (rounded up) that its symbols take."""

    frequencies: Frequencies
    table: bytes
    bits: int

    @property
    def size(self) -> int:
        """Bits of table and symbols."""
        return 8 * len(self.table) + self.bits


def log2(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return log2 of ``values`` (1 to 2^52) in units of 2^-16, to 14 bits of their mantissa."""
    exponents = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    mantissas = np.where(
        exponents > 14,
        values >> np.maximum(exponents - 14, 0),
        values << np.maximum(14 - exponents, 0),
    )
    out: npt.NDArray[np.int64] = exponents * ONE_BIT + _log_table()[mantissas - TOTAL]
    return out


@cache
def _log_table() -> npt.NDArray[np.int64]:
    """2^16 log2(1 + i / 2^14) for i = 0..2^14 - 1, bit by bit: squaring doubles the logarithm."""
    mantissas = np.arange(TOTAL, 2 * TOTAL, dtype=np.uint64) << np.uint64(16)  # 1.0 is 2^30
    out = np.zeros(TOTAL, dtype=np.int64)
    for bit in range(15, -1, -1):
        mantissas = mantissas * mantissas >> np.uint64(30)
        over = mantissas >= np.uint64(1 << 31)
        out[over] += 1 << bit
        mantissas[over] >>= np.uint64(1)
    return out


def entropy(counts: Counts) -> int:
    """Return the bits, in 2^-16, that (..., v) symbols take at each row's own frequencies."""
    totals = counts.sum(axis=-1)
    own = np.sum(counts * log2(np.maximum(counts, 1)), axis=-1)
    return int(np.sum(totals * log2(np.maximum(totals, 1)) - own))


def coded_bits(frequencies: Frequencies, counts: Counts) -> int:
    """Return the bits that ``counts`` (v,) take at ``frequencies``, the coder's own excluded."""
    used = np.flatnonzero(counts)
    each = PRECISION * ONE_BIT - log2(frequencies[used])
    return -(-int(np.sum(counts[used] * each)) // ONE_BIT)


def choose_model(counts: Counts) -> Model:
    """Return the cheapest table for ``counts`` (v,), of which 0 to ``MAX_USED`` are not zero."""
    used = np.flatnonzero(counts)
    if len(used) < 2:
        symbol = int(used[0]) if len(used) else 0
        return Model(single_frequencies(symbol), varint(4 * symbol + SINGLE), 0)
    counts = counts[: int(used[-1]) + 1]
    size = len(counts)
    models = []
    if size <= MAX_USED:
        flat = flat_frequencies(size)
        models.append(Model(flat, varint(4 * size + FLAT), coded_bits(flat, counts)))
    plain = np.arange(size)
    models += [_levels_model(LEVELS, counts, plain, *how) for how in _settings(counts)]
    if 16 < size <= MAX_USED:
        starts = bucket_starts(size)
        models += [_levels_model(BUCKETS, counts, starts, *how) for how in _settings(counts)]
    return min(models, key=lambda model: model.size)


def _settings(counts: Counts) -> list[tuple[int, int]]:
    """Steps (as a power of 1/2 octave) and orders of the difference code that are worth a try."""
    total = int(counts.sum())
    if total >= _MANY:
        return [(3, 3)]
    fractions = (0, 1) if total < 400 else (0, 1, 2) if total < 5000 else (1, 2, 3)
    if len(counts) > _SEARCHED:
        fractions = fractions[-2:]
    return [(f, order) for f in fractions for order in sorted({max(f - 1, 0), f})]


def _levels_model(
    kind: int, counts: Counts, starts: npt.NDArray[np.int64], fraction: int, order: int
) -> Model:
    sizes = np.diff(starts, append=len(counts))
    sums = np.add.reduceat(counts, starts)
    searched = np.count_nonzero(sums) <= _SEARCHED and int(sums.sum()) < _MANY
    items = _search if searched else _nearest
    levels = items(sums, sizes, fraction, order)
    first = int(levels[np.flatnonzero(levels != ABSENT)[0]])
    levels = np.where(levels == ABSENT, ABSENT, levels - first + (FIRST_OCTAVE << fraction))
    table = pack_levels(kind, len(counts), levels.tolist(), fraction, order)
    frequencies = frequencies_of(np.repeat(levels, sizes), fraction)
    return Model(frequencies, table, coded_bits(frequencies, counts))


def _adjusted(sums: Counts, sizes: Counts) -> Counts:
    """Counts less the share that every symbol has anyway, 1 of 2^14."""
    return np.maximum(sums - (int(sums.sum()) * sizes >> PRECISION), 0)


def _nearest(sums: Counts, sizes: Counts, fraction: int, order: int) -> Levels:
    used = np.flatnonzero(sums)
    weights = np.maximum(_adjusted(sums, sizes)[used], 1)
    exact = log2(sums.sum(keepdims=True)) + log2(sizes[used]) - log2(weights)
    levels = np.full(len(sums), ABSENT, dtype=np.int64)
    half = ONE_BIT >> fraction + 1
    levels[used] = np.clip((exact + half) >> 16 - fraction, 0, (_OCTAVES << fraction) - 1)
    return levels


def _search(sums: Counts, sizes: Counts, fraction: int, order: int) -> Levels:
    """Find the levels (m,) of cheapest bits, those of their differences included."""
    grid = np.arange(_OCTAVES << fraction)
    rates = grid * ONE_BIT >> fraction
    total = int(sums.sum())
    weights = MANTISSAS[(grid & (1 << fraction) - 1) << (3 - fraction)] >> (grid >> fraction)
    spreads = total * ((weights >> 15) * _PER_LN2 >> 16)  # N 2^-l / ln 2, in 2^-16 bit
    steps = _difference_bits(len(grid), order)
    counts = _adjusted(sums, sizes)
    cost = np.zeros(len(grid), dtype=np.int64)
    used = np.flatnonzero(sums).tolist()
    back: list[npt.NDArray[np.int64]] = []
    held: list[npt.NDArray[np.bool_]] = []
    previous = -1
    for item in used:
        run = item - previous - 1
        skip = (len(gamma(SKIP, order)) + len(gamma(run - 1))) * ONE_BIT if run else 0
        hold = run * (1 + order) * ONE_BIT + spreads * int(sizes[previous + 1 : item].sum())
        held.append(hold < skip if previous >= 0 else np.zeros(len(grid), dtype=bool))
        cost = cost + np.where(held[-1], hold, skip)
        if previous >= 0:
            moves = cost[:, None] + steps
            back.append(moves.argmin(axis=0))
            cost = moves[back[-1], np.arange(len(grid))]
        cost = cost + int(counts[item]) * rates + int(sizes[item]) * spreads
        previous = item
    return _trace(len(sums), used, int(cost.argmin()), back, held)


def _trace(
    size: int,
    used: list[int],
    level: int,
    back: list[npt.NDArray[np.int64]],
    held: list[npt.NDArray[np.bool_]],
) -> Levels:
    """Follow the choices back from the last item's level; items held take the level before."""
    levels = np.full(size, ABSENT, dtype=np.int64)
    for index in range(len(used) - 1, -1, -1):
        levels[used[index]] = level
        if index:
            level = int(back[index - 1][level])
            if held[index][level]:
                levels[used[index - 1] + 1 : used[index]] = level
    return levels


@cache
def _difference_bits(levels: int, order: int) -> npt.NDArray[np.int64]:
    """Cost of going from level a to b, (levels, levels)."""
    bits = [len(gamma(fold(d), order)) * ONE_BIT for d in range(1 - levels, levels)]
    ends = np.arange(levels)
    table = np.array(bits, dtype=np.int64)
    return table.take(ends[None, :] - ends[:, None] + levels - 1)
