"""Huffman codes, rANS and gaps by the C core: whole payloads to indices and floats at once.

Each function says by its return value whether the core decoded the payload. Where it did not (there
is no core, or it refused), NumPy's decoder has the word, and the message.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import native
from compressor.coding.frequencies import TOTAL, Frequencies
from compressor.coding.huffman import Lengths

_MAX_ENTRIES = 1 << 16


class _Target(ctypes.Structure):
    """``dcz_target``."""

    _fields_ = (
        ("n", ctypes.c_uint64),
        ("indices", ctypes.c_void_p),
        ("index_bytes", ctypes.c_uint32),
        ("entries", ctypes.c_uint64),
        ("table", ctypes.c_void_p),
        ("floats", ctypes.c_void_p),
        ("crc_tables", ctypes.c_void_p),
        ("crc", ctypes.c_uint32),
    )


class _Code(ctypes.Structure):
    """``dcz_code``."""

    _fields_ = (
        ("lengths", ctypes.c_void_p),
        ("symbols", ctypes.c_uint64),
        ("stream", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
    )


@dataclass(eq=False)
class Target:
    """Where the weights of a tensor go: ``indices`` (n,) of one or two bytes, ``floats`` (n,), or
    both; a float is ``table[index]``, ``table`` (k + 1,) float32. ``crc`` is set by decoding."""

    n: int
    table: npt.NDArray[np.float32]
    indices: npt.NDArray[np.unsignedinteger[Any]] | None = None
    floats: npt.NDArray[np.float32] | None = None
    crc: int = 0
    crc_tables: npt.NDArray[np.uint32] | None = None

    @property
    def fits(self) -> bool:
        """Whether the core can fill it."""
        return len(self.table) <= _MAX_ENTRIES

    def part(self, start: int, stop: int) -> "Target":
        """Return the target of weights ``start`` to ``stop`` - 1."""
        indices = None if self.indices is None else self.indices[start:stop]
        floats = None if self.floats is None else self.floats[start:stop]
        return Target(stop - start, self.table, indices, floats)

    @property
    def index_bytes(self) -> int:
        """Bytes of an index, of those that ``crc`` is the checksum of."""
        return 1 if len(self.table) <= 1 << 8 else 2

    def structure(self) -> _Target:
        """Return it as C sees it; the arrays must outlive that."""
        pointers = [None if a is None else a.ctypes.data for a in (self.indices, self.floats)]
        # Held here: of two threads that make the first ones at once, the cache keeps but one's.
        self.crc_tables = _crc_tables()
        table, crc_tables = self.table.ctypes.data, self.crc_tables.ctypes.data
        return _Target(
            self.n,
            pointers[0],
            self.index_bytes,
            len(self.table),
            table,
            pointers[1],
            crc_tables,
            0,
        )


@cache
def _crc_tables() -> npt.NDArray[np.uint32]:
    tables = np.empty((16, 256), dtype=np.uint32)
    core = native.built()
    if core is not None:
        core.dcz_crc_tables(ctypes.c_void_p(tables.ctypes.data))
    return tables


def _workspace(core: ctypes.CDLL, tables: int = 0) -> npt.NDArray[np.uint64]:
    core.dcz_gaps_workspace.restype = core.dcz_rans_workspace.restype = ctypes.c_size_t
    size = core.dcz_rans_workspace(ctypes.c_uint64(tables)) if tables else core.dcz_gaps_workspace()
    return np.empty(size // 8 + 1, dtype=np.uint64)


def _bytes(data: memoryview) -> tuple[ctypes.c_void_p, ctypes.c_uint64]:
    array = np.frombuffer(data, dtype=np.uint8)
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(len(array))


def _buffer(array: npt.NDArray[Any]) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def _code(lengths: Lengths, stream: memoryview) -> _Code:
    pointer, size = _bytes(stream)
    return _Code(lengths.ctypes.data, len(lengths), pointer, size)


def _counts(kept: int, fillers: int, width: int) -> tuple[Any, Any, Any]:
    return ctypes.c_uint64(kept), ctypes.c_uint64(fillers), ctypes.c_uint32(width)


def _table(tables: list[Frequencies]) -> npt.NDArray[np.uint32]:
    """Frequencies as rows of one array."""
    rows = np.zeros((len(tables), max(len(table) for table in tables)), dtype=np.uint32)
    for row, table in zip(rows, tables, strict=True):
        row[: len(table)] = table
    return rows


def decode_gaps(
    codes: tuple[Lengths, Lengths],
    streams: tuple[memoryview, memoryview],
    counts: tuple[int, int, int],
    target: Target,
) -> bool:
    """Decode entries in two Huffman streams, of gaps and values; ``counts`` are the weights kept,
    the fillers and the gaps' width."""
    core = native.library()
    if core is None or not target.fits:
        return False
    into, workspace = target.structure(), _workspace(core)
    held = [np.ascontiguousarray(code, dtype=np.int8) for code in codes]
    both = [_code(code, stream) for code, stream in zip(held, streams, strict=True)]
    status = core.dcz_decode_gaps(
        ctypes.byref(both[0]),
        ctypes.byref(both[1]),
        *_counts(*counts),
        ctypes.byref(into),
        *_buffer(workspace),
    )
    target.crc = into.crc
    return bool(status == native.OK)


