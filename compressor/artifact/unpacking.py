"""Payload bytes back to tensors, or `ArtifactError`: whatever the bytes are, nothing else.

Counts are checked against the tensor's size before memory is taken for them, and a tensor's size
against the caller's limits before that (`compressor.artifact.layout`).
"""

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.layout import TensorRecord
from compressor.artifact.types import (
    DTYPES,
    HALF_FLAG,
    MAX_CODEBOOK,
    Entry,
    Mode,
    Parts,
    Shared,
    index_dtype,
)
from compressor.coding import gaps
from compressor.coding.buffer import ByteReader
from compressor.coding.gaps import MAX_WIDTH, Symbols
from compressor.coding.huffman import Lengths
from compressor.coding.symbols import SymbolReader
from compressor.coding.tables import read_table
from compressor.errors import ArtifactError

_ENTRIES = 1 << 16
"""Entries decoded at once."""


@dataclass(frozen=True, eq=False)
class GapPayload:
    """The parsed payload of a GAP mode; GAP_FLOAT has an empty codebook and no code for values."""

    width: int
    half: bool
    kept: int
    fillers: int
    parts: Parts
    codebook: npt.NDArray[np.float32]
    gap_code: Lengths | None = None
    value_code: Lengths | None = None
    gap_stream: memoryview = field(default=memoryview(b""))
    value_stream: memoryview = field(default=memoryview(b""))


def unpack_tensor(record: TensorRecord, payload: memoryview) -> npt.NDArray[Any]:
    """Return the dense tensor, in this machine's byte order."""
    if record.mode is Mode.GAP_SHARED:
        return unpack_shared(record, payload).dense()
    if record.mode is Mode.GAP_FLOAT:
        flat: npt.NDArray[Any] = _dense_symbols(record, parse_gaps(record, payload))
        flat = flat.view("<f4")
    elif record.mode is Mode.FP16:
        flat = _widen(payload)
    else:
        flat = _raw(record, payload)
    return _native(flat).reshape(record.shape)


def unpack_shared(record: TensorRecord, payload: memoryview) -> Shared:
    """Return indices and codebook of a GAP_SHARED tensor."""
    parsed = parse_gaps(record, payload)
    indices = _dense_symbols(record, parsed)
    return Shared(_native(indices).reshape(record.shape), _native(parsed.codebook))


def describe(record: TensorRecord, payload: memoryview) -> Entry:
    """Return what there is to know of a tensor without decoding its streams."""
    known = (record.name, record.shape, DTYPES[record.dtype].name, record.mode, record.elements)
    if record.mode.coded:
        gap = parse_gaps(record, payload)
        size = len(gap.codebook) if record.mode is Mode.GAP_SHARED else None
        return Entry(*known, gap.kept, len(payload), gap.parts, gap.width, gap.fillers, size)
    flat = _widen(payload) if record.mode is Mode.FP16 else _raw(record, payload)
    return Entry(*known, int(np.count_nonzero(flat)), len(payload), Parts(values=len(payload)))


def parse_gaps(record: TensorRecord, payload: memoryview) -> GapPayload:
    """Return the parts of a GAP_SHARED or GAP_FLOAT payload; the streams are not decoded."""
    reader = ByteReader(payload, "the payload")
    shared = record.mode is Mode.GAP_SHARED
    size = reader.varint() if shared else 0
    if size > MAX_CODEBOOK:
        raise ArtifactError(f"the codebook has {size} entries; {MAX_CODEBOOK} are the most")
    width, half = _parse_width(reader.byte())
    centroids = reader.take(size * (2 if half else 4))
    codebook = _floats(centroids, half)
    kept, fillers = reader.varint(), reader.varint()
    if kept + fillers > record.elements or (fillers and not kept):
        raise ArtifactError(f"{kept} weights and {fillers} fillers cannot be in {record.elements}")
    if not kept:
        reader.finish()
        parts = Parts(codebook=len(centroids), other=len(payload) - len(centroids))
        return GapPayload(width, half, 0, 0, parts, codebook)
    start = reader.position
    gap_code = read_table(reader, 1 << width)
    value_code = read_table(reader, size + 1) if shared else None
    tables = reader.position - start
    gap_stream = reader.take(reader.varint())
    values = reader.take(reader.remaining)
    parts = Parts(len(values), len(gap_stream), tables, len(centroids))
    parts = replace(parts, other=len(payload) - parts.total)
    return GapPayload(
        width, half, kept, fillers, parts, codebook, gap_code, value_code, gap_stream, values
    )


