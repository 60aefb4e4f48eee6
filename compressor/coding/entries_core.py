"""What an encoder counts and collects, by the C core; `compressor.coding.gaps` does it in NumPy."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import native

Symbols = npt.NDArray[np.unsignedinteger[Any]]
Counts = npt.NDArray[np.int64]


def _pointer(array: npt.NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _check(status: int) -> None:
    if status != native.OK:
        raise ValueError(f"the C core refuses to count, with status {status}")


def count_runs(core: ctypes.CDLL, flat: Symbols, runs: Counts, counts: Counts | None) -> Counts:
    """Add to ``runs`` the runs of zeros before each non-zero of ``flat`` (n,), to ``counts`` its
    symbols; return the runs that are longer than ``runs`` has room for."""
    longer, listed = np.empty(len(flat) // max(len(runs), 1), dtype=np.int64), ctypes.c_uint64()
    _check(
        core.dcz_count_runs(
            _pointer(flat),
            ctypes.c_uint32(flat.itemsize),
            ctypes.c_uint64(len(flat)),
            _pointer(runs),
            ctypes.c_uint64(len(runs)),
            _pointer(longer),
            ctypes.c_uint64(len(longer)),
            ctypes.byref(listed),
            _pointer(counts),
            ctypes.c_uint64(0 if counts is None else len(counts)),
        )
    )
    return longer[: listed.value]


def list_entries(
    core: ctypes.CDLL, flat: Symbols, width: int, capacity: int
) -> tuple[npt.NDArray[np.uint32], int]:
    """Return gaps and values of ``flat`` (n,), (entries, 2), and the number of non-zeros."""
    out = np.empty((capacity, 2), dtype=np.uint32)
    kept, entries = ctypes.c_uint64(), ctypes.c_uint64()
    _check(
        core.dcz_list_entries(
            _pointer(flat),
            ctypes.c_uint32(flat.itemsize),
            ctypes.c_uint64(len(flat)),
            ctypes.c_uint32(width),
            _pointer(out),
            ctypes.c_uint64(capacity),
            ctypes.byref(kept),
            ctypes.byref(entries),
        )
    )
    return out[: entries.value], kept.value


def count_tables(
    core: ctypes.CDLL,
    flat: Symbols,
    classes: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    counts: Counts,
) -> None:
    """Add to ``counts`` (tables, symbols) the symbols of a matrix with ``classes`` of its rows and
    of its columns."""
    rows, columns = (np.ascontiguousarray(axis) for axis in classes)
    _check(
        core.dcz_count_tables(
            _pointer(flat),
            ctypes.c_uint32(flat.itemsize),
            _pointer(rows),
            ctypes.c_uint64(len(rows)),
            _pointer(columns),
            ctypes.c_uint64(len(columns)),
            _pointer(counts),
            *(ctypes.c_uint64(size) for size in counts.shape),
        )
    )
