"""Payload bytes back to tensors, or `ArtifactError`: whatever the bytes are, nothing else.

Counts are checked against the tensor's size before memory is taken for them, and a tensor's size
against the caller's limits before that (`compressor.artifact.layout`).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.artifact.context_unpacking import ContextPayload, parse_context
from compressor.artifact.heads import read_floats, read_head, widen
from compressor.artifact.layout import TensorRecord
from compressor.artifact.packed import unpack_numbers
from compressor.artifact.rans_unpacking import DensePayload, EntryReader, RansEntries, parse_dense
from compressor.artifact.segments import Segment, fill_segments, fill_zeros, read_segments
from compressor.artifact.types import DTYPES, Entry, Mode, Parts, Shared, index_dtype
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


def unpack_tensor(record: TensorRecord, payload: memoryview, threads: int = 1) -> npt.NDArray[Any]:
    """Return the dense tensor, in this machine's byte order."""
    if record.mode.shared:
        return _unpack_dense(record, payload, threads)
    if record.mode is Mode.GAP_FLOAT:
        flat: npt.NDArray[Any] = _dense_symbols(record, parse_gaps(record, payload))
        flat = flat.view("<f4")
    elif record.mode is Mode.PACKED:
        flat = _numbers(record, payload)
    elif record.mode is Mode.FP16:
        flat = widen(payload)
    else:
        flat = _raw(record, payload)
    return _native(flat).reshape(record.shape)


def _unpack_dense(
    record: TensorRecord, payload: memoryview, threads: int
) -> npt.NDArray[np.float32]:
    """Return the weights of a tensor in one of the shared modes; in C without its indices."""
    parsed = _parse(record, payload)
    target = Target(record.elements, _lookup(parsed.codebook), floats=_floats(record.elements))
    if parsed.fill(target, threads) and target.floats is not None:
        _check_crc(target.crc, record)
        return target.floats.reshape(record.shape)
    target.floats = None  # the memory is wanted below
    return _shared(record, parsed, threads).dense()


def unpack_shared(record: TensorRecord, payload: memoryview, threads: int = 1) -> Shared:
    """Return indices and codebook of a tensor in one of the shared modes."""
    return _shared(record, _parse(record, payload), threads)


def _shared(
    record: TensorRecord, parsed: "GapPayload | DensePayload | ContextPayload", threads: int
) -> Shared:
    dtype = index_dtype(len(parsed.codebook))
    indices: Symbols = np.empty(record.elements, dtype)
    target = Target(record.elements, _lookup(parsed.codebook), indices=indices)
    if parsed.fill(target, threads):
        _check_crc(target.crc, record)
    elif isinstance(parsed, GapPayload):
        indices = _dense_symbols(record, parsed)
    else:
        indices = parsed.symbols(dtype)
        _check_decoded(indices, record)
    return Shared(_native(indices).reshape(record.shape), _native(parsed.codebook))


def _lookup(codebook: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([np.zeros(1, dtype=np.float32), codebook])


def _floats(count: int) -> npt.NDArray[np.float32]:
    return np.empty(count, dtype=np.float32)


def describe(record: TensorRecord, payload: memoryview) -> Entry:
    """Return what there is to know of a tensor; modes without a count are decoded for it."""
    known = (record.name, record.shape, DTYPES[record.dtype].name, record.mode, record.elements)
    if record.mode in (Mode.DENSE_RANS, Mode.CONTEXT):
        dense, shared = _parse(record, payload), unpack_shared(record, payload)
        nonzero = int(np.count_nonzero(shared.indices))
        values = len(dense.codebook)
        return Entry(*known, nonzero, len(payload), dense.parts, codebook_size=values)
    if record.mode is Mode.PACKED:
        nonzero = int(np.count_nonzero(_numbers(record, payload)))
        return Entry(*known, nonzero, len(payload), Parts(values=len(payload)))
    if record.mode.coded:
        gap = parse_gaps(record, payload)
        size = len(gap.codebook) if record.mode.shared else None
        return Entry(*known, gap.kept, len(payload), gap.parts, gap.width, gap.fillers, size)
    flat = widen(payload) if record.mode is Mode.FP16 else _raw(record, payload)
    return Entry(*known, int(np.count_nonzero(flat)), len(payload), Parts(values=len(payload)))


def _parse(record: TensorRecord, payload: memoryview) -> GapPayload | DensePayload | ContextPayload:
    if record.mode is Mode.CONTEXT:
        return parse_context(record, payload)
    return (parse_dense if record.mode is Mode.DENSE_RANS else parse_gaps)(record, payload)


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
        return GapPayload(width, half, 0, 0, parts, codebook, [])
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
    return GapPayload(width, half, kept, fillers, parts, codebook, segments)


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


def _dense_symbols(record: TensorRecord, parsed: GapPayload) -> Symbols:
    """Return (n,) little-endian indices, or bit patterns of float32, and check their CRC-32."""
    dtype = index_dtype(len(parsed.codebook)) if record.mode.shared else np.dtype("<u4")
    flat: Symbols = np.zeros(record.elements, dtype)
    for each, entries in parsed.segments:
        if entries is not None:
            _place_entries(flat[each.start : each.stop], each, parsed.width, entries.open())
    _check_decoded(flat, record)
    return flat


def _check_decoded(flat: Symbols, record: TensorRecord) -> None:
    _check_crc(zlib.crc32(flat.data), record)


def _check_crc(found: int, record: TensorRecord) -> None:
    if found != record.decoded_crc:
        raise ArtifactError("the decoded weights do not match their checksum")


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


def _numbers(record: TensorRecord, payload: memoryview) -> npt.NDArray[Any]:
    flat = unpack_numbers(payload, record.elements)
    _check_decoded(flat.view("<u4"), record)
    return flat


def _raw(record: TensorRecord, payload: memoryview) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = np.frombuffer(payload, dtype=DTYPES[record.dtype])
    if flat.dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
        raise ArtifactError("a bool is stored as a byte other than 0 and 1")
    return flat


def _native(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``flat`` writable and in this machine's byte order."""
    return flat.astype(flat.dtype.newbyteorder("="), copy=not flat.flags.writeable)
