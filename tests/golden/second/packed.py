"""PACKED: numbers of fixed width, times a step."""

from tests.golden.second.floats import product, read_step
from tests.golden.second.reading import Bits, Bytes, require


def read_numbers(source: Bytes, n: int) -> list[bytes]:
    """The ``n`` elements of a payload."""
    b, step, folded = source.u8(), read_step(source), source.varint()
    require(folded != 1, "-0 as the lowest number")
    low = -(folded // 2) if folded % 2 else folded // 2
    require(b <= 24 and abs(low) < 2**24 and abs(low + 2**b) < 2**24, "numbers out of range")
    bits = Bits(source.take((n * b + 7) // 8))
    source.end()
    found = [product(low + bits.number(b), step) for _ in range(n)]
    bits.end()
    return found
