"""Payloads of the GAP modes back to symbols, or `ArtifactError`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.artifact.heads import read_floats, read_head
from compressor.artifact.layout import TensorRecord
from compressor.artifact.rans_unpacking import EntryReader, RansEntries
from compressor.artifact.segments import Segment, fill_segments, fill_zeros, read_segments
from compressor.artifact.types import Mode, Parts
from compressor.coding import gaps
from compressor.coding.buffer import ByteReader
from compressor.coding.frequencies import read_frequencies
from compressor.coding.gaps import Symbols
from compressor.coding.huffman import Lengths
from compressor.coding.streams_core import Target, decode_gaps
from compressor.coding.symbols import SymbolReader
from compressor.coding.tables import read_table
from compressor.errors import ArtifactError

_ENTRIES = 1 << 16
"""Entries decoded at once."""


class GapPayload(NamedTuple):
    """The parsed payload of a GAP mode; GAP_FLOAT has an empty codebook.

    ``segments`` have what decodes their streams, ``None`` where one has no weight; there are no
    segments where no weight is kept.
    """

    elements: int
    width: int
    half: bool
    kept: int
    fillers: int
    parts: Parts
    codebook: npt.NDArray[np.float32]
    segments: "list[tuple[Segment, _StreamEntries | RansEntries | None]]"

    def fill(self, target: Target, threads: int) -> bool:
        """Decode into ``target`` by the C core; return whether it did."""
        found = dict(self.segments)

        def one(segment: Segment, part: Target) -> bool:
            entries = found[segment]
            if entries is None:
                return fill_zeros(part)
            return entries.fill((segment.kept, segment.fillers, self.width), part)

        return bool(found) and fill_segments(list(found), target, threads, one)

    def symbols(self, dtype: np.dtype[np.unsignedinteger[Any]]) -> Symbols:
        """Return the (n,) indices; of GAP_FLOAT bit patterns of float32."""
        flat: Symbols = np.zeros(self.elements, dtype)
        for each, entries in self.segments:
            if entries is not None:
                _place_entries(flat[each.start : each.stop], each, self.width, entries.open())
        return flat


def parse_gaps(record: TensorRecord, payload: memoryview) -> GapPayload:
    """Return the parts of a GAP payload; the streams are not decoded."""
    reader = ByteReader(payload, "the payload")
    head = read_head(reader, record.mode.shared)
    width, half, codebook, centroids = head.width, head.half, head.codebook, head.bytes
    size = len(codebook)
    kept, fillers = reader.varint(), reader.varint()
    if kept + fillers > record.elements or (fillers and not kept):
        raise ArtifactError(f"{kept} weights and {fillers} fillers cannot be in {record.elements}")
    if not kept:
        reader.finish()
        parts = Parts(codebook=centroids, other=len(payload) - centroids)
        return GapPayload(record.elements, width, half, 0, 0, parts, codebook, [])
    start = reader.position
    make: Callable[[Segment], _StreamEntries | RansEntries]
    if record.mode is Mode.GAP_RANS:
        models = [read_frequencies(reader, 1 << width), read_frequencies(reader, size + 1)]
        make = partial(RansEntries.of, models)
    else:
        gap_code = read_table(reader, 1 << width)
        value_code = read_table(reader, size + 1) if record.mode.shared else None
        make = partial(_StreamEntries.of, gap_code, value_code, half)
    tables = reader.position - start
    segments = [
        (each, make(each) if each.kept else None)
        for each in read_segments(reader, record.shape, (kept, fillers))
    ]
    used = [entries for _, entries in segments if entries is not None]
    values, gap_bytes = sum(each.value_bytes for each in used), sum(each.gap_bytes for each in used)
    parts = Parts(values, gap_bytes, tables, centroids)
    parts = parts._replace(other=len(payload) - parts.total)
    return GapPayload(record.elements, width, half, kept, fillers, parts, codebook, segments)


@dataclass(frozen=True, eq=False)
class _StreamEntries:
    """Entries in two streams; without a code for values these are floats."""

    gap_code: Lengths
    gap_stream: memoryview
    value_code: Lengths | None
    values: memoryview
    half: bool
    count: int

    @classmethod
    def of(
        cls, gap_code: Lengths, value_code: Lengths | None, half: bool, segment: Segment
    ) -> "_StreamEntries":
        """Return the entries of a segment, its body split in two."""
        reader = ByteReader(segment.body, "the payload")
        gap_stream = reader.take(reader.varint())
        values, count = reader.take(reader.remaining), segment.kept + segment.fillers
        return cls(gap_code, gap_stream, value_code, values, half, count)

    @property
    def gap_bytes(self) -> int:
        """Bytes of the stream of gaps."""
        return len(self.gap_stream)

    @property
    def value_bytes(self) -> int:
        """Bytes of the stream of values."""
        return len(self.values)

    def fill(self, counts: tuple[int, int, int], target: Target) -> bool:
        """Decode all into ``target`` by the C core; return whether it did."""
        if self.value_code is None:
            return False
        codes, streams = (self.gap_code, self.value_code), (self.gap_stream, self.values)
        return decode_gaps(codes, streams, counts, target)

    def open(self) -> EntryReader:
        """Begin to read."""
        return _StreamReader(self)


class _StreamReader:
    def __init__(self, source: _StreamEntries) -> None:
        self._gaps = SymbolReader(source.gap_code, source.gap_stream)
        self._values = (
            _FloatReader(source.values, source.half, source.count)
            if source.value_code is None
            else SymbolReader(source.value_code, source.values)
        )

    def read(self, count: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        values = self._values.read(count)
        return self._gaps.read(count), values

    def finish(self) -> None:
        self._gaps.finish()
        self._values.finish()


class _FloatReader:
    """Reads weights stored as they are, as bit patterns."""

    def __init__(self, stream: memoryview, half: bool, count: int) -> None:
        itemsize = 2 if half else 4
        if len(stream) != count * itemsize:
            raise ArtifactError(f"{count} values of {itemsize} bytes cannot be in {len(stream)}")
        self._reader, self._half, self._itemsize = ByteReader(stream, "the values"), half, itemsize

    def read(self, count: int) -> npt.NDArray[np.uint32]:
        return read_floats(self._reader.take(count * self._itemsize), self._half).view("<u4")

    def finish(self) -> None:
        """All values have been read: their number was checked at the start."""


def _place_entries(flat: Symbols, segment: Segment, width: int, entries: EntryReader) -> None:
    left = segment.kept + segment.fillers
    position, zeros = -1, 0
    while left:
        count = min(left, _ENTRIES)
        left -= count
        skips, values = entries.read(count)
        position = gaps.place(flat, position, skips, values, width)
        zeros += count - int(np.count_nonzero(values))
    entries.finish()
    if not flat[position]:
        raise ArtifactError("the last entry is a filler")
    if zeros != segment.fillers:
        raise ArtifactError(f"{zeros} fillers are written where {segment.fillers} are declared")
