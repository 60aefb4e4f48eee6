"""Tables that are over- or under-full are refused before anything is written, by each backend.

libwebp's CVE-2023-4863 was a Huffman code that was over-full, and a table that it was written past.
The core is called past the package's own checks here, with memory around and in its target that
must stay as it was.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.artifact import read
from compressor.coding import native
from compressor.coding.buffer import ByteReader
from compressor.coding.frequencies import TOTAL, check_frequencies, read_frequencies
from compressor.coding.huffman import ABSENT, LONGEST, Lengths, check_complete, flat_lengths
from compressor.coding.streams_core import Target, decode_dense, decode_gaps, decode_rans_gaps
from compressor.coding.tables import read_table
from compressor.errors import ArtifactError
from tests.test_artifact_golden import GOLDEN

built = pytest.mark.skipif(native.built() is None, reason="the C core was not built")
CANARY, GUARD = 0xA5, 64
SINGLE: Lengths = np.zeros(1, dtype=np.int8)  # symbol 0 alone


@pytest.fixture(autouse=True)
def in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "" if native.built() is None else "c")


class Guarded:
    """A target of ``n`` weights with canaries in it and around it."""

    def __init__(self, n: int, entries: int) -> None:
        self.bytes = [np.full(2 * GUARD + n * width, CANARY, dtype=np.uint8) for width in (1, 4)]
        indices, floats = (area[GUARD : len(area) - GUARD] for area in self.bytes)
        table = np.arange(entries, dtype=np.float32)
        self.target = Target(n, table, indices=indices, floats=floats.view(np.float32))

    def untouched(self) -> bool:
        """Whether nothing was written, inside or outside."""
        return all(bool((area == CANARY).all()) for area in self.bytes)

    def kept_within(self) -> bool:
        """Whether nothing was written outside."""
        ends = [end for area in self.bytes for end in (area[:GUARD], area[-GUARD:])]
        return all(bool((end == CANARY).all()) for end in ends)


def kraft(lengths: Sequence[int]) -> Fraction:
    return sum((Fraction(1, 1 << length) for length in lengths if length != ABSENT), Fraction(0))


def codes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-1, LONGEST), min_size=1, max_size=40)


def damaged() -> Iterator[list[int]]:
    """Complete codes with a codeword more, one less, one shorter, one longer."""
    for size in (2, 3, 5, 64, 300, 4096):
        whole = flat_lengths(size).tolist()
        for place in (0, size // 2, size - 1):
            yield [*whole, whole[place]]
            yield [ABSENT if i == place else length for i, length in enumerate(whole)]
            for step in (-1, 1):
                yield [length + step * (i == place) for i, length in enumerate(whole)]


def decode_with(gaps: Lengths, values: Lengths) -> Guarded:
    guarded = Guarded(500, 2 + len(values))
    streams = memoryview(bytes(range(200))), memoryview(bytes(range(200)))
    assert not decode_gaps((gaps, values), streams, (40, 2, 12), guarded.target)
    return guarded


def assert_refused(lengths: list[int]) -> None:
    array = np.array(lengths, dtype=np.int8)
    with pytest.raises(ArtifactError, match=r"over-full|incomplete|at most 17"):
        check_complete(array)
    if native.built() is not None:
        assert decode_with(array, SINGLE).untouched()
        assert decode_with(SINGLE, array).untouched()


def test_codes_with_a_codeword_too_many_or_too_few_are_refused() -> None:
    cases = list(damaged())
    assert len(cases) == 72
    for lengths in cases:
        assert kraft(lengths) != 1
        assert_refused(lengths)


@settings(deadline=None, max_examples=200)
@given(codes())
def test_any_code_that_is_not_complete_is_refused(lengths: list[int]) -> None:
    if kraft(lengths) != 1:
        assert_refused(lengths)


@pytest.mark.parametrize("length", [-2, LONGEST + 1, 64, 127, -128])
def test_codewords_of_impossible_lengths_are_refused(length: int) -> None:
    """Together with a complete code, so that the sum of the others is what it must be."""
    lengths = np.array([1, 1, length], dtype=np.int8)
    if native.built() is not None:
        assert decode_with(lengths, SINGLE).untouched()
        assert decode_with(SINGLE, lengths).untouched()
    if length > 0:
        with pytest.raises(ArtifactError, match="at most 17"):
            check_complete(lengths)


@built
@pytest.mark.parametrize("counts", [(501, 0, 3), (0, 501, 3), (1 << 63, 1 << 63, 3), (1, 1, 13)])
def test_counts_that_no_tensor_has_are_refused(counts: tuple[int, int, int]) -> None:
    for width in (counts[2], 32, 40, (1 << 32) - 1) if counts[2] > 12 else (counts[2],):
        guarded, streams = Guarded(500, 2), (memoryview(b"\0"), memoryview(b"\0"))
        given = (counts[0], counts[1], width)
        assert not decode_gaps((SINGLE, SINGLE), streams, given, guarded.target)
        tables = [np.array([TOTAL])] * 2
        assert not decode_rans_gaps(tables, streams[0], given, guarded.target)
        assert guarded.untouched()


@built
@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, TOTAL + 1), min_size=1, max_size=6), st.integers(0, 1), st.booleans()
)
def test_frequencies_that_do_not_sum_to_the_total_are_refused(
    frequencies: list[int], place: int, off: bool
) -> None:
    table = np.array(frequencies)
    if not off:  # as large a sum as there may be, less or more by one
        table[-1] = max(0, TOTAL - int(table[:-1].sum())) + 1
    if table.sum() == TOTAL:
        return
    with pytest.raises(ArtifactError, match="do not sum"):
        check_frequencies(table)
    tables = [np.array([TOTAL]), table] if place else [table, np.array([TOTAL])]
    stream = memoryview(bytes([0, 0, 0, 1, 0]) + bytes(range(200)))
    guarded = Guarded(400, len(table) + 1)
    assert not decode_rans_gaps(tables, stream, (40, 2, 12), guarded.target)
    assert guarded.untouched()
    classes = np.array([0, place], dtype=np.uint8), np.zeros(200, dtype=np.uint8)
    assert not decode_dense(tables, stream, classes, 0, guarded.target)
    assert guarded.untouched()


@built
@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 12),
    st.sampled_from([1, 2, 3, 17, 256]),
    st.sampled_from([1, 2, 5, 255]),
    st.integers(1, 400),
    st.binary(max_size=300),
    st.binary(max_size=300),
)
def test_whatever_streams_hold_nothing_is_written_outside(
    width: int, gap_symbols: int, value_symbols: int, kept: int, first: bytes, second: bytes
) -> None:
    one, two = (SINGLE if n == 1 else flat_lengths(n) for n in (gap_symbols, value_symbols))
    guarded = Guarded(400, value_symbols)
    streams = memoryview(first), memoryview(second)
    decode_gaps((one, two), streams, (kept, 0, width), guarded.target)
    assert guarded.kept_within()


@pytest.mark.parametrize("backend", native.BACKENDS)
@pytest.mark.parametrize("name", ["table-over-full", "table-incomplete"])
def test_files_with_such_tables_are_refused_before_there_is_a_target(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "c" and native.built() is None:
        pytest.skip("the C core was not built")

    def too_late(*_: Any, **__: Any) -> None:
        raise RuntimeError("memory for weights was taken")

    monkeypatch.setenv(native.VARIABLE, backend)
    for place in ("unpacking.Target", "unpacking._floats", "gaps_unpacking.GapPayload.symbols"):
        monkeypatch.setattr(f"compressor.artifact.{place}", too_late)
    artifact = read(GOLDEN / "bad" / f"{name}.dcz")
    for work in (artifact.tensor, artifact.shared):
        with pytest.raises(ArtifactError, match=name.removeprefix("table-")):
            work("w")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=12), st.integers(1, 9))
def test_tables_that_are_read_are_complete(data: bytes, alphabet: int) -> None:
    for read_one, complete in (
        (read_table, lambda found: kraft(found.tolist()) == 1),
        (read_frequencies, lambda found: found.sum() == TOTAL and found.min() >= 0),
    ):
        try:
            found = read_one(ByteReader(data, "the table"), alphabet)
        except ArtifactError:
            continue
        assert complete(found)
        assert 1 <= len(found) <= alphabet