def _parse_width(byte: int) -> tuple[int, bool]:
    width = byte & ~HALF_FLAG
    if width > MAX_WIDTH:
        raise ArtifactError(f"the gap width byte is {byte:#04x}; widths go up to {MAX_WIDTH}")
    return width, bool(byte & HALF_FLAG)


class _FloatReader:
    """Reads weights stored as they are, as bit patterns."""

    def __init__(self, stream: memoryview, half: bool, count: int) -> None:
        itemsize = 2 if half else 4
        if len(stream) != count * itemsize:
            raise ArtifactError(f"{count} values of {itemsize} bytes cannot be in {len(stream)}")
        self._bits = _floats(stream, half).view("<u4")
        self._next = 0

    def read(self, count: int) -> npt.NDArray[np.uint32]:
        self._next += count
        return self._bits[self._next - count : self._next]

    def finish(self) -> None:
        """All values have been read: their number was checked at the start."""


def _dense_symbols(record: TensorRecord, parsed: GapPayload) -> Symbols:
    """Return (n,) little-endian indices, or bit patterns of float32, and check their CRC-32."""
    shared = record.mode is Mode.GAP_SHARED
    dtype = index_dtype(len(parsed.codebook)) if shared else np.dtype("<u4")
    flat: Symbols = np.zeros(record.elements, dtype)
    if parsed.gap_code is not None:
        _place_entries(flat, parsed, parsed.gap_code)
    if zlib.crc32(flat.data) != record.decoded_crc:
        raise ArtifactError("the decoded weights do not match their checksum")
    return flat


def _place_entries(flat: Symbols, parsed: GapPayload, gap_code: Lengths) -> None:
    left = parsed.kept + parsed.fillers
    gap_reader = SymbolReader(gap_code, parsed.gap_stream)
    value_reader = (
        _FloatReader(parsed.value_stream, parsed.half, left)
        if parsed.value_code is None
        else SymbolReader(parsed.value_code, parsed.value_stream)
    )
    position, zeros = -1, 0
    while left:
        count = min(left, _ENTRIES)
        left -= count
        values = value_reader.read(count)
        position = gaps.place(flat, position, gap_reader.read(count), values, parsed.width)
        zeros += count - int(np.count_nonzero(values))
    gap_reader.finish()
    value_reader.finish()
    if not flat[position]:
        raise ArtifactError("the last entry is a filler")
    if zeros != parsed.fillers:
        raise ArtifactError(f"{zeros} fillers are written where {parsed.fillers} are declared")


def _raw(record: TensorRecord, payload: memoryview) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = np.frombuffer(payload, dtype=DTYPES[record.dtype])
    if flat.dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
        raise ArtifactError("a bool is stored as a byte other than 0 and 1")
    return flat


def _floats(data: memoryview, half: bool) -> npt.NDArray[np.float32]:
    return _widen(data) if half else np.frombuffer(data, dtype="<f4")


def _widen(data: memoryview) -> npt.NDArray[np.float32]:
    half = np.frombuffer(data, dtype="<f2")
    if np.isnan(half).any():
        raise ArtifactError(
            "a float16 is NaN, which machines widen differently; NaN must be float32"
        )
    return half.astype("<f4")


def _native(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``flat`` writable and in this machine's byte order."""
    return flat.astype(flat.dtype.newbyteorder("="), copy=not flat.flags.writeable)
