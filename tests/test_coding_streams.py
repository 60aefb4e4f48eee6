"""Bit streams, varints and relative indices against naive implementations, and hostile streams."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressor.coding import gaps, symbols
from compressor.coding.buffer import ByteReader, varint
from compressor.coding.huffman import (
    ABSENT,
    Lengths,
    canonical_codes,
    flat_lengths,
    optimal_lengths,
)
from compressor.coding.symbols import SymbolReader, SymbolWriter
from compressor.errors import ArtifactError


def naive_pack(lengths: Lengths, values: list[int]) -> bytes:
    codes = canonical_codes(lengths)
    bits = "".join(f"{codes[v]:0{lengths[v]}b}" if lengths[v] else "" for v in values)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def naive_entries(sequence: list[int], width: int) -> list[tuple[int, int]]:
    """The paper's loop: count zeros, give up at the longest gap, drop what only trails."""
    longest, run = (1 << width) - 1, 0
    out: list[tuple[int, int]] = []
    for value in sequence:
        if value:
            out.append((run, value))
            run = 0
        elif run == longest:
            out.append((run, 0))
            run = 0
        else:
            run += 1
    while out and out[-1][1] == 0:
        out.pop()
    return out


def pack(lengths: Lengths, values: npt.ArrayLike, pieces: int = 1) -> bytes:
    writer = SymbolWriter(lengths)
    for piece in np.array_split(np.array(values, dtype=np.uint32), pieces):
        writer.write(piece)
    return writer.finish()


def unpack(lengths: Lengths, stream: bytes, count: int, step: int) -> npt.NDArray[np.uint32]:
    reader = SymbolReader(lengths, memoryview(stream))
    out = [reader.read(min(step, count - start)) for start in range(0, count, step)]
    reader.finish()
    return np.concatenate([np.empty(0, dtype=np.uint32), *out])


@given(
    st.lists(st.integers(0, 40), max_size=400),
    st.integers(1, 5),
    st.integers(1, 100),
    st.booleans(),
)
def test_streams_round_trip_and_equal_the_naive_packing(
    values: list[int], pieces: int, step: int, huffman: bool
) -> None:
    counts = np.bincount(values, minlength=41) if values else np.ones(41, dtype=np.int64)
    lengths = optimal_lengths(counts) if huffman else flat_lengths(41)
    stream = pack(lengths, values, pieces)
    assert stream == naive_pack(lengths, values)
    assert unpack(lengths, stream, len(values), step).tolist() == values


@pytest.mark.parametrize("alphabet", [2, 3, 300, 65537])
def test_streams_longer_than_a_chunk(alphabet: int) -> None:
    count = 8 * symbols._CHUNK * 3 // (alphabet - 1).bit_length()
    values = np.random.default_rng(0).integers(0, alphabet, count).astype(np.uint32)
    lengths = flat_lengths(alphabet)
    stream = pack(lengths, values, pieces=7)
    assert len(stream) > 2 * symbols._CHUNK
    assert np.array_equal(unpack(lengths, stream, count, step=1000), values)
    assert np.array_equal(unpack(lengths, stream, count, step=count), values)


def test_powers_of_two_are_plain_binary() -> None:
    values = list(range(256))
    assert pack(flat_lengths(256), values) == bytes(values)


def test_a_single_symbol_takes_no_bytes() -> None:
    lengths = np.array([ABSENT, ABSENT, 0], dtype=np.int8)
    assert pack(lengths, [2] * 1000) == b""
    assert unpack(lengths, b"", 1000, 300).tolist() == [2] * 1000


