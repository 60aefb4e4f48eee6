"""Tensors to payload bytes: the modes, and the choice of the smallest."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.context_packing import pack_context
from compressor.artifact.heads import fits_half, narrow, pack_head
from compressor.artifact.layout import fixed_payload, payload_cost
from compressor.artifact.packed import pack_numbers
from compressor.artifact.planning import Plan, plan_floats, plan_shared
from compressor.artifact.rans_packing import Candidate, plan_rans
from compressor.artifact.segments import pack_segments
from compressor.artifact.types import (
    DTYPES,
    HALF_FLAG,
    Mode,
    Profile,
    Shared,
    index_dtype,
)
from compressor.coding import gaps
from compressor.coding.buffer import varint
from compressor.coding.gaps import Symbols
from compressor.coding.symbols import SymbolWriter

_FEW = 1 << 16
"""Numbers that are looked at for a common step; PACKED is for vectors."""

_QUICK = 1.01
"""How much larger ``fast`` may write what decodes several times as fast."""

Bits = npt.NDArray[np.uint32]
"""float32 weights as their bit patterns, (n,)."""


@dataclass(frozen=True)
class Payload:
    """One tensor as it stands in the file."""

    mode: Mode
    dtype: int
    data: bytes | memoryview
    decoded_crc: int | None = None


def pack_tensor(tensor: npt.NDArray[Any] | Shared, profile: Profile) -> Payload:
    """Return the smallest payload of ``profile`` that decodes to ``tensor`` bit for bit.

    A plain array's dtype must be one of `DTYPES`, in any byte order.
    """
    if isinstance(tensor, Shared):
        return _pack_shared(tensor, profile)
    dtype = DTYPES.index(tensor.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(tensor, dtype=DTYPES[dtype]).reshape(-1)
    if dtype != 0:
        return Payload(Mode.RAW, dtype, _bytes(flat))
    return _pack_floats(flat.view("<u4"), profile)


def _pack_shared(tensor: Shared, profile: Profile) -> Payload:
    size = len(tensor.codebook)
    flat = np.ascontiguousarray(tensor.indices).reshape(-1).astype(index_dtype(size), copy=False)
    runs, counts = gaps.count_both(flat, size + 1)
    plan = plan_shared(runs, counts, huffman=profile != "flat")
    head = pack_head(tensor.codebook, plan.width)
    cost = payload_cost(Mode.GAP_SHARED, len(head) + plan.size)
    best: Payload | None = None
    # In every other mode a kept weight takes two bytes or more, so those are seldom worth a look.
    if cost > 2 * plan.kept:
        plain = _pack_floats(tensor.dense().reshape(-1).view("<u4"), profile)
        if payload_cost(plain.mode, len(plain.data)) < cost:
            best, cost = plain, payload_cost(plain.mode, len(plain.data))
    if profile in ("fast", "best") and len(flat):
        few = profile == "fast" and len(flat) > gaps.SEGMENT
        planned = plan_rans(
            flat, tensor.indices.shape, tensor.codebook, runs, counts, few_entries=few
        )
        for mode, data in _entropy_coded(flat, tensor, planned, cost, profile):
            if payload_cost(mode, len(data)) < cost:
                best = Payload(mode, 0, data, zlib.crc32(flat.data))
                cost = payload_cost(mode, len(data))
    if best:
        return best
    data = head + pack_entries(flat, plan, lambda: SymbolWriter(plan.values.code))
    return Payload(Mode.GAP_SHARED, 0, data, zlib.crc32(flat.data))


def _entropy_coded(
    flat: Symbols, tensor: Shared, planned: list[Candidate], cost: int, profile: Profile
) -> Iterator[tuple[Mode, bytes]]:
    """Yield the payloads worth writing in the modes that go beyond the paper's.

    Of what was planned, those that may turn out to be the smallest, since lengths are known to
    about 0.1 %. ``fast`` is there to be decoded fast: it writes a large tensor in gaps where there
    are few of them, unless weight by weight it is over 1 % smaller.
    """
    if profile == "fast" and len(flat) > gaps.SEGMENT:
        quick = min(planned, key=lambda each: each.symbols)
        if 2 * quick.symbols <= len(flat):
            planned = [each for each in planned if each.size * _QUICK < quick.size] or [quick]
    least = min([cost, *(each.size for each in planned)])
    margin = 64 + least // 200 if len(flat) <= gaps.SEGMENT else 0
    for each in planned:
        if each.size <= least + margin:
            yield each.mode, each.pack()
    if profile == "best":
        data = pack_context(flat, tensor.indices.shape, tensor.codebook)
        if data is not None:
            yield Mode.CONTEXT, data


def _pack_floats(bits: Bits, profile: Profile) -> Payload:
    half = fits_half(bits)
    fixed = Mode.FP16 if half and len(bits) else Mode.RAW
    plan = plan_floats(gaps.count_runs(bits), 2 if half else 4, huffman=profile != "flat")
    cost = fixed_payload(fixed, 0, len(bits))
    crc = zlib.crc32(bits.data)
    if profile in ("fast", "best") and len(bits) <= _FEW:
        packed = pack_numbers(bits.view("<f4"))
        if packed is not None and payload_cost(Mode.PACKED, len(packed)) < cost:
            gap_cost = payload_cost(Mode.GAP_FLOAT, 1 + plan.size)
            if payload_cost(Mode.PACKED, len(packed)) < gap_cost:
                return Payload(Mode.PACKED, 0, packed, crc)
    if payload_cost(Mode.GAP_FLOAT, 1 + plan.size) < cost:
        head = bytes([plan.width + HALF_FLAG * half])
        data = head + pack_entries(bits, plan, lambda: _FloatWriter(half))
        return Payload(Mode.GAP_FLOAT, 0, data, crc)
    values: npt.NDArray[Any] = narrow(bits.view("<f4")) if fixed is Mode.FP16 else bits
    return Payload(fixed, 0, _bytes(values))


class _FloatWriter:
    """Writes weights as they are, given as bit patterns."""

    def __init__(self, half: bool) -> None:
        self._half = half
        self._bytes = bytearray()

    def write(self, bits: Bits) -> None:
        bits = np.ascontiguousarray(bits, dtype="<u4")
        self._bytes += (narrow(bits.view("<f4")) if self._half else bits).tobytes()

    def finish(self) -> bytes:
        return bytes(self._bytes)


def pack_entries(
    flat: Symbols, plan: Plan, writer: Callable[[], SymbolWriter | _FloatWriter]
) -> bytes:
    """Return counts, tables and both streams for the non-zeros of ``flat`` (n,)."""
    if not plan.kept:
        return plan.counts
    bodies, counts = [], []
    for start, stop in gaps.segments(len(flat)):
        skips, found, kept = gaps.list_entries(
            flat[start:stop], plan.width, plan.kept + plan.fillers
        )
        gap_writer, values = SymbolWriter(plan.gaps.code), writer()
        gap_writer.write(skips)
        values.write(found)
        stream = gap_writer.finish()
        bodies.append(varint(len(stream)) + stream + values.finish() if kept else b"")
        counts.append((kept, len(found) - kept))
    return plan.counts + plan.tables + pack_segments(bodies, counts)


def _bytes(flat: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of ``flat`` (n,), contiguous, without a copy."""
    return flat.view(np.uint8).data
