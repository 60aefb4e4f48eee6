"""Gaps and values: the entries of GAP_SHARED, GAP_FLOAT and GAP_RANS."""

from collections.abc import Callable
from typing import TypeVar

from tests.golden.second import codes, rans
from tests.golden.second.floats import ZERO, widened
from tests.golden.second.frequencies import read_frequencies
from tests.golden.second.reading import Bytes, require

Value = TypeVar("Value", int, bytes)
Reader = Callable[[Bytes, int, int], tuple[list[int], list[Value]]]
"""Gaps and values of so many entries, with gaps of so many bits."""


def read_entries(source: Bytes, n: int, b: int, zero: Value, read: Reader[Value]) -> list[Value]:
    """The ``n`` elements of a payload after its head: counts, then what ``read`` reads."""
    kept, fillers = source.varint(), source.varint()
    require(kept + fillers <= n, "kept weights plus fillers over n")
    require(kept or not fillers, "fillers but no kept weight")
    tensor = [zero] * n
    if kept:
        gaps, values = read(source, kept + fillers, b)
        position = -1
        for gap, value in zip(gaps, values, strict=True):
            position += gap + 1
            require(position < n, "an entry past the end")
            require(value != zero or gap == 2**b - 1, "a filler whose gap is not M")
            tensor[position] = value
        require(values[-1] != zero, "a filler as the last entry")
        require(values.count(zero) == fillers, "other than the declared number of fillers")
    source.end()
    return tensor


def in_streams(k: int) -> Reader[int]:
    """GAP_SHARED: two code tables, two bit streams."""

    def read(source: Bytes, count: int, b: int) -> tuple[list[int], list[int]]:
        gap_code, value_code = codes.read_code(source, 2**b), codes.read_code(source, k + 1)
        gaps = codes.read_symbols(gap_code, source.take(source.varint()), count)
        return gaps, codes.read_symbols(value_code, source.rest(), count)

    return read


def as_floats(half: bool) -> Reader[bytes]:
    """GAP_FLOAT: one code table, one bit stream, and floats."""

    def read(source: Bytes, count: int, b: int) -> tuple[list[int], list[bytes]]:
        code = codes.read_code(source, 2**b)
        gaps = codes.read_symbols(code, source.take(source.varint()), count)
        if half:
            return gaps, [widened(source.take(2)) for _ in range(count)]
        return gaps, [source.take(len(ZERO)) for _ in range(count)]

    return read


def in_one(k: int) -> Reader[int]:
    """GAP_RANS: two frequency tables, one stream of gap, index, gap, index, ..."""

    def read(source: Bytes, count: int, b: int) -> tuple[list[int], list[int]]:
        tables = [read_frequencies(source, 2**b), read_frequencies(source, k + 1)]
        both = rans.read_symbols(source.rest(), tables, [0, 1] * count)
        return both[0::2], both[1::2]

    return read
