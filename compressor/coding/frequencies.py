"""Quantised frequencies for rANS: how a table stands in the file, and how it is read.

Frequencies sum to 2^14. A table does not hold them but *levels*, -log2 of each in steps of
1/2^s, which neighbouring symbols have nearly in common; one integer rule turns levels into
frequencies, so that they sum to 2^14 and are never zero by construction. A step of 1/2^s costs at
most about 0.03 / 4^s bit per symbol. `compressor.coding.modelling` chooses tables.

A table is a varint ``4 v + kind``: 0 *flat*, v >= 2 equal symbols; 1 *levels* of v >= 2 symbols;
2 *single*, symbol v alone; 3 *buckets*, levels of runs of symbols that grow with the symbol (4 to
an octave), for the long tail of gaps.
"""

import numpy as np
import numpy.typing as npt

from compressor.coding.buffer import ByteReader, varint
from compressor.coding.gamma import (
    SKIP,
    pack_bits,
    padded_bytes,
    read_gamma,
    steps,
    unfold,
    unpack_bits,
)
from compressor.errors import ArtifactError

PRECISION = 14
TOTAL = 1 << PRECISION
"""Sum of the frequencies of every table."""
FLAT, LEVELS, SINGLE, BUCKETS = range(4)
FIRST_OCTAVE = 16
"""The first level, in octaves; only differences between levels mean anything."""
LAST_OCTAVE = 30
_MAX_BYTES_PER_SYMBOL = 6  # a number takes 35 + 3 bits at most

# round(2^31 x 2^(-i / 8)), i = 0..7
MANTISSAS = np.array(
    [
        *(2147483648, 1969251188, 1805811301, 1655936265),
        *(1518500250, 1392470869, 1276901417, 1170923762),
    ],
    dtype=np.int64,
)
ABSENT = -1

Frequencies = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int64]


def bucket_starts(symbols: int) -> npt.NDArray[np.int64]:
    """Return the first symbol of each bucket of symbols 0 to ``symbols`` - 1."""
    starts = list(range(8))
    while starts[-1] < symbols:
        starts.append(starts[-1] + (1 << (starts[-1].bit_length() - 3)))
    found = np.array(starts, dtype=np.int64)
    return found[found < symbols]


def frequencies_of(levels: Levels, fraction: int) -> Frequencies:
    """Turn levels (v,) in steps of 1/2^``fraction`` octaves into frequencies; ``ABSENT`` is 0.

    Each present symbol has 1, and the rest of 2^14 is laid out in proportion to
    2^(-level / 2^fraction), cut at whole numbers.
    """
    present = np.flatnonzero(levels != ABSENT)
    weights = MANTISSAS[(levels[present] & (1 << fraction) - 1) << (3 - fraction)]
    edges = np.cumsum(weights >> (levels[present] >> fraction))
    edges = edges * (TOTAL - len(present)) // edges[-1]  # below 2^14 x 2^14 x 2^31
    edges[1:] -= edges[:-1].copy()
    out = np.zeros(len(levels), dtype=np.int64)
    out[present] = 1 + edges
    return out


def flat_frequencies(symbols: int) -> Frequencies:
    """Return equal frequencies, to one."""
    return frequencies_of(np.zeros(symbols, dtype=np.int64), 0)


def single_frequencies(symbol: int) -> Frequencies:
    """Return the table of one symbol, which takes no bits."""
    out = np.zeros(symbol + 1, dtype=np.int64)
    out[-1] = TOTAL
    return out


def check_frequencies(frequencies: Frequencies) -> None:
    """Raise `ArtifactError` unless no frequency is negative and their sum is exactly 2^14."""
    if not len(frequencies) or frequencies.min() < 0 or frequencies.sum() != TOTAL:
        raise ArtifactError(f"the frequencies of a table do not sum to {TOTAL}")


def pack_levels(kind: int, symbols: int, levels: list[int], fraction: int, order: int) -> bytes:
    """Write the table of ``levels``, one for each symbol or bucket, the last one present."""
    first = next(level for level in levels if level != ABSENT)  # its difference is 0
    bits = f"{fraction:02b}{order:02b}" + steps(levels, ABSENT, first, order)
    return varint(4 * symbols + kind) + pack_bits(bits)


def read_frequencies(reader: ByteReader, alphabet: int) -> Frequencies:
    """Read one table for symbols 0 to ``alphabet`` - 1."""
    head = reader.varint()
    size, kind = head >> 2, head & 3
    if kind == SINGLE:
        size += 1
    if not (1 if kind == SINGLE else 2) <= size <= alphabet:
        raise ArtifactError(f"a frequency table is for {size} symbols, of {alphabet} there are")
    if kind == SINGLE:
        return single_frequencies(size - 1)
    if kind == FLAT:
        _check_symbols(size)
        return flat_frequencies(size)
    if kind == BUCKETS:
        starts = bucket_starts(size)
        levels, fraction = _read_levels(reader, len(starts))
        levels = np.repeat(levels, np.diff(starts, append=size))
    else:
        levels, fraction = _read_levels(reader, size)
    _check_symbols(int(np.count_nonzero(levels != ABSENT)))
    found = frequencies_of(levels, fraction)
    check_frequencies(found)
    return found


def _check_symbols(present: int) -> None:
    if present > TOTAL:
        raise ArtifactError(f"a frequency table has {present} symbols; {TOTAL} are the most")


def _read_levels(reader: ByteReader, count: int) -> tuple[Levels, int]:
    bits = unpack_bits(reader.peek(_MAX_BYTES_PER_SYMBOL * count + 8))
    if len(bits) < 4:
        raise ArtifactError("a frequency table is truncated")
    fraction, order, position = int(bits[:2], 2), int(bits[2:4], 2), 4
    previous, last = FIRST_OCTAVE << fraction, (LAST_OCTAVE + 1 << fraction) - 1
    levels: list[int] = []
    started = False
    while len(levels) < count:
        symbol, position = read_gamma(bits, position, order)
        if symbol == SKIP:
            absent, position = read_gamma(bits, position)
            levels += [ABSENT] * min(absent + 1, count - len(levels))
            continue
        if symbol and not started:
            raise ArtifactError("a frequency table does not start at the level it must")
        started = True
        previous += unfold(symbol)
        if not 0 <= previous <= last:
            raise ArtifactError(f"a frequency table has level {previous}, not 0 to {last}")
        levels.append(previous)
    if levels[-1] == ABSENT:
        raise ArtifactError("a frequency table ends in absent symbols")
    reader.take(padded_bytes(bits, position))
    return np.array(levels, dtype=np.int64), fraction
