"""Payload bytes back to tensors, or `ArtifactError`: whatever the bytes are, nothing else.

Counts are checked against the tensor's size before memory is taken for them, and a tensor's size
against the caller's limits before that (`compressor.artifact.layout`).
"""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.context_unpacking import ContextPayload, parse_context
from compressor.artifact.gaps_unpacking import GapPayload, parse_gaps
from compressor.artifact.heads import widen
from compressor.artifact.layout import TensorRecord
from compressor.artifact.packed import unpack_numbers
from compressor.artifact.rans_unpacking import DensePayload, parse_dense
from compressor.artifact.types import DTYPES, Entry, Mode, Parts, Shared, index_dtype
from compressor.coding.gaps import Symbols
from compressor.coding.streams_core import Target
from compressor.errors import ArtifactError


def unpack_tensor(record: TensorRecord, payload: memoryview, threads: int = 1) -> npt.NDArray[Any]:
    """Return the dense tensor, in this machine's byte order."""
    if record.mode.shared:
        return _unpack_dense(record, payload, threads)
    if record.mode is Mode.GAP_FLOAT:
        symbols = parse_gaps(record, payload).symbols(np.dtype("<u4"))
        _check_decoded(symbols, record)
        flat: npt.NDArray[Any] = symbols.view("<f4")
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
    record: TensorRecord, parsed: GapPayload | DensePayload | ContextPayload, threads: int
) -> Shared:
    dtype = index_dtype(len(parsed.codebook))
    indices: Symbols = np.empty(record.elements, dtype)
    target = Target(record.elements, _lookup(parsed.codebook), indices=indices)
    if parsed.fill(target, threads):
        _check_crc(target.crc, record)
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


def _check_decoded(flat: Symbols, record: TensorRecord) -> None:
    _check_crc(zlib.crc32(flat.data), record)


def _check_crc(found: int, record: TensorRecord) -> None:
    if found != record.decoded_crc:
        raise ArtifactError("the decoded weights do not match their checksum")


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
