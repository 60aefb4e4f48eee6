"""Frequency tables: levels, and what they are worth."""

from itertools import pairwise

from tests.golden.second.reading import Bits, Bytes, require, step

TOTAL = 2**14
# 2^(31 - i/8), i = 0 to 7, as the document has them
M = (
    *(2147483648, 1969251188, 1805811301, 1655936265),
    *(1518500250, 1392470869, 1276901417, 1170923762),
)


def read_frequencies(source: Bytes, alphabet: int) -> list[int]:
    """The frequencies of symbols 0, 1, ..., 0 for those that are absent."""
    v, kind = divmod(source.varint(), 4)
    if kind == 2:
        require(v < alphabet, "a table for more symbols than its alphabet has")
        return [0] * v + [TOTAL]
    require(2 <= v <= alphabet, "a table for more symbols than its alphabet has")
    sizes = _buckets(v) if kind == 3 else [1] * v
    weights = [M[0]] * v if kind == 0 else _read_weights(source, sizes)
    return _shares(weights)


def _buckets(v: int) -> list[int]:
    """How many symbols each bucket has."""
    starts = list(range(min(8, v)))
    while (start := starts[-1] + (1 if starts[-1] < 8 else 2 ** (_bits(starts[-1]) - 3))) < v:
        starts.append(start)
    return [after - start for start, after in pairwise([*starts, v])]


def _bits(x: int) -> int:
    return x.bit_length()


def _read_weights(source: Bytes, sizes: list[int]) -> list[int]:
    """The weight of each symbol, of a level for each bucket of ``sizes``; 0 for absent ones."""
    bits = Bits(source.data[source.at :])
    s, j = bits.number(2), bits.number(2)
    level, weights = 16 << s, []
    bucket, last, started = 0, -1, False
    while bucket < len(sizes):
        number = bits.gamma(j)
        if number == 4:
            absent = bits.gamma()
            weights += [0] * sum(sizes[bucket : bucket + absent])
            bucket += absent
            continue
        require(started or number == 1, "a first level that is not 16 * 2^s")
        started = True
        level += step(number)
        require(0 <= level < 31 << s, "a level out of range")
        octave, fraction = divmod(level, 2**s)
        weights += [M[fraction << 3 - s] >> octave] * sizes[bucket]
        last = bucket
        bucket += 1
    require(last == len(sizes) - 1, "absent symbols at the end")
    source.take(bits.padded())
    return weights


def _shares(weights: list[int]) -> list[int]:
    present, whole, before = sum(w > 0 for w in weights), sum(weights), 0
    require(present <= TOTAL, "over 2^14 symbols that are present")
    found = []
    for w in weights:
        upper, lower = ((TOTAL - present) * edge // whole for edge in (before + w, before))
        found.append(1 + upper - lower if w else 0)
        before += w
    return found
