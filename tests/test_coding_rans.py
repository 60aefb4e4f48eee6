"""rANS: round trips, code lengths against SciPy and constriction, and streams that are refused."""

import math
from typing import Any

import constriction  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from compressor.coding import rans
from compressor.coding.buffer import ByteReader, varint
from compressor.coding.frequencies import (
    ABSENT,
    BUCKETS,
    FLAT,
    LEVELS,
    MANTISSAS,
    SINGLE,
    TOTAL,
    Frequencies,
    bucket_starts,
    check_frequencies,
    frequencies_of,
    pack_levels,
    read_frequencies,
    single_frequencies,
)
from compressor.coding.modelling import ONE_BIT, Model, choose_model, coded_bits, log2
from compressor.coding.modelling import entropy as fixed_entropy
from compressor.errors import ArtifactError

Array = npt.NDArray[Any]


def read(table: bytes, alphabet: int) -> Frequencies:
    reader = ByteReader(table, "the table")
    found = read_frequencies(reader, alphabet)
    reader.finish()
    return found


def decoded(stream: bytes, tables: list[Frequencies], count: int, contexts: Any = None) -> Array:
    decoder = rans.Decoder(memoryview(stream), tables, count)
    out = decoder.read(count, contexts)
    decoder.finish()
    return out


def geometric(size: int, p: float, seed: int = 0) -> Array:
    return np.minimum(np.random.default_rng(seed).geometric(p, size) - 1, 4095).astype(np.uint16)


counts_lists = st.lists(
    st.sampled_from([0, 0, 0, 1, 2, 3, 10, 100, 10**4, 10**6, 2**30]), min_size=1, max_size=300
).filter(any)


@settings(max_examples=150, deadline=None)
@given(counts_lists)
def test_tables_come_back_and_give_every_used_symbol_a_frequency(values: list[int]) -> None:
    counts = np.array(values, dtype=np.int64)
    model = choose_model(counts)
    found = read(model.table, len(counts))
    assert np.array_equal(found, model.frequencies)
    assert found.sum() == TOTAL
    assert (found[counts[: len(found)] > 0] > 0).all()
    assert not counts[len(found) :].any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3000),
    st.integers(1, 5),
    st.sampled_from([1, 2, 3, 40, 4095]),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_symbols_come_back(size: int, tables: int, top: int, lanes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    contexts = rng.integers(0, tables, size).astype(np.uint8)
    skew = rng.random(size) ** rng.integers(1, 20)
    symbols = (skew * top).astype(np.uint16)
    models = [
        choose_model(np.bincount(symbols[contexts == context], minlength=top + 1))
        for context in range(tables)
    ]
    frequencies = [model.frequencies for model in models]
    stream = rans.encode(symbols, contexts, frequencies, lanes)
    assert np.array_equal(decoded(stream, frequencies, size, contexts), symbols)
    for wrong in (stream + b"\0\0", stream[:-2] if size else stream[:-1]):
        with pytest.raises(ArtifactError):
            decoded(wrong, frequencies, size, contexts)


def test_several_blocks_with_a_short_last_step() -> None:
    symbols = geometric((1 << 18) + 4097, 0.3)
    model = choose_model(np.bincount(symbols))
    stream = rans.encode(symbols, None, [model.frequencies], 12)
    assert np.array_equal(decoded(stream, [model.frequencies], len(symbols)), symbols)


def test_one_symbol_takes_no_words() -> None:
    table = single_frequencies(3)
    stream = rans.encode(np.full(1000, 3, dtype=np.uint8), None, [table], 0)
    assert stream == b"\x00\x00\x00\x01\x00"
    assert (decoded(stream, [table], 1000) == 3).all()


@pytest.mark.parametrize(("size", "p"), [(100_000, 0.02), (300_000, 0.5), (300_000, 0.97)])
def test_streams_are_close_to_the_entropy(size: int, p: float) -> None:
    symbols = geometric(size, p)
    counts = np.bincount(symbols)
    bound = entropy(counts, base=2) * size / 8
    model = choose_model(counts)
    lanes = rans.choose_lanes(size, model.bits)
    stream = rans.encode(symbols, None, [model.frequencies], lanes)
    assert bound <= len(stream) + len(model.table) <= 1.01 * bound + (4 << lanes) + 16


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_code_lengths_are_constrictions(p: float) -> None:
    symbols = geometric(50_000, p)
    model = choose_model(np.bincount(symbols))
    probabilities = model.frequencies / TOTAL
    oracle = constriction.stream.model.Categorical(probabilities + 0.0, perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), oracle)
    stream = rans.encode(symbols, None, [model.frequencies], 0)
    assert len(stream) == pytest.approx(coder.num_bits() / 8, rel=1e-3, abs=8)
    assert model.bits / 8 == pytest.approx(coder.num_bits() / 8, rel=1e-3, abs=8)


@given(st.integers(1, 2**50))
def test_logarithms_in_integers(value: int) -> None:
    assert log2(np.array([value]))[0] / ONE_BIT == pytest.approx(math.log2(value), abs=2e-4)


def test_entropies_and_code_lengths_are_scipys() -> None:
    rows = np.array([[5, 0, 3, 8], [0, 0, 0, 0], [1, 1, 1, 1000]])
    expected = sum(row.sum() * entropy(row, base=2) for row in rows if row.any())
    assert fixed_entropy(rows) / ONE_BIT == pytest.approx(expected, rel=1e-3)
    table = read(varint(4 * 3 + FLAT), 3)
    counts = np.array([4, 5, 6])
    assert coded_bits(table, counts) == math.ceil(-np.sum(counts * np.log2(table / TOTAL)) - 1e-2)


