"""Context mixing by the C core: the bits and the refusals of `compressor.coding.context`."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import native
from compressor.errors import ArtifactError

REFUSALS = {
    native.RANGE: "a context-mixed stream holds a level out of range",
    native.END: "a context-mixed stream does not end where it must",
}


class _Shape(ctypes.Structure):
    """``dcz_context_shape``."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("rows", "columns", "height", "width")),
        *((name, ctypes.c_uint32) for name in ("positive", "negative", "rate")),
    )


def _workspace(core: ctypes.CDLL, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    core.dcz_context_workspace.restype = ctypes.c_size_t
    size = core.dcz_context_workspace(ctypes.byref(_Shape(*shape)))
    return np.empty(size // 8 + 1, dtype=np.uint64)


def _buffer(array: npt.NDArray[Any]) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def encode(core: ctypes.CDLL, levels: npt.NDArray[np.int32], shape: tuple[int, ...]) -> bytes:
    """Return the stream of ``levels`` (rows, columns); ``shape`` are a `Grid`'s fields."""
    levels = np.ascontiguousarray(levels, dtype=np.int32)
    # A flag costs 14 bits at most, and a weight has 2 flags and 2 for each bit of its magnitude.
    out = np.empty(4 * levels.size + 1024, dtype=np.uint8)
    workspace, written = _workspace(core, shape), ctypes.c_size_t()
    while True:
        status = core.dcz_context_encode(
            ctypes.byref(_Shape(*shape)),
            _buffer(levels)[0],
            *_buffer(out),
            ctypes.byref(written),
            *_buffer(workspace),
        )
        if status != native.NO_ROOM:
            break
        out = np.empty(2 * out.size, dtype=np.uint8)
    if status != native.OK:
        raise ValueError(f"levels of {shape} cannot be coded")
    return out[: written.value].tobytes()


def decode(core: ctypes.CDLL, stream: memoryview, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Return the levels (rows, columns) of ``stream``."""
    levels = np.empty(shape[:2], dtype=np.int32)
    workspace = _workspace(core, shape)
    status = core.dcz_context_decode(
        ctypes.byref(_Shape(*shape)),
        *_buffer(np.frombuffer(stream, dtype=np.uint8)),
        _buffer(levels)[0],
        *_buffer(workspace),
    )
    if status in REFUSALS:
        raise ArtifactError(REFUSALS[status])
    if status != native.OK:
        raise ValueError(f"{shape} is no matrix that can be decoded")
    return levels
