"""Code tables as bytes.

A table is a varint ``4 n + kind``:

* kind 0, *flat*: n >= 2 symbols of equal length (to one bit), nothing follows;
* kind 1, *lengths*: n >= 2 codeword lengths follow as a bit string, padded with zeros to a byte;
* kind 2, *single*: the one symbol n, written in no bits.

The lengths of neighbouring symbols differ little, because gaps are nearly geometric and
weights bell-shaped, so each is written as its difference to the one before, in an Elias gamma
code: one bit for "the same", three for one more or one less.
"""

import numpy as np

from compressor.coding.buffer import ByteReader, varint
from compressor.coding.gamma import (
    SKIP,
    pack_bits,
    padded_bytes,
    read_gamma,
    steps,
    unfold,
    unpack_bits,
)
from compressor.coding.huffman import (
    ABSENT,
    LONGEST,
    Counts,
    Lengths,
    check_complete,
    coded_bits,
    flat_lengths,
    optimal_lengths,
)
from compressor.errors import ArtifactError

_FLAT, _LENGTHS, _SINGLE = range(3)
_MAX_BYTES_PER_SYMBOL = 2  # a length takes 11 bits at most, an absent symbol 6


def choose_code(counts: Counts, *, huffman: bool) -> tuple[Lengths, bytes]:
    """Return the cheaper of the Huffman and the flat code for ``counts``, and its table.

    ``counts`` (n,) must have at least one non-zero entry. Without ``huffman`` the code is flat,
    or has a single symbol.
    """
    used = np.flatnonzero(counts)
    top = int(used[-1]) + 1
    if len(used) == 1:
        return _single_lengths(top - 1), varint(4 * (top - 1) + _SINGLE)
    flat, flat_table = flat_lengths(top), varint(4 * top + _FLAT)
    if not huffman:
        return flat, flat_table
    best = optimal_lengths(counts[:top])
    table = varint(4 * top + _LENGTHS) + _pack_lengths(best)
    if _size(best, table, counts) < _size(flat, flat_table, counts):
        return best, table
    return flat, flat_table


def _size(lengths: Lengths, table: bytes, counts: Counts) -> int:
    return len(table) + (coded_bits(lengths, counts) + 7) // 8


def read_table(reader: ByteReader, alphabet: int) -> Lengths:
    """Read one table for symbols 0 to ``alphabet`` - 1; the code it returns is complete."""
    head = reader.varint()
    size, kind = head >> 2, head & 3
    if kind > _SINGLE:
        raise ArtifactError(f"a code table has kind {kind}; kinds 0 to 2 are defined")
    if kind == _SINGLE:
        size += 1
    if not (1 if kind == _SINGLE else 2) <= size <= alphabet:
        raise ArtifactError(f"a code table is for {size} symbols; the alphabet has {alphabet}")
    if kind == _FLAT:
        return flat_lengths(size)
    if kind == _SINGLE:
        return _single_lengths(size - 1)
    lengths = _unpack_lengths(reader, size)
    check_complete(lengths)
    return lengths


def _single_lengths(symbol: int) -> Lengths:
    lengths = np.full(symbol + 1, ABSENT, dtype=np.int8)
    lengths[-1] = 0
    return lengths


def _pack_lengths(lengths: Lengths) -> bytes:
    """Write lengths (n,), of which the last is used and at least two are."""
    return pack_bits(steps(lengths.tolist(), ABSENT, _first_guess(len(lengths))))


def _unpack_lengths(reader: ByteReader, size: int) -> Lengths:
    bits = unpack_bits(reader.peek(_MAX_BYTES_PER_SYMBOL * size + 8))
    lengths: list[int] = []
    position, previous = 0, _first_guess(size)
    while len(lengths) < size:
        symbol, position = read_gamma(bits, position)
        if symbol == SKIP:
            absent, position = read_gamma(bits, position)
            lengths += [ABSENT] * min(absent + 1, size - len(lengths))
            continue
        previous += unfold(symbol)
        if not 1 <= previous <= LONGEST:
            raise ArtifactError(f"a code table has a codeword of {previous} bits, not 1 to 17")
        lengths.append(previous)
    if lengths[-1] == ABSENT:
        raise ArtifactError("a code table ends in absent symbols; it must end at its last used one")
    reader.take(padded_bytes(bits, position))
    return np.array(lengths, dtype=np.int8)


def _first_guess(size: int) -> int:
    return (size - 1).bit_length()
