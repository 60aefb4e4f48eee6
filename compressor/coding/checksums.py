"""The CRC-32 of data whose parts were checked apart, perhaps at the same time.

A CRC is a remainder of polynomials over GF(2): that of two parts is that of the first, times
x^(8 x bytes of the second), plus that of the second.
"""

from collections.abc import Iterable
from functools import cache

_POLYNOMIAL = 0xEDB88320  # reflected, without its uppermost term; 1 is the uppermost bit
_ONE = 1 << 31


def joined(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC-32 of parts in their order, each given as its CRC-32 and its bytes."""
    found = 0
    for crc, size in parts:
        found = _times(_power(size), found) ^ crc if found else crc
    return found


@cache
def _power(size: int) -> int:
    """x^(8 ``size``), by squaring."""
    found, square = _ONE, _ONE >> 8
    while size:
        if size & 1:
            found = _times(found, square)
        square = _times(square, square)
        size >>= 1
    return found


def _times(left: int, right: int) -> int:
    found = 0
    while left:
        if left & _ONE:
            found ^= right
        left = left << 1 & (1 << 32) - 1
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return found
