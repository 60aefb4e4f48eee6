"""Gaps and values: the entries of GAP_SHARED, GAP_FLOAT and GAP_RANS."""

from collections.abc import Callable
from typing import TypeVar

from tests.golden.second import codes, rans
from tests.golden.second.floats import ZERO, widened
from tests.golden.second.frequencies import read_frequencies
from tests.golden.second.reading import Bytes, require
from tests.golden.second.segments import Segment, read_segments

Value = TypeVar("Value", int, bytes)
Streams = Callable[[bytes, int], tuple[list[int], list[Value]]]
"""Gaps and values of so many entries, from the streams of one segment."""
Tables = Callable[[Bytes, int], Streams[Value]]
"""Reads the tables, for gaps of so many bits, and returns what reads streams with them."""


def read_entries(source: Bytes, n: int, b: int, zero: Value, read: Tables[Value]) -> list[Value]:
    """The ``n`` elements of a payload after its head: counts, tables, segments."""
    kept, fillers = source.varint(), source.varint()
    require(kept + fillers <= n, "kept weights plus fillers over n")
    require(kept or not fillers, "fillers but no kept weight")
    if not kept:
        source.end()
        return [zero] * n
    streams = read(source, b)
    tensor: list[Value] = []
    for segment in read_segments(source, n, (kept, fillers)):
        tensor += _placed(segment, b, zero, streams)
    return tensor


def _placed(segment: Segment, b: int, zero: Value, streams: Streams[Value]) -> list[Value]:
    """The elements of one segment."""
    found = [zero] * segment.weights
    if not segment.kept:
        return found
    gaps, values = streams(segment.streams, segment.kept + segment.fillers)
    position = -1
    for gap, value in zip(gaps, values, strict=True):
        position += gap + 1
        require(position < len(found), "an entry past the end")
        require(value != zero or gap == 2**b - 1, "a filler whose gap is not M")
        found[position] = value
    require(values[-1] != zero, "a filler as the last entry")
    require(values.count(zero) == segment.fillers, "other than the declared number of fillers")
    return found


def in_streams(k: int) -> Tables[int]:
    """GAP_SHARED: two code tables, two bit streams."""

    def tables(source: Bytes, b: int) -> Streams[int]:
        gap_code, value_code = codes.read_code(source, 2**b), codes.read_code(source, k + 1)

        def streams(data: bytes, count: int) -> tuple[list[int], list[int]]:
            body = Bytes(data)
            gaps = codes.read_symbols(gap_code, body.take(body.varint()), count)
            return gaps, codes.read_symbols(value_code, body.rest(), count)

        return streams

    return tables


def as_floats(half: bool) -> Tables[bytes]:
    """GAP_FLOAT: one code table, one bit stream, and floats."""

    def tables(source: Bytes, b: int) -> Streams[bytes]:
        code = codes.read_code(source, 2**b)

        def streams(data: bytes, count: int) -> tuple[list[int], list[bytes]]:
            body = Bytes(data)
            gaps = codes.read_symbols(code, body.take(body.varint()), count)
            values = [body.take(2 if half else len(ZERO)) for _ in range(count)]
            body.end()
            return gaps, list(map(widened, values)) if half else values

        return streams

    return tables


def in_one(k: int) -> Tables[int]:
    """GAP_RANS: two frequency tables, one stream of gap, index, gap, index, ..."""

    def tables(source: Bytes, b: int) -> Streams[int]:
        both = [read_frequencies(source, 2**b), read_frequencies(source, k + 1)]

        def streams(data: bytes, count: int) -> tuple[list[int], list[int]]:
            symbols = rans.read_symbols(data, both, [0, 1] * count)
            return symbols[0::2], symbols[1::2]

        return streams

    return tables
