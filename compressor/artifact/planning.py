"""The gap width and the codes that write a sparse tensor in the fewest bytes, sizes exact."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compressor.coding.buffer import varint
from compressor.coding.gaps import MAX_WIDTH, Runs
from compressor.coding.huffman import Counts, Lengths, coded_bits
from compressor.coding.tables import choose_code

_NO_CODE: Lengths = np.empty(0, dtype=np.int8)


@dataclass(frozen=True, eq=False)
class Stream:
    """The code of one kind of symbol, its table, and the exact length of its bit stream."""

    code: Lengths
    table: bytes
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything about the entries of a tensor but the entries; empty where all weights are 0."""

    width: int
    kept: int
    fillers: int
    gaps: Stream
    values: Stream

    @property
    def counts(self) -> bytes:
        """The number of non-zeros and of fillers, as they stand before the tables."""
        return varint(self.kept) + varint(self.fillers)

    @property
    def tables(self) -> bytes:
        """Both code tables."""
        return self.gaps.table + self.values.table

    @property
    def size(self) -> int:
        """Bytes of counts, tables and both streams; of several segments, a few bytes less."""
        streams = len(varint(self.gaps.size)) * bool(self.kept) + self.gaps.size + self.values.size
        return len(self.counts) + len(self.tables) + streams


def plan_stream(counts: Counts, *, huffman: bool) -> Stream:
    """Plan for symbols occurring ``counts`` (n,) times; at least one of them occurs."""
    code, table = choose_code(counts, huffman=huffman)
    return Stream(code, table, (coded_bits(code, counts[: len(code)]) + 7) // 8)


def plan_shared(runs: Runs, index_counts: Counts, *, huffman: bool) -> Plan:
    """Plan for indices; ``index_counts`` (k + 1,) are their occurrences, index 0 included."""

    def values(fillers: int) -> Stream:
        counts = index_counts.copy()
        counts[0] = fillers
        return plan_stream(counts, huffman=huffman)

    return _plan(runs, values, huffman)


def plan_floats(runs: Runs, itemsize: int, *, huffman: bool) -> Plan:
    """Plan for weights that are stored as they are, ``itemsize`` bytes each, fillers included."""
    kept = int(runs.counts.sum())
    return _plan(runs, lambda fillers: Stream(_NO_CODE, b"", itemsize * (kept + fillers)), huffman)


def _plan(runs: Runs, values: Callable[[int], Stream], huffman: bool) -> Plan:
    kept = int(runs.counts.sum())
    if not kept:
        nothing = Stream(_NO_CODE, b"", 0)
        return Plan(0, 0, 0, nothing, nothing)
    plans = []
    for width in range(min(MAX_WIDTH, runs.longest.bit_length()) + 1):
        fillers = runs.fillers(width)
        gaps = plan_stream(runs.gap_counts(width), huffman=huffman)
        plans.append(Plan(width, kept, fillers, gaps, values(fillers)))
    return min(plans, key=lambda plan: plan.size)
