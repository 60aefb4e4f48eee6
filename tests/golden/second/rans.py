"""rANS streams."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from tests.golden.second.reading import Bytes, require

LOW = 2**16


def fewest_lanes(symbols: int) -> int:
    """The smallest a that leaves each of 2^a lanes 32,768 symbols or fewer; 12 if none does."""
    return next((a for a in range(12) if symbols <= 2**a * 32768), 12)


def read_symbols(stream: bytes, tables: list[list[int]], contexts: Sequence[int]) -> list[int]:
    """A symbol for each context, the number of its frequency table."""
    source = Bytes(stream)
    a = source.u8()
    require(fewest_lanes(len(contexts)) <= a <= 12, "fewer or more lanes than there may be")
    states = [source.u32() for _ in range(2**a)]
    require(min(states) >= LOW, "a state below 2^16")
    before = [list(accumulate(table, initial=0)) for table in tables]
    found = []
    for i, context in enumerate(contexts):
        x = states[i % 2**a]
        slot = x % 2**14
        symbol = bisect_right(before[context], slot) - 1  # past the absent ones, whose sums repeat
        x = tables[context][symbol] * (x >> 14) + slot - before[context][symbol]
        if x < LOW:
            x = LOW * x + source.u16()
        states[i % 2**a] = x
        found.append(symbol)
    source.end()
    require(states == [LOW] * 2**a, "a state other than 2^16 at the end")
    return found
