"""Real payloads as inputs of fuzz_core.c, so that fuzzing begins deep inside of the decoders.

Tensors are encoded and decoded, and what the core is handed is written down field by field, in the
order in which fuzz_core.c reads it.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from compressor.artifact import Mode, Shared, decode, encode
from compressor.coding import native
from compressor.coding.context import Grid
from compressor.coding.frequencies import Frequencies
from compressor.coding.huffman import Lengths
from compressor.coding.streams_core import Target
from tests.fuzz.artifacts import artifacts, in_segments, preferring

GAPS, ENTRIES, DENSE, CONTEXT, CODEWORDS, COUNTING = range(6)
_LATER = 8  # bit of what is decoded: not from the first weight on
_HONEST = 1


def _number(value: int) -> bytes:
    return struct.pack("<H", value)


def _weights(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def _what(target: Target) -> int:
    return (target.indices is not None) + 2 * (target.floats is not None)


def _lengths(lengths: Lengths) -> bytes:
    """A code: how many symbols, and their lengths."""
    return _number(len(lengths) - 1) + bytes([_HONEST]) + (lengths + 1).astype(np.uint8).tobytes()


def _tables(tables: list[Frequencies]) -> tuple[int, bytes]:
    """The alphabet of tables, and their frequencies."""
    alphabet = max(map(len, tables))
    rows = np.zeros((len(tables), alphabet), dtype="<u2")
    for row, table in zip(rows, tables, strict=True):
        row[: len(table)] = table
    return alphabet, bytes([_HONEST]) + rows.tobytes()


def gaps(
    codes: Sequence[Lengths],
    streams: Sequence[memoryview],
    counts: tuple[int, int, int],
    target: Target,
) -> bytes:
    """The input that decodes a GAP_SHARED payload."""
    kept, fillers, width = counts
    head = bytes([GAPS, _what(target), width]) + _weights(target.n)
    head += _lengths(codes[0]) + _lengths(codes[1]) + _weights(kept) + _weights(fillers)
    return head + _weights(len(streams[0])) + bytes(streams[0]) + bytes(streams[1])


def entries(
    tables: list[Frequencies], stream: memoryview, counts: tuple[int, int, int], target: Target
) -> bytes:
    """The input that decodes a GAP_RANS payload."""
    kept, fillers, width = counts
    alphabet, rows = _tables(tables)
    head = bytes([ENTRIES, _what(target), width]) + _weights(target.n)
    head += _weights(kept) + _weights(fillers) + _number(alphabet - 1) + rows
    return head + _number(len(target.table) - 1) + bytes(stream)


def dense(
    tables: list[Frequencies],
    stream: memoryview,
    classes: tuple[np.ndarray, np.ndarray],
    first: int,
    target: Target,
) -> bytes:
    """The input that decodes a DENSE_RANS payload, or a segment of one."""
    alphabet, rows = _tables(tables)
    what = _what(target) + (_LATER if first else 0)
    head = bytes([DENSE, what, len(tables) - 1]) + _number(alphabet - 1)
    head += b"".join(_number(len(axis) - 1) for axis in classes) + rows
    head += _number(first) if first else b""
    return head + b"".join(axis.tobytes() for axis in classes) + bytes(stream)


def context(stream: memoryview, grid: Grid) -> bytes:
    """The input that decodes a CONTEXT payload."""
    head = bytes([CONTEXT]) + _number(grid.rows - 1) + _number(grid.columns - 1)
    head += bytes([grid.height, grid.width])
    for largest in (grid.positive, grid.negative):
        head += _number(min(largest, 65535)) + bytes([largest // 65536])
    return head + bytes([grid.rate]) + bytes(stream)


def codewords(
    codes: np.ndarray, lengths: np.ndarray, symbols: np.ndarray, out: np.ndarray, bits: int
) -> bytes | None:
    """The input that writes symbols; of many there is none."""
    if len(codes) > 256 or len(out) >= 5000:
        return None
    head = bytes([CODEWORDS, len(codes) - 1]) + _number(len(out))
    for code, length in zip(codes.tolist(), lengths.tolist(), strict=True):
        head += bytes([length]) + _weights(code)
    return head + _number(bits) + symbols.astype(np.uint8).tobytes()


def counting(flat: np.ndarray, classes: tuple[np.ndarray, np.ndarray], alphabet: int) -> bytes:
    """The input that lists and counts the symbols of a matrix."""
    tables = sum(int(axis.max()) for axis in classes)
    head = bytes([COUNTING, flat.itemsize, 3]) + _number(len(flat)) + _number(4999) + _number(20)
    head += _number(alphabet) + bytes([len(classes[1]) - 1, tables])
    return head + flat.tobytes() + b"".join(axis.tobytes() for axis in classes)


def _counted() -> Iterator[bytes]:
    """Sparse matrices and dense ones of all kinds of symbols: an encoder's, not a file's."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 3, 20).astype(np.uint8), rng.integers(0, 3, 50).astype(np.uint8)
    for kind in ("u1", "u2", "u4"):
        for keep in (0.02, 0.9):
            flat = np.where(rng.random(1000) < keep, rng.integers(0, 200, 1000), 0)
            yield counting(flat.astype(kind), classes, 200)