def test_mantissas_are_powers_of_two() -> None:
    assert MANTISSAS.tolist() == [round(2 ** (31 - i / 8)) for i in range(8)]


def weight(level: int) -> int:
    return round(2 ** (31 - level % 8 / 8)) >> level // 8


@given(
    st.lists(st.integers(0, 247) | st.just(ABSENT), min_size=1, max_size=500).filter(
        lambda levels: any(level != ABSENT for level in levels)
    )
)
def test_frequencies_follow_the_levels(levels: list[int]) -> None:
    found = frequencies_of(np.array(levels, dtype=np.int64), 3)
    check_frequencies(found)
    present = [level for level in levels if level != ABSENT]
    total = sum(map(weight, present))
    for level, frequency in zip(levels, found.tolist(), strict=True):
        exact = 0.0 if level == ABSENT else 1 + (TOTAL - len(present)) * weight(level) / total
        assert abs(frequency - exact) < 1.01


def test_buckets_grow_with_the_symbol() -> None:
    assert bucket_starts(41).tolist() == [*range(8), 8, 10, 12, 14, 16, 20, 24, 28, 32, 40]
    assert len(bucket_starts(4096)) == 8 + 9 * 4


def test_long_tails_take_bucket_tables() -> None:
    model = choose_model(np.bincount(geometric(5000, 0.01)))
    assert model.table[0] & 3 == BUCKETS
    assert len(model.table) < 30


def test_tables_are_small_beside_what_they_save() -> None:
    """The search's table, of all steps and orders, is no larger than the entropy plus 3 %."""
    counts = np.array([3000, 900, 850, 300, 280, 90, 80, 30, 20, 6, 5, 1])
    model: Model = choose_model(counts)
    assert model.size < 1.01 * counts.sum() * entropy(counts, base=2) + 80


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (varint(4 * 6 + FLAT), "for 6 symbols, of 5"),
        (varint(4 * 5 + SINGLE), "for 6 symbols, of 5"),
        (varint(4 * 1 + LEVELS), "for 1 symbols"),
        (varint(4 * 4 + LEVELS), "is truncated"),
        (varint(4 * 4 + LEVELS) + b"\x00\x00\x00\x00", "truncated or holds a number"),
        (varint(4 * 2 + LEVELS) + bytes([0b00000101]), "start at the level it must"),
        (varint(4 * 2 + LEVELS) + bytes([0b00001001, 0b00100000]), "ends in absent symbols"),
        (varint(4 * 2 + LEVELS) + bytes([0b00001111]), "padding is not zero"),
        (varint(4 * 2 + LEVELS) + bytes([0b00001000, 0b00111111]), "level 47, not 0 to 30"),
        (varint(4 * 2 + BUCKETS) + bytes([0b00001000, 0b00100100]), "level -1, not 0 to 30"),
    ],
)
def test_hostile_tables_are_refused(table: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read(table, 5)


def test_more_symbols_than_the_precision_has_are_refused() -> None:
    assert read(varint(4 * TOTAL + FLAT), 1 << 16).tolist() == [1] * TOTAL
    with pytest.raises(ArtifactError, match="16385 symbols; 16384 are the most"):
        read(varint(4 * (TOTAL + 1) + FLAT), 1 << 16)
    long = pack_levels(LEVELS, TOTAL + 1, [16] * (TOTAL + 1), 0, 0)
    with pytest.raises(ArtifactError, match="16385 symbols"):
        read(long, 1 << 16)
    for wrong in ([TOTAL - 1], [TOTAL + 1, -1], []):
        with pytest.raises(ArtifactError, match="do not sum to 16384"):
            check_frequencies(np.array(wrong, dtype=np.int64))


def test_lanes_are_bounded_both_ways() -> None:
    """A small number of lanes means much work in Python, a large one much memory."""
    assert [rans.fewest_lanes(n << 15) for n in (0, 1, 2, 3, 4096, 1 << 20)] == [0, 0, 1, 2, 12, 12]
    table = single_frequencies(0)
    for lanes, count in ((13, 10), (0, 40_000), (255, 1)):
        stream = bytes([lanes]) + (4 << min(lanes, 13)) * b"\x01"
        with pytest.raises(ArtifactError, match="lanes"):
            rans.Decoder(memoryview(stream), [table], count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:4], "cannot be in 4 bytes"),
        (lambda s: b"", "cannot be in"),
        (lambda s: s + b"\0", "cannot be in"),
        (lambda s: s[:3] + b"\0\0" + s[5:], "below 2"),
        (lambda s: s[:-2], "ends before its last symbol"),
        (lambda s: s + b"\0\0", "1 words too many"),
    ],
)
def test_hostile_streams_are_refused(change: Any, message: str) -> None:
    table = read(varint(4 * 4 + FLAT), 4)
    symbols = np.tile(np.arange(4, dtype=np.uint8), 100)
    stream = change(rans.encode(symbols, None, [table], 0))
    with pytest.raises(ArtifactError, match=message):
        decoded(stream, [table], 400)


def test_symbols_left_over_are_found() -> None:
    """The encoder's first symbol fits in the state, so that no word is left over with it."""
    table = read(varint(4 * 4 + FLAT), 4)
    stream = rans.encode(np.tile(np.arange(4, dtype=np.uint8), 100), None, [table], 0)
    with pytest.raises(ArtifactError, match="does not end in the state it started from"):
        decoded(stream, [table], 399)
