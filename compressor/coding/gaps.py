"""Relative indices: a sparse sequence as (gap, value) entries (Deep Compression, section 2).

The sequence is a flattened tensor of unsigned integers in which 0 stands for a pruned weight. An
entry skips ``gap`` zeros and places one value. Gaps have a width of b bits, so at most
M = 2^b - 1 zeros can be skipped; a longer run of zeros takes *fillers*, entries (M, 0) that skip M
zeros and place one more zero, as in the paper's figure 2. Zeros after the last value need no
entry. With b = 0 every weight up to the last non-zero one is an entry: dense coding.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.coding import entries_core, native
from compressor.errors import ArtifactError

MAX_WIDTH = 12
"""Widest gap, in bits."""
SEGMENT = 1 << 20
"""Weights of a segment: gaps do not cross from one to the next."""
_BLOCK = 1 << 17
_SHORT = 1 << 16  # runs below this are counted in an array, the few longer ones one by one

Symbols = npt.NDArray[np.unsignedinteger[Any]]
Positions = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """How often each run of zeros occurs before a non-zero value: (u,) lengths, (u,) counts."""

    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def longest(self) -> int:
        """Longest run; 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def fillers(self, width: int) -> int:
        """Number of fillers that gaps of ``width`` bits need."""
        return int(np.sum(self.counts * (self.lengths >> width)))

    def gap_counts(self, width: int) -> npt.NDArray[np.int64]:
        """How often each of the 2^width gap symbols occurs, fillers included."""
        counts = np.zeros(1 << width, dtype=np.int64)
        np.add.at(counts, self.lengths & (1 << width) - 1, self.counts)
        counts[-1] += self.fillers(width)
        return counts


def segments(size: int) -> list[tuple[int, int]]:
    """Return the first element of each segment of ``size``, and the one after its last."""
    starts = range(0, size, SEGMENT) or [0]
    return [(start, min(start + SEGMENT, size)) for start in starts]


def nonzero_blocks(flat: Symbols) -> Iterator[tuple[Positions, int]]:
    """Yield the positions of non-zeros in ``flat`` (n,), and the last position before each block.

    Blocks bound the memory; those without a non-zero are passed over.
    """
    previous = -1
    for start in range(0, len(flat), _BLOCK):
        positions = np.flatnonzero(flat[start : start + _BLOCK]).astype(np.int64)
        if len(positions):
            positions += start
            yield positions, previous
            previous = int(positions[-1])


def count_runs(flat: Symbols) -> Runs:
    """Return the runs of zeros before each non-zero of ``flat`` (n,), segment by segment."""
    return _count(flat, None)


def count_both(flat: Symbols, alphabet: int) -> tuple[Runs, npt.NDArray[np.int64]]:
    """Return the runs, and how often each symbol below ``alphabet`` occurs."""
    counts = np.zeros(alphabet, dtype=np.int64)
    return _count(flat, counts), counts


def _count(flat: Symbols, counts: npt.NDArray[np.int64] | None) -> Runs:
    bins = min(_SHORT, len(flat))
    short = np.zeros(bins, dtype=np.int64)
    core = native.library()
    parts = [flat[start:stop] for start, stop in segments(len(flat))]
    if core is not None:
        long = [entries_core.count_runs(core, part, short, counts) for part in parts]
    else:
        long = [_count_segment(part, short, counts) for part in parts]
    used = np.flatnonzero(short)
    extra = np.concatenate([*long, np.empty(0, dtype=np.int64)])
    ones = np.ones(len(extra), dtype=np.int64)
    return Runs(np.concatenate([used, extra]), np.concatenate([short[used], ones]))


def _count_segment(
    flat: Symbols, short: npt.NDArray[np.int64], counts: npt.NDArray[np.int64] | None
) -> Positions:
    long = [np.empty(0, dtype=np.int64)]
    for positions, previous in nonzero_blocks(flat):
        runs = _runs(positions, previous)
        is_long = runs >= len(short)
        if is_long.any():
            long.append(runs[is_long])
            runs = runs[~is_long]
        short += np.bincount(runs, minlength=len(short))
    if counts is not None:
        for start in range(0, len(flat), _BLOCK):
            counts += np.bincount(flat[start : start + _BLOCK], minlength=len(counts))
    return np.concatenate(long)


def entries(
    flat: Symbols, positions: Positions, previous: int, width: int
) -> tuple[npt.NDArray[np.uint16], Symbols]:
    """Return the gap and value symbols (e,) of the non-zeros at ``positions``, fillers included."""
    runs = _runs(positions, previous)
    last = np.cumsum((runs >> width) + 1) - 1  # the value's own entry follows its fillers
    top = (1 << width) - 1
    gaps = np.full(int(last[-1]) + 1 if len(last) else 0, top, dtype=np.uint16)
    gaps[last] = runs & top
    values = np.zeros(len(gaps), dtype=flat.dtype)
    values[last] = flat[positions]
    return gaps, values


def list_entries(
    flat: Symbols, width: int, most: int
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], Symbols, int]:
    """Return gaps and values of a segment ``flat`` (n,), up to ``most``, and its non-zeros."""
    core = native.library()
    if core is not None:
        pairs, kept = entries_core.list_entries(core, flat, width, min(most, len(flat)))
        return pairs[:, 0], pairs[:, 1], kept
    blocks, kept = [entries(flat, np.empty(0, dtype=np.int64), -1, width)], 0
    for positions, previous in nonzero_blocks(flat):
        blocks.append(entries(flat, positions, previous, width))
        kept += len(positions)
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks]), kept


def place(
    flat: Symbols, previous: int, gaps: npt.NDArray[np.uint32], values: Symbols, width: int
) -> int:
    """Write entries (e,) into the zeroed ``flat`` (n,); return the position of the last one.

    Raises:
        ArtifactError: where an entry lies past the end, or a zero is written that no long run
            called for (the encoding of a sequence is unique).
    """
    positions = np.cumsum(gaps, dtype=np.int64)
    positions += np.arange(previous + 1, previous + 1 + len(gaps))
    if positions[-1] >= len(flat):
        raise ArtifactError(f"an entry lies past the end of its {len(flat)} weights")
    kept = values != 0
    if np.any(gaps[~kept] != (1 << width) - 1):
        raise ArtifactError("a filler's gap is not the longest one")
    flat[positions[kept]] = values[kept]
    return int(positions[-1])


def _runs(positions: Positions, previous: int) -> Positions:
    return np.diff(positions, prepend=previous) - 1
