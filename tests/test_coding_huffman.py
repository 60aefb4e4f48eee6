"""Huffman codes: optimal against independent optima, complete, canonical, and compact as tables."""

import heapq
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import constriction  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.coding.buffer import ByteReader, varint
from compressor.coding.huffman import (
    ABSENT,
    LONGEST,
    Counts,
    Lengths,
    canonical_codes,
    check_complete,
    coded_bits,
    flat_lengths,
    optimal_lengths,
)
from compressor.coding.tables import choose_code, read_table
from compressor.errors import ArtifactError

counts_of_two_or_more = st.lists(st.integers(0, 10**6), min_size=2, max_size=80).filter(
    lambda counts: sum(count > 0 for count in counts) >= 2
)


def array(values: Sequence[int]) -> Counts:
    return np.array(values, dtype=np.int64)


def lengths_of(*values: int | None) -> Lengths:
    return np.array([ABSENT if value is None else value for value in values], dtype=np.int8)


def kraft(lengths: Lengths | Sequence[int]) -> Fraction:
    return sum((Fraction(1, 1 << int(n)) for n in lengths if n != ABSENT), Fraction(0))


def huffman_cost(counts: list[int]) -> int:
    """Bits of Huffman's own algorithm: the sum of all merged weights."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


def constriction_cost(counts: list[int]) -> int:
    """Bits of constriction's Huffman code for the same counts."""
    used = [count for count in counts if count]
    probabilities = np.array(used, dtype=np.float64) / sum(used)
    codebook = constriction.symbol.huffman.EncoderHuffmanTree(probabilities)
    cost = 0
    for symbol, count in enumerate(used):
        encoder = constriction.symbol.StackCoder()
        encoder.encode_symbol(symbol, codebook)
        cost += count * encoder.get_compressed()[1]
    return cost


@given(counts_of_two_or_more)
def test_unlimited_codes_cost_what_huffmans_algorithm_does(counts: list[int]) -> None:
    lengths = optimal_lengths(array(counts), limit=64)
    assert coded_bits(lengths, array(counts)) == huffman_cost(counts)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_codes_cost_what_constrictions_do(counts: list[int]) -> None:
    lengths = optimal_lengths(array(counts), limit=64)
    assert coded_bits(lengths, array(counts)) == constriction_cost(counts)


@given(st.lists(st.integers(1, 10**4), min_size=2, max_size=7), st.integers(1, 5))
def test_limited_codes_are_the_best_of_all_limited_codes(counts: list[int], limit: int) -> None:
    limit = max(limit, (len(counts) - 1).bit_length())
    heaviest_first = sorted(counts, reverse=True)
    best = min(
        sum(map(math.prod, zip(heaviest_first, lengths, strict=True)))
        for lengths in itertools.combinations_with_replacement(range(1, limit + 1), len(counts))
        if kraft(lengths) <= 1
    )
    lengths = optimal_lengths(array(counts), limit=limit)
    assert lengths.max() <= limit
    assert coded_bits(lengths, array(counts)) == best


@given(counts_of_two_or_more)
def test_codes_are_complete_and_within_a_bit_of_the_entropy(counts: list[int]) -> None:
    lengths = optimal_lengths(array(counts))
    assert kraft(lengths) == 1
    assert [length == ABSENT for length in lengths] == [count == 0 for count in counts]
    total = sum(counts)
    entropy = -sum(count * math.log2(count / total) for count in counts if count)
    assert entropy - 1e-6 * total <= coded_bits(lengths, array(counts))
    if huffman_cost(counts) == coded_bits(lengths, array(counts)):  # the limit did not bind
        assert coded_bits(lengths, array(counts)) < entropy + total


def test_fibonacci_counts_are_held_to_fifteen_bits() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = optimal_lengths(array(counts))
    assert optimal_lengths(array(counts), limit=64).max() == 39
    assert lengths.max() == 15
    assert kraft(lengths) == 1
    assert all(a >= b for a, b in itertools.pairwise(lengths))  # heavier is never longer


@pytest.mark.parametrize("used", [(1 << 15) + 1, (1 << 16) + 1])
def test_alphabets_that_do_not_fit_fifteen_bits_take_more(used: int) -> None:
    lengths = optimal_lengths(np.ones(used, dtype=np.int64))
    assert lengths.max() == (used - 1).bit_length() <= LONGEST
    check_complete(lengths)


def test_one_symbol_takes_no_bits_and_none_takes_no_code() -> None:
    assert optimal_lengths(array([0, 7, 0])).tolist() == [ABSENT, 0, ABSENT]
    assert optimal_lengths(array([0, 0])).tolist() == [ABSENT, ABSENT]
    check_complete(lengths_of(None, 0, None))


