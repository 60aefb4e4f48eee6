"""Code tables, and the bit streams written in them."""

from tests.golden.second.reading import Bits, Bytes, require, step

Code = dict[tuple[int, int], int]
"""Symbols by their codewords: (length, codeword)."""


def read_code(source: Bytes, alphabet: int) -> Code:
    """A code for symbols 0 to ``alphabet`` - 1."""
    v, kind = divmod(source.varint(), 4)
    require(kind <= 2, "an unknown kind of table")
    if kind == 2:
        require(v < alphabet, "a table for more symbols than its alphabet has")
        return {(0, 0): v}
    require(2 <= v <= alphabet, "a table for more symbols than its alphabet has")
    longest = (v - 1).bit_length()
    if kind == 0:
        lengths = {s: longest - (s < 2**longest - v) for s in range(v)}
    else:
        lengths = _read_lengths(source, v, longest)
    kraft = sum(2 ** (17 - length) for length in lengths.values())
    require(kraft == 2**17, "an incomplete or over-full code")
    return _canonical(lengths)


def _read_lengths(source: Bytes, v: int, previous: int) -> dict[int, int]:
    bits, symbol = Bits(source.data[source.at :]), 0
    lengths: dict[int, int] = {}
    while symbol < v:
        number = bits.gamma()
        if number == 4:
            symbol += bits.gamma()
            continue
        previous += step(number)
        require(1 <= previous <= 17, "a codeword that is not of 1 to 17 bits")
        lengths[symbol] = previous
        symbol += 1
    require(v - 1 in lengths, "a last symbol without a codeword")
    source.take(bits.padded())
    return lengths


def _canonical(lengths: dict[int, int]) -> Code:
    code, word, last = {}, -1, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        word = (word + 1) << (length - last)
        last = length
        code[length, word] = symbol
    return code


def read_symbol(code: Code, bits: Bits) -> int:
    """The next symbol; the code is complete, so there is one within 17 bits."""
    length = word = 0
    while (length, word) not in code:
        length, word = length + 1, 2 * word + bits.bit()
    return code[length, word]


def read_symbols(code: Code, stream: bytes, count: int) -> list[int]:
    """All ``count`` symbols of a stream."""
    bits = Bits(stream)
    found = [read_symbol(code, bits) for _ in range(count)]
    bits.end()
    return found
