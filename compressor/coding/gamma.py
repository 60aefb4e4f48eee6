"""Small signed numbers as bits: Elias's gamma code of folded differences, for tables.

Bits are text here ("0010"): tables are short, and the text is what the format's tables show.
"""

from collections.abc import Iterable

from compressor.errors import ArtifactError

SKIP = 3
"""Folded number that no difference has: a run of absent symbols follows."""
_MAX_ZEROS = 17  # enough for a run of 2^17 symbols, more than any alphabet has


def fold(difference: int) -> int:
    """0, 1, -1, 2, -2, ... become 0, 1, 2, 4, 5, ...: 3 is ``SKIP``."""
    folded = 2 * difference - 1 if difference > 0 else -2 * difference
    return folded if folded < SKIP else folded + 1


def unfold(symbol: int) -> int:
    """Return the difference that `fold` made ``symbol`` of; not ``SKIP``."""
    folded = symbol if symbol < SKIP else symbol - 1
    return (folded + 1) // 2 if folded % 2 else -(folded // 2)


def gamma(value: int, order: int = 0) -> str:
    """Gamma code of ``value`` >> ``order``, plus 1, then the ``order`` low bits.

    As many zeros as the number has bits after its first, then the number.
    """
    binary = f"{(value >> order) + 1:b}"
    low = f"{value & (1 << order) - 1:0{order}b}" if order else ""
    return "0" * (len(binary) - 1) + binary + low


def steps(values: Iterable[int], absent: int, previous: int, order: int = 0) -> str:
    """Each value as its difference to the one before, ``previous`` at first; runs of the value
    ``absent`` as ``SKIP`` and their length less 1. The last value must not be absent."""
    bits: list[str] = []
    run = 0
    for value in values:
        if value == absent:
            run += 1
            continue
        if run:
            bits += gamma(SKIP, order), gamma(run - 1)
            run = 0
        bits.append(gamma(fold(value - previous), order))
        previous = value
    return "".join(bits)


def read_gamma(bits: str, position: int, order: int = 0) -> tuple[int, int]:
    """Return the number at ``position`` and the position after it."""
    one = bits.find("1", position, position + _MAX_ZEROS + 1)
    end = 2 * one - position + 1
    if one < 0 or end + order > len(bits):
        raise ArtifactError("a code table is truncated or holds a number out of range")
    high = int(bits[one:end], 2) - 1
    return high << order | int(bits[end : end + order] or "0", 2), end + order


def pack_bits(text: str) -> bytes:
    """Return the bits as bytes, most significant first, padded with zeros."""
    count = (len(text) + 7) // 8
    return int(text.ljust(8 * count, "0") or "0", 2).to_bytes(count, "big")


def unpack_bits(window: memoryview) -> str:
    """Return the bits of ``window``."""
    return f"{int.from_bytes(window, 'big'):0{8 * len(window)}b}" if len(window) else ""


def padded_bytes(bits: str, position: int) -> int:
    """Return how many bytes ``position`` bits fill; the bits after them must be zeros."""
    count = (position + 7) // 8
    if "1" in bits[position : 8 * count]:
        raise ArtifactError("a code table's padding is not zero")
    return count