@given(st.integers(2, 3000))
def test_flat_codes_are_truncated_binary(symbols: int) -> None:
    lengths = flat_lengths(symbols)
    width = math.ceil(math.log2(symbols))
    assert kraft(lengths) == 1
    assert set(lengths.tolist()) <= {width - 1, width}
    assert np.all(np.diff(lengths) >= 0)
    if symbols == 1 << width:
        assert canonical_codes(lengths).tolist() == list(range(symbols))


@given(counts_of_two_or_more)
def test_canonical_codewords_count_upward(counts: list[int]) -> None:
    lengths = optimal_lengths(array(counts))
    codes = canonical_codes(lengths)
    used = sorted((int(length), s) for s, length in enumerate(lengths) if length != ABSENT)
    code, previous = 0, used[0][0]
    for length, symbol in used:
        code <<= length - previous
        assert codes[symbol] == code
        code, previous = code + 1, length
    assert code == 1 << previous  # complete: the next codeword would not fit


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (lengths_of(1, 1, 1), "over-full"),
        (lengths_of(0, 5), "over-full"),
        (lengths_of(1, 2), "incomplete"),
        (lengths_of(None, 1), "incomplete"),
        (lengths_of(), "incomplete"),
        (lengths_of(1, 18), "18 bits"),
        (lengths_of(*[1, 2, 3, 4, 4, 17]), "over-full"),
    ],
)
def test_codes_that_do_not_fill_the_code_space_are_refused(lengths: Lengths, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        check_complete(lengths)


@given(
    st.lists(st.integers(0, 10**5), min_size=1, max_size=300).filter(any),
    st.booleans(),
)
def test_tables_round_trip(counts: list[int], huffman: bool) -> None:
    lengths, table = choose_code(array(counts), huffman=huffman)
    reader = ByteReader(table + b"rest", "x")
    again = read_table(reader, len(counts))
    assert again.tolist() == lengths.tolist()
    assert bytes(reader.take(4)) == b"rest"
    assert all(lengths[s] != ABSENT for s, count in enumerate(counts) if count)


@given(st.lists(st.integers(0, 10**5), min_size=1, max_size=300).filter(any))
def test_the_code_chosen_with_its_table_is_the_smaller_one(counts: list[int]) -> None:
    def size(huffman: bool) -> int:
        lengths, table = choose_code(array(counts), huffman=huffman)
        return len(table) + math.ceil(coded_bits(lengths, array(counts[: len(lengths)])) / 8)

    assert size(True) <= size(False)


def test_the_specifications_example_table() -> None:
    table = bytes.fromhex("15 32 44 c0")
    lengths = read_table(ByteReader(table, "x"), 5)
    assert lengths.tolist() == [1, 2, 3, ABSENT, 3]
    assert [f"{c:b}" for c in canonical_codes(lengths)] == ["0", "10", "110", "0", "111"]
    counts = array([512, 256, 128, 0, 128])  # ... and it is what is written for such counts
    assert choose_code(counts, huffman=True)[1] == table


def test_a_table_of_a_smooth_code_takes_two_bits_a_symbol_or_less() -> None:
    counts = array([round(10**6 * 0.9**gap) for gap in range(64)])
    lengths, table = choose_code(counts, huffman=True)
    assert lengths.max() > lengths.min()
    assert len(table) <= 2 + 64 * 2 // 8


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (varint(4 * 3 + 3), "kind 3"),
        (varint(4 * 1 + 0), "for 1 symbols"),
        (varint(4 * 1 + 1), "for 1 symbols"),
        (varint(4 * 9 + 0), "for 9 symbols; the alphabet has 8"),
        (varint(4 * 9 + 1) + b"\xff\xff", "for 9 symbols; the alphabet has 8"),
        (varint(4 * 8 + 2), "for 9 symbols; the alphabet has 8"),
        (varint(4 * 2 + 1) + b"", "truncated"),
        (varint(4 * 2 + 1) + b"\x00\x00\x00\x00", "out of range"),
        (varint(4 * 3 + 1) + bytes([0b11100000]), "incomplete"),  # three of length 2
        (varint(4 * 4 + 1) + bytes([0b10111100]), "over-full"),  # 2, 1, 1, 1
        (varint(4 * 2 + 1) + bytes([0b01111000]), "0 bits"),  # 1 - 1
        (varint(4 * 2 + 1) + bytes([0b11100000]), "padding"),
        (varint(4 * 3 + 1) + bytes([0b11001001]), "absent"),  # 2, 2, one absent
    ],
)
def test_damaged_tables_are_refused(table: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_table(ByteReader(table, "x"), 8)