def decode_rans_gaps(
    tables: list[Frequencies], stream: memoryview, counts: tuple[int, int, int], target: Target
) -> bool:
    """Decode entries in one rANS stream."""
    core = native.library()
    if core is None or not target.fits:
        return False
    rows, into, workspace = _table(tables), target.structure(), _workspace(core, 2)
    status = core.dcz_decode_rans_gaps(
        ctypes.c_void_p(rows.ctypes.data),
        ctypes.c_uint64(rows.shape[1]),
        *_bytes(stream),
        *_counts(*counts),
        ctypes.byref(into),
        *_buffer(workspace),
    )
    target.crc = into.crc
    return bool(status == native.OK)


def decode_dense(
    tables: list[Frequencies],
    stream: memoryview,
    classes: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    first: int,
    target: Target,
) -> bool:
    """Decode one rANS stream of the indices from ``first`` on of a matrix; ``classes`` are those of
    its rows and of its columns."""
    core = native.library()
    if core is None or not target.fits:
        return False
    rows, into, workspace = _table(tables), target.structure(), _workspace(core, len(tables))
    held = [np.ascontiguousarray(axis, dtype=np.uint8) for axis in classes]
    status = core.dcz_decode_dense(
        ctypes.c_void_p(rows.ctypes.data),
        ctypes.c_uint64(len(rows)),
        ctypes.c_uint64(rows.shape[1]),
        *_bytes(stream),
        ctypes.c_void_p(held[0].ctypes.data),
        ctypes.c_uint64(len(held[0])),
        ctypes.c_void_p(held[1].ctypes.data),
        ctypes.c_uint64(len(held[1])),
        ctypes.c_uint64(first),
        ctypes.byref(into),
        *_buffer(workspace),
    )
    target.crc = into.crc
    return bool(status == native.OK)


def encode_symbols(
    codes: npt.NDArray[np.uint32],
    lengths: npt.NDArray[np.uint8],
    symbols: npt.NDArray[np.uint32],
    out: npt.NDArray[np.uint8],
    bits: int,
) -> int | None:
    """Write codewords from bit ``bits`` of ``out`` on; return the bit after them."""
    core = native.library()
    if core is None:
        return None
    after = ctypes.c_uint64(bits)
    status = core.dcz_encode_symbols(
        ctypes.c_void_p(codes.ctypes.data),
        ctypes.c_void_p(lengths.ctypes.data),
        ctypes.c_uint64(len(codes)),
        ctypes.c_void_p(symbols.ctypes.data),
        ctypes.c_uint64(len(symbols)),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_uint64(len(out)),
        ctypes.byref(after),
    )
    if status != native.OK:
        raise ValueError("symbols without a codeword")
    return after.value


def encode_rans(
    tables: list[Frequencies],
    symbols: npt.NDArray[Any],
    contexts: npt.NDArray[np.uint8] | None,
    lanes: int,
) -> bytes | None:
    """Return the stream of `compressor.coding.rans.encode`."""
    core = native.library()
    if core is None:
        return None
    rows = _table(tables)
    wide = np.ascontiguousarray(symbols, dtype=np.uint32)
    held = None if contexts is None else np.ascontiguousarray(contexts, dtype=np.uint8)
    states, used = np.empty(1 << lanes, dtype=np.uint32), ctypes.c_uint64()
    out = np.empty(len(wide) + 1, dtype=np.uint16)  # a symbol puts out one word at most
    workspace = np.empty(rows.size // 2 + 1, dtype=np.uint64)
    status = core.dcz_encode_rans(
        ctypes.c_void_p(rows.ctypes.data),
        ctypes.c_uint64(len(rows)),
        ctypes.c_uint64(rows.shape[1]),
        ctypes.c_void_p(wide.ctypes.data),
        ctypes.c_void_p(None if held is None else held.ctypes.data),
        ctypes.c_uint64(len(wide)),
        ctypes.c_uint32(lanes),
        ctypes.c_void_p(states.ctypes.data),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_uint64(len(out)),
        ctypes.byref(used),
        *_buffer(workspace),
    )
    if status != native.OK:
        raise ValueError(f"symbols without a frequency of 1 to {TOTAL}")
    words = out[len(out) - used.value :].astype("<u2")
    return bytes([lanes]) + states.astype("<u4").tobytes() + words.tobytes()
