"""Floats as the four bytes that they are in the file: NaNs would not all survive as numbers."""

import math
import struct

from tests.golden.second.reading import Bytes, Refused, require

ZERO = bytes(4)


def widened(half: bytes) -> bytes:
    """float16 as float32."""
    (value,) = struct.unpack("<e", half)
    require(not math.isnan(value), "NaN as float16")
    return struct.pack("<f", value)


def read_step(source: Bytes) -> float:
    """The step of a grid or of packed numbers."""
    (step,) = struct.unpack("<f", source.take(4))
    require(math.isfinite(step) and step > 0, "a step that is not finite or not over 0")
    return float(step)


def product(whole: int, step: float) -> bytes:
    """``whole``, below 2^24, times ``step``: exact in float64, rounded once."""
    try:
        return struct.pack("<f", whole * step)
    except OverflowError:
        raise Refused("a multiple of a step that is not finite") from None