@pytest.mark.parametrize(
    ("stream", "count", "message"),
    [
        (b"", 1, "ends before"),
        (b"\x12", 3, "ends before"),
        (b"\x12\x34", 2, "2 bytes holds 8 bits"),
        (b"\x12\x31", 3, "padding"),
    ],
)
def test_streams_of_another_length_are_refused(stream: bytes, count: int, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        unpack(flat_lengths(16), stream, count, 10)


def test_a_codeword_cut_off_by_the_end_is_refused() -> None:
    lengths = flat_lengths(1 << 12)
    with pytest.raises(ArtifactError, match="holds 24 bits"):
        unpack(lengths, b"\xff\xff", 2, 10)
    with pytest.raises(ArtifactError, match="ends before"):
        unpack(lengths, b"\xff\xff", 3, 10)


def test_bits_for_a_symbol_that_takes_none_are_refused() -> None:
    with pytest.raises(ArtifactError, match="holds 0 bits"):
        unpack(np.zeros(1, dtype=np.int8), b"\x00", 5, 10)


@given(st.integers(0, 2**64 - 1))
def test_varints_round_trip_in_one_form(value: int) -> None:
    data = varint(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    reader = ByteReader(data, "x")
    assert reader.varint() == value
    reader.finish()


def test_the_specifications_varint() -> None:
    assert varint(300) == b"\xac\x02"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"\x80", "truncated"),
        (b"\x80\x00", "superfluous"),
        (b"\xff" * 9 + b"\x02", "2\\^64"),
        (b"\xff" * 10 + b"\x01", "2\\^64"),
    ],
)
def test_damaged_varints_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        ByteReader(data, "x").varint()


@pytest.mark.parametrize("value", [-1, 2**64])
def test_varints_are_not_written_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match="a varint holds"):
        varint(value)


sequences = hnp.arrays(
    np.uint8, st.integers(0, 300), elements=st.sampled_from([0] * 9 + [1, 2, 255]), fill=st.just(0)
)


@given(sequences, st.integers(0, 5), st.integers(1, 64))
def test_gaps_equal_the_papers_loop_and_come_back(
    sequence: npt.NDArray[np.uint8], width: int, block: int
) -> None:
    old, gaps._BLOCK = gaps._BLOCK, block
    try:
        parts = [
            gaps.entries(sequence, positions, previous, width)
            for positions, previous in gaps.nonzero_blocks(sequence)
        ]
        runs = gaps.count_runs(sequence)
    finally:
        gaps._BLOCK = old
    found = [entry for g, v in parts for entry in zip(g.tolist(), v.tolist(), strict=True)]
    expected = naive_entries(sequence.tolist(), width)
    assert found == expected
    assert runs.fillers(width) == sum(value == 0 for _, value in expected)
    counts = np.bincount([gap for gap, _ in expected], minlength=1 << width)
    assert runs.gap_counts(width).tolist() == counts.tolist()

    back, position = np.zeros_like(sequence), -1
    for gap_symbols, values in parts:
        position = gaps.place(back, position, gap_symbols.astype(np.uint32), values, width)
    assert np.array_equal(back, sequence)


@pytest.mark.parametrize("width", [0, 3, 12])
def test_runs_longer_than_are_counted_in_an_array(width: int) -> None:
    sequence = np.zeros(1 << 18, dtype=np.uint8)
    sequence[[5, 70_000, 70_001, 262_143]] = 1
    runs = gaps.count_runs(sequence)
    expected = [5, 69_994, 0, 192_141]
    assert sorted(np.repeat(runs.lengths, runs.counts).tolist()) == sorted(expected)
    assert runs.longest == 192_141
    assert runs.fillers(width) == sum(run // 2**width for run in expected)


def test_entries_past_the_end_and_needless_fillers_are_refused() -> None:
    def place(*entries: tuple[int, int]) -> int:
        gap_symbols, values = np.array(entries, dtype=np.uint32).T
        return gaps.place(np.zeros(10, dtype=np.uint32), -1, gap_symbols, values, width=2)

    assert place((3, 0), (3, 7), (1, 7)) == 9
    with pytest.raises(ArtifactError, match="past the end of its 10 weights"):
        place((3, 0), (3, 7), (2, 7))
    with pytest.raises(ArtifactError, match="filler's gap"):
        place((2, 0), (3, 7))
