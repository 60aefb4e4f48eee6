"""Context mixing: what went in comes back, below the entropy where neighbours tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from compressor.coding import context, native
from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.context import Grid
from compressor.coding.mixing import chance_table, log_table
from compressor.errors import ArtifactError, UsageError


def grid_of(levels: np.ndarray, height: int = 1, width: int = 1, rate: int = 8) -> Grid:
    positive, negative = max(0, int(levels.max())), max(0, -int(levels.min()))
    return Grid(*levels.shape, height, width, positive or 1, negative, rate)


def laplacian(shape: tuple[int, int], scale: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).laplace(scale=scale, size=shape)
    return np.rint(values).astype(np.int32)


def entropy_bytes(levels: np.ndarray) -> float:
    counts = np.unique(levels, return_counts=True)[1]
    return float(entropy(counts, base=2) * levels.size / 8)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 20),
    planes=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)),
    scale=st.sampled_from([0, 0.2, 1, 8, 300, 65536]),
    sign=st.sampled_from(["both", "positive", "negative"]),
    rate=st.integers(1, 64),
    seed=st.integers(0, 1 << 30),
)
def test_levels_come_back(
    rows: int, planes: tuple[int, int, int], scale: float, sign: str, rate: int, seed: int
) -> None:
    channels, height, width = planes
    levels = laplacian((rows, channels * height * width), scale, seed).clip(-65536, 65536)
    if sign != "both":
        levels = np.abs(levels) * (1 if sign == "positive" else -1)
    grid = grid_of(levels, height, width, rate)
    stream = context.encode(levels, grid)
    found = context.decode(memoryview(stream), grid)
    assert found.dtype == np.int32
    assert np.array_equal(found, levels)


@pytest.mark.skipif(native.built() is None, reason="the C core was not built")
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 20),
    planes=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)),
    scale=st.sampled_from([0, 0.2, 1, 8, 300, 65536]),
    rate=st.integers(1, 64),
    seed=st.integers(0, 1 << 30),
    cut=st.integers(0, 12),
)
def test_both_backends_write_the_same_bytes_and_refuse_the_same(
    rows: int, planes: tuple[int, int, int], scale: float, rate: int, seed: int, cut: int
) -> None:
    channels, height, width = planes
    levels = laplacian((rows, channels * height * width), scale, seed).clip(-65536, 65536)
    grid = grid_of(levels, height, width, rate)
    streams, found = [], []
    for backend in native.BACKENDS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(native.VARIABLE, backend)
            streams.append(context.encode(levels, grid))
            mutant = bytearray(streams[0])
            if mutant and cut:
                mutant[seed % len(mutant)] ^= cut
            try:
                found.append(context.decode(memoryview(mutant), grid).tolist())
            except ArtifactError as error:
                found.append(str(error))
    assert streams[0] == streams[1]
    assert found[0] == found[1]


def test_a_backend_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "fortran")
    with pytest.raises(UsageError, match="COMPRESS_BACKEND is 'fortran'; there are c and numpy"):
        native.library()


def test_more_rows_than_a_band_has() -> None:
    levels = laplacian((600, 3), 1)
    grid = grid_of(levels)
    assert np.array_equal(context.decode(memoryview(context.encode(levels, grid)), grid), levels)


def test_levels_without_structure_cost_no_more_than_their_entropy_and_learning() -> None:
    levels = laplacian((64, 300), 2)
    assert len(context.encode(levels, grid_of(levels))) < 1.03 * entropy_bytes(levels)


def test_scales_of_rows_and_channels_are_learnt() -> None:
    """Scales that vary by channel: the cost comes close to the entropy given the scale."""
    rng = np.random.default_rng(1)
    scales = 2.0 ** (rng.integers(0, 4, 64)[:, None] + rng.integers(0, 3, 30)[None, :])
    scales = np.repeat(scales, 9, axis=1)
    levels = np.rint(rng.laplace(scale=scales / 4)).astype(np.int32)
    bound = sum(entropy_bytes(levels[scales == scale]) for scale in np.unique(scales))
    coded = len(context.encode(levels, grid_of(levels, 3, 3)))
    assert bound < 0.9 * entropy_bytes(levels)
    assert coded < 1.05 * bound


def test_blobs_in_a_plane_are_seen_through_the_right_plane() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:16, :16]
    rows = [
        (np.hypot(y - a, x - b) < 4).ravel() * rng.choice([-1, 1])
        for a, b in rng.integers(0, 16, (60, 2))
    ]
    levels = np.array(rows, dtype=np.int32)
    with_plane = len(context.encode(levels, grid_of(levels, 16, 16)))
    assert with_plane < 0.7 * len(context.encode(levels, grid_of(levels)))
    assert with_plane < 0.35 * entropy_bytes(levels)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_stream_that_is_too_short_or_long_is_refused_or_differs(change: int) -> None:
    levels = laplacian((20, 30), 2)
    grid = grid_of(levels)
    stream = context.encode(levels, grid)
    mutant = stream[:change] if change < 0 else stream + b"\0"
    try:
        found = context.decode(memoryview(mutant), grid)
    except ArtifactError:
        return
    assert change < 0
    assert not np.array_equal(found, levels)


def test_zeros_that_a_stream_could_do_without_are_missed() -> None:
    """A stream goes on in zeros, so one with zeros at its end would decode without them."""
    levels = laplacian((6, 12), 0.2, 0)
    grid = grid_of(levels, 3, 4, 1)
    mutant = bytearray(context.encode(levels, grid))
    mutant[0] ^= 1
    with pytest.raises(ArtifactError, match="does not end where it must"):
        context.decode(memoryview(mutant), grid)


def test_any_bytes_decode_to_levels_in_range_or_are_refused() -> None:
    rng = np.random.default_rng(3)
    grid = Grid(6, 7, 1, 1, 5, 3, 64)
    refused = 0
    for size in range(200):
        try:
            found = context.decode(memoryview(rng.bytes(size % 40)), grid)
        except ArtifactError:
            refused += 1
        else:
            assert -3 <= found.min() <= found.max() <= 5
    assert refused > 150


def test_the_arithmetic_code_costs_what_the_chances_say() -> None:
    rng = np.random.default_rng(4)
    chances = rng.integers(1, 65536, 20_000)
    bits = (rng.integers(0, 65536, 20_000) < chances).astype(np.int64)
    coder = BitEncoder()
    coder.code(chances, bits)
    stream = coder.finish()
    used = np.where(bits == 1, chances, 65536 - chances) / 65536
    assert len(stream) == pytest.approx(-np.log2(used).sum() / 8, rel=2e-3)
    reader = BitDecoder(memoryview(stream))
    assert np.array_equal(reader.code(chances, bits * 0), bits)
    reader.finish()


def test_tables_are_the_functions_they_stand_for() -> None:
    x = np.arange(1, 65536)
    assert np.abs(log_table()[1:] - 256 * np.log2(x)).max() < 2
    odds = np.arange(3584) / 256
    assert np.abs(chance_table() - 65536 / (1 + 2.0**odds)).max() < 1.1