# Where the core is called, and how the call is written down.
_CALLS = {
    "compressor.artifact.gaps_unpacking.decode_gaps": gaps,
    "compressor.artifact.rans_unpacking.decode_rans_gaps": entries,
    "compressor.artifact.rans_unpacking.decode_dense": dense,
    "compressor.artifact.context_unpacking.context.decode": context,
    "compressor.coding.streams_core.encode_symbols": codewords,
}


def inputs() -> list[bytes]:
    """One input for each call of the core that the tensors below make, both ways, and others."""
    found: dict[bytes, None] = {}

    def noted(write: Any, original: Any) -> Any:
        def call(*given: Any) -> Any:
            if (data := write(*given)) is not None:
                found[data] = None
            return original(*given)

        return call

    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", {native.VARIABLE: "c"}))
        for place, write in _CALLS.items():
            module, _, name = place.rpartition(".")
            original = getattr(_imported(module), name)
            stack.enter_context(mock.patch(place, noted(write, original)))
        small = [file.blob for file in artifacts()]
        blobs = []
        for mode, tensor in _tensors():
            with preferring(mode):
                blobs.append(encode({"w": tensor}, profile="best"))
        for blob in blobs:
            _decode(blob)
        with in_segments():
            for blob in small:
                _decode(blob)
    return [*found, *_counted()]


def _decode(blob: bytes) -> None:
    artifact = decode(blob, threads=1)
    for name in artifact.names:
        artifact.tensor(name)
        artifact.shared(name)


def _imported(module: str) -> Any:
    found = __import__(module.split(".")[0])
    for name in module.split(".")[1:]:
        found = getattr(found, name)
    return found


def _tensors() -> Iterator[tuple[Mode, Shared]]:
    """Larger than those of `artifacts`: several blocks, lanes and bands, indices of two bytes."""
    rng = np.random.default_rng(0)

    def shared(shape: tuple[int, ...], size: int, keep: float) -> Shared:
        level = np.rint(size / 2 + size / 8 * rng.laplace(size=shape)).clip(1, size)
        indices = np.where(rng.random(shape) < keep, level, 0)
        book = np.delete(np.arange(-(size // 2), size - size // 2 + 1), size // 2)
        return Shared(indices.astype(np.min_scalar_type(size)), book.astype(np.float32))

    for mode in (Mode.GAP_SHARED, Mode.GAP_RANS, Mode.DENSE_RANS):
        yield mode, shared((400, 300), 7, 0.02)
        yield mode, shared((300, 120), 2, 0.0005)
        yield mode, shared((50, 40), 15, 1.0)
        yield mode, shared((60, 50), 400, 0.6)
        yield mode, shared((90, 70), 31, 1.0)
    yield Mode.CONTEXT, shared((300, 4), 15, 0.4)
    yield Mode.CONTEXT, shared((8, 6, 3, 3), 599, 0.9)
    yield Mode.CONTEXT, shared((4, 3, 5, 5), 1, 0.5)
    yield Mode.CONTEXT, shared((3, 30), 16_000, 1.0)


def write(folder: Path) -> list[Path]:
    """Write all inputs to ``folder``, named by their content."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for data in inputs():
        paths.append(folder / hashlib.sha1(data).hexdigest())
        paths[-1].write_bytes(data)
    return paths
