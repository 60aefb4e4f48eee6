"""The payload of one tensor: its mode, its codebook, its elements."""

import struct
from math import prod

from tests.golden.second import context, dense, entries, packed
from tests.golden.second.floats import ZERO, product, read_step, widened
from tests.golden.second.reading import Bytes, require

RAW, FP16, GAP_SHARED, GAP_FLOAT, GAP_RANS, DENSE_RANS, CONTEXT, PACKED = range(8)
BOOL = 3


def decoded(mode: int, dtype: int, shape: list[int], payload: bytes) -> tuple[bytes, bytes]:
    """The elements, and the bytes that the checksum of what was decoded is of."""
    source, n = Bytes(payload), prod(shape)
    if mode == RAW:
        require(dtype != BOOL or max(payload, default=0) <= 1, "a bool byte above 1")
        return payload, payload
    if mode == FP16:
        return b"".join(widened(source.take(2)) for _ in range(n)), payload
    if mode == PACKED:
        return (b"".join(packed.read_numbers(source, n)),) * 2
    if mode == GAP_FLOAT:
        b, half, _ = _read_head(source, 0)
        read = entries.as_floats(half)
        return (b"".join(entries.read_entries(source, n, b, ZERO, read)),) * 2
    k = source.varint()
    require(k <= 65536, "a codebook over 65,536 entries")
    b, _, codebook = _read_head(source, k, shared=True)
    require(not b or mode in (GAP_SHARED, GAP_RANS), "a gap width where there are no gaps")
    if mode == DENSE_RANS:
        indices = dense.read_indices(source, shape, k)
    elif mode == CONTEXT:
        indices = context.read_indices(source, shape, codebook)
    else:
        both = entries.in_streams(k) if mode == GAP_SHARED else entries.in_one(k)
        indices = entries.read_entries(source, n, b, 0, both)
    values = [ZERO, *codebook]
    kind = "B" if k < 256 else "H" if k < 65536 else "I"
    return b"".join(values[i] for i in indices), struct.pack(f"<{n}{kind}", *indices)


def _read_head(source: Bytes, k: int, shared: bool = False) -> tuple[int, bool, list[bytes]]:
    """Width of a gap, whether floats are float16, and the codebook."""
    form, b = divmod(source.u8(), 16)
    require(b <= 12, "a gap width over 12")
    require(form <= (2 if shared else 1), "an unknown form of codebook")
    if form == 2:
        m = source.varint()
        require(m <= k, "more negative levels than entries")
        step = read_step(source)
        grid = [level for level in range(-m, k - m + 1) if level]
        return b, False, [product(level, step) for level in grid]
    if form == 1:
        return b, True, [widened(source.take(2)) for _ in range(k)]
    return b, False, [source.take(4) for _ in range(k)]
