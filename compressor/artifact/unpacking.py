"""Payload bytes back to tensors, or `ArtifactError`: whatever the bytes are, nothing else.

Counts are checked against the tensor's size before memory is taken for them, and a tensor's size
against the caller's limits before that (`compressor.artifact.layout`).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.context_unpacking import ContextPayload, parse_context
from compressor.artifact.heads import read_floats, read_head, widen
from compressor.artifact.layout import TensorRecord
from compressor.artifact.packed import unpack_numbers
from compressor.artifact.rans_unpacking import DensePayload, EntryReader, RansEntries, parse_dense
from compressor.artifact.types import DTYPES, Entry, Mode, Parts, Shared, index_dtype
from compressor.coding import gaps
from compressor.coding.buffer import ByteReader
from compressor.coding.frequencies import read_frequencies
from compressor.coding.gaps import Symbols
from compressor.coding.huffman import Lengths
from compressor.coding.symbols import SymbolReader
from compressor.coding.tables import read_table
from compressor.errors import ArtifactError

_ENTRIES = 1 << 16
"""Entries decoded at once."""


@dataclass(frozen=True, eq=False)
class GapPayload:
    """The parsed payload of a GAP mode; GAP_FLOAT has an empty codebook.

    ``entries`` decodes its streams; ``None`` where no weight is kept.
    """

    width: int
    half: bool
    kept: int
    fillers: int
    parts: Parts
    codebook: npt.NDArray[np.float32]
    entries: Callable[[], EntryReader] | None = None


def unpack_tensor(record: TensorRecord, payload: memoryview) -> npt.NDArray[Any]:
    """Return the dense tensor, in this machine's byte order."""
    if record.mode.shared:
        return unpack_shared(record, payload).dense()
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


def unpack_shared(record: TensorRecord, payload: memoryview) -> Shared:
    """Return indices and codebook of a tensor in one of the shared modes."""
    if record.mode in (Mode.DENSE_RANS, Mode.CONTEXT):
        dense = _parse_dense(record, payload)
        indices, codebook = dense.symbols(index_dtype(len(dense.codebook))), dense.codebook
        _check_decoded(indices, record)
    else:
        parsed = parse_gaps(record, payload)
        indices, codebook = _dense_symbols(record, parsed), parsed.codebook
    return Shared(_native(indices).reshape(record.shape), _native(codebook))


def describe(record: TensorRecord, payload: memoryview) -> Entry:
    """Return what there is to know of a tensor; modes without a count are decoded for it."""
    known = (record.name, record.shape, DTYPES[record.dtype].name, record.mode, record.elements)
    if record.mode in (Mode.DENSE_RANS, Mode.CONTEXT):
        dense, shared = _parse_dense(record, payload), unpack_shared(record, payload)
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


def _parse_dense(record: TensorRecord, payload: memoryview) -> DensePayload | ContextPayload:
    parse = parse_context if record.mode is Mode.CONTEXT else parse_dense
    return parse(record, payload)


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
        return GapPayload(width, half, 0, 0, parts, codebook)
    start = reader.position
    entries: Callable[[], EntryReader]
    if record.mode is Mode.GAP_RANS:
        models = [read_frequencies(reader, 1 << width), read_frequencies(reader, size + 1)]
        tables, gap_bytes = reader.position - start, 0
        values = reader.take(reader.remaining)
        entries = partial(RansEntries, values, models, kept + fillers)
    else:
        gap_code = read_table(reader, 1 << width)
        value_code = read_table(reader, size + 1) if record.mode.shared else None
        tables = reader.position - start
        gap_stream = reader.take(reader.varint())
        gap_bytes = len(gap_stream)
        values = reader.take(reader.remaining)
        entries = partial(
            _StreamEntries, gap_code, gap_stream, value_code, values, half, kept + fillers
        )
    parts = Parts(len(values), gap_bytes, tables, centroids)
    parts = replace(parts, other=len(payload) - parts.total)
    return GapPayload(width, half, kept, fillers, parts, codebook, entries)


class _StreamEntries:
    """Entries in two streams; without a code for values these are floats."""

    def __init__(
        self,
        gap_code: Lengths,
        gap_stream: memoryview,
        value_code: Lengths | None,
        values: memoryview,
        half: bool,
        count: int,
    ) -> None:
        self._gaps = SymbolReader(gap_code, gap_stream)
        self._values = (
            _FloatReader(values, half, count)
            if value_code is None
            else SymbolReader(value_code, values)
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
        self._bits = read_floats(stream, half).view("<u4")
        self._next = 0

    def read(self, count: int) -> npt.NDArray[np.uint32]:
        self._next += count
        return self._bits[self._next - count : self._next]

    def finish(self) -> None:
        """All values have been read: their number was checked at the start."""


def _dense_symbols(record: TensorRecord, parsed: GapPayload) -> Symbols:
    """Return (n,) little-endian indices, or bit patterns of float32, and check their CRC-32."""
    dtype = index_dtype(len(parsed.codebook)) if record.mode.shared else np.dtype("<u4")
    flat: Symbols = np.zeros(record.elements, dtype)
    if parsed.entries is not None:
        _place_entries(flat, parsed, parsed.entries())
    _check_decoded(flat, record)
    return flat


def _check_decoded(flat: Symbols, record: TensorRecord) -> None:
    if zlib.crc32(flat.data) != record.decoded_crc:
        raise ArtifactError("the decoded weights do not match their checksum")


def _place_entries(flat: Symbols, parsed: GapPayload, entries: EntryReader) -> None:
    left = parsed.kept + parsed.fillers
    position, zeros = -1, 0
    while left:
        count = min(left, _ENTRIES)
        left -= count
        skips, values = entries.read(count)
        position = gaps.place(flat, position, skips, values, parsed.width)
        zeros += count - int(np.count_nonzero(values))
    entries.finish()
    if not flat[position]:
        raise ArtifactError("the last entry is a filler")
    if zeros != parsed.fillers:
        raise ArtifactError(f"{zeros} fillers are written where {parsed.fillers} are declared")


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
