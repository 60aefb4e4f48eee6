"""Plain floats that are multiples of one step, as packed integers, both ways.

Quantized biases and norms are of this kind, and so are constants. No codebook, no table: what a few
numbers can afford.
"""

import numpy as np
import numpy.typing as npt

from compressor.artifact.heads import Book, read_step
from compressor.coding.buffer import ByteReader, varint
from compressor.errors import ArtifactError

MAX_WIDTH = 24
"""Bits of a number: float32 holds whole numbers below 2^24, and their multiples of a step."""
_BLOCK = 1 << 14
_FARTHEST = 36  # octaves between the smallest and the largest mantissa's unit


def pack_numbers(values: Book) -> bytes | None:
    """Return the payload of ``values`` (n,), ``None`` where no step gives them bit for bit."""
    step = _step(values)
    if step is None:
        return None
    levels = np.rint(values / step).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    width = (high - low).bit_length()
    if width > MAX_WIDTH or max(abs(low), abs(low + (1 << width))) >= 1 << MAX_WIDTH:
        return None
    if (_numbers(levels, step).view("<u4") != values.view("<u4")).any():
        return None
    shifts = np.arange(width - 1, -1, -1)
    bits = ((levels - low)[:, None] >> shifts & 1).astype(np.uint8)
    head = bytes([width]) + np.array(step, "<f4").tobytes()
    return head + varint(2 * abs(low) + (low < 0)) + np.packbits(bits.reshape(-1)).tobytes()


def unpack_numbers(payload: memoryview, count: int) -> Book:
    """Return the ``count`` float32 values of a payload."""
    reader = ByteReader(payload, "the payload")
    width = reader.byte()
    step = read_step(reader)
    folded = reader.varint()
    low = -(folded >> 1) if folded & 1 else folded >> 1
    if width > MAX_WIDTH or max(abs(low), abs(low + (1 << width))) >= 1 << MAX_WIDTH:
        raise ArtifactError(f"numbers of {width} bits from {low} on are too large")
    if folded == 1:
        raise ArtifactError("a number is written as -0")
    data = np.frombuffer(reader.take((count * width + 7) // 8), dtype=np.uint8)
    reader.finish()
    if width * count % 8 and data[-1] & (0xFF >> width * count % 8):
        raise ArtifactError("the padding of packed numbers is not zero")
    found: Book = np.empty(count, dtype="<f4")
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # Blocks are multiples of 8 numbers, so each begins with a byte.
        block = data[start * width // 8 : (stop * width + 7) // 8]
        bits = np.unpackbits(block, count=(stop - start) * width).reshape(stop - start, width)
        levels = np.full(stop - start, low, dtype=np.int64)
        for bit in range(width):
            levels += bits[:, bit].astype(np.int64) << (width - 1 - bit)
        found[start:stop] = _numbers(levels, step)
        if not np.isfinite(found[start:stop]).all():
            raise ArtifactError(f"multiples of {step} leave the range of float32")
    return found


def _numbers(levels: npt.NDArray[np.int64], step: np.float32) -> Book:
    with np.errstate(over="ignore"):
        found: Book = levels.astype("<f4") * step
    return found


def _step(values: Book) -> np.float32 | None:
    """Return the largest step of which all ``values`` (n,) are whole multiples, if there is one."""
    used = values[values != 0]
    if not np.isfinite(used).all() or not len(values):
        return None
    if not len(used):
        return np.float32(1)
    mantissas, exponents = np.frexp(np.abs(used).astype(np.float64))
    lowest = int(exponents.min())
    if int(exponents.max()) - lowest > _FARTHEST:
        return None
    whole = (mantissas * (1 << 24)).astype(np.int64) << (exponents - lowest).astype(np.int64)
    common = int(np.gcd.reduce(whole))
    with np.errstate(under="ignore", over="ignore"):
        step = np.float32(np.ldexp(float(common), lowest - 24))
    return step if np.isfinite(step) and step > 0 else None
