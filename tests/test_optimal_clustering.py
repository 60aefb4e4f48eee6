"""The least inertia, against plain dynamic programming, formulas and kmeans1d."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from compressor.quantization import cells as cells_module
from compressor.quantization import optimal as optimal_module
from compressor.quantization.cells import CELLS, _histogram, _pieces, gather
from compressor.quantization.clustering import STARTS, Clustering, cluster
from compressor.quantization.optimal import MOST, Line, even_pieces
from compressor.quantization.runs import Floats, Runs

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
value_arrays = arrays(np.float32, st.integers(1, 40), elements=finite32)
small_grids = arrays(np.float32, st.integers(1, 60), elements=st.integers(-9, 9))


def optimal(values: Floats, k: int) -> Clustering:
    return cluster(values, k, init="optimal")


def normal(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def least_inertia(values: Floats, k: int) -> float:
    """Plain dynamic programming over the distinct values, every run from its own mean."""
    points, counts = np.unique(values.astype(np.float64), return_counts=True)
    m = len(points)
    run = np.zeros((m + 1, m + 1))  # [i, j]: inertia of points i to j - 1
    for i in range(m):
        # Welford's sums: no difference of large numbers.
        size = mean = inertia = 0.0
        for j in range(i, m):
            size += counts[j]
            step = points[j] - mean
            mean += step * counts[j] / size
            inertia += counts[j] * step * (points[j] - mean)
            run[i, j + 1] = inertia
    run[np.tril_indices(m + 1)] = np.inf
    least = run[0].copy()
    for _ in range(min(k, m) - 1):
        least = np.min(least[:, None] + run, axis=0)
    return float(least[m])


def roundings(values: Floats) -> float:
    """What the sums of squares may miss."""
    return 1e-14 * float(np.sum((values.astype(np.float64) - np.median(values)) ** 2))


@settings(deadline=None)
@given(st.one_of(value_arrays, small_grids), st.integers(1, 20))
@example(np.array([1.8e-44, 0.0], np.float32), 1)
def test_few_values_get_the_optimum(values: Floats, k: int) -> None:
    found, least = optimal(values, k), least_inertia(values, k)
    # The codebook is rounded to float32: by half a step of 2^-23, or of 2^-149 next to zero.
    half = np.maximum(np.abs(values.astype(np.float64)) * 2**-24, 2.0**-150)
    step = float(np.sum(half**2))
    assert found.inertia <= least * (1 + 1e-9) + step + roundings(values)
    assert found.inertia >= least * (1 - 1e-9) - roundings(values)


@pytest.mark.parametrize("k", [2, 3, 5, 8, 16, 33])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_hundred_values_get_the_optimum(seed: int, k: int) -> None:
    values = normal(300, seed) ** 3
    assert optimal(values, k).inertia == pytest.approx(least_inertia(values, k), rel=1e-6)


@pytest.mark.parametrize("k", [2, 3, 4, 7, 8, 32])
def test_many_values_on_a_coarse_grid_get_the_optimum(k: int) -> None:
    values = np.round(normal(CELLS + 5_000) * 30) / np.float32(30)  # about 250 distinct ones
    assert optimal(values, k).inertia == pytest.approx(least_inertia(values, k), rel=1e-6)


@pytest.mark.parametrize("k", [2, 5, 32, 128, 256])
def test_even_values_are_shared_out_evenly(k: int) -> None:
    m = 1_024 if k > 100 else 1 << 15
    values = (np.arange(m * k) / np.float32(4_096)).astype(np.float32)  # exact: below 2^24
    np.random.default_rng(0).shuffle(values)
    # m neighbours at distance h have an inertia of h^2 m (m^2 - 1) / 12, and convexity in m says
    # that equal runs are the best.
    least = k * m * (m**2 - 1) / 12 / 4_096**2
    assert least * (1 - 1e-9) <= optimal(values, k).inertia <= least * 1.002


@pytest.mark.parametrize("k", [2, 4, 9, 16])
def test_pieces_cost_less_than_a_percent(k: int) -> None:
    values = normal(1_200) ** 3
    least = least_inertia(values, k)
    with patch.object(optimal_module, "PARTS", 16 * k):
        assert least * (1 - 1e-6) <= optimal(values, k).inertia <= least * 1.01


def test_beyond_pieces_centroids_are_still_means_of_their_values() -> None:
    values = normal(50_000)
    found = optimal(values, 64)
    means = [values[found.labels == i].mean(dtype=np.float64) for i in range(64)]
    np.testing.assert_allclose(found.codebook, means, rtol=1e-6)


def large(name: str, n: int) -> Floats:
    rng = np.random.default_rng(7)
    values = rng.standard_normal(n).astype(np.float32)
    if name == "pruned":
        values = np.sign(values) * (np.abs(values) + np.float32(0.7))
    elif name == "heavy tails":
        values = rng.standard_cauchy(n).astype(np.float32)
    elif name == "outlier":
        values[5] = 1_000 * np.abs(values).max()
    elif name == "far atom":
        values[::10] = 1e10
    elif name == "offset":
        values = np.float32(1) + values * np.float32(1e-4)
    elif name == "lumps":
        values = (rng.integers(0, 50, n) + values * np.float32(1e-4)).astype(np.float32)
    elif name == "clipped":
        values = np.clip(values, -1, 1)
    elif name == "denormal":
        values = values * np.float32(1e-40)
    return values


LARGE = [
    "normal",
    "pruned",
    "heavy tails",
    "outlier",
    "far atom",
    "offset",
    "lumps",
    "clipped",
    "denormal",
]


@pytest.mark.parametrize("k", [2, 16, 100])
@pytest.mark.parametrize("name", LARGE)
def test_within_a_percent_of_kmeans1d(name: str, k: int) -> None:
    kmeans1d = pytest.importorskip("kmeans1d", reason="the extra `bench` is not installed")
    values = large(name, CELLS + 7_000)
    centroids = np.unique(kmeans1d.cluster(values.astype(np.float64), k).centroids)
    runs = Runs(np.sort(values))
    parts = np.split(runs.ordered.astype(np.float64), runs.nearest(centroids)[1:-1])
    least = sum(float(np.sum((part - c) ** 2)) for part, c in zip(parts, centroids, strict=True))
    assert optimal(values, k).inertia <= least * 1.01


@pytest.mark.parametrize("k", [3, 32, 256])
@pytest.mark.parametrize("name", LARGE)
def test_no_start_of_the_papers_does_better(name: str, k: int) -> None:
    values = large(name, CELLS + 7_000)
    others = [cluster(values, k, init=start).inertia for start in STARTS]
    assert optimal(values, k).inertia <= min(others) * 1.001


@pytest.mark.parametrize("k", [4, 64])
def test_the_range_does_not_matter(k: int) -> None:
    # Two values far out on either side cost two centroids and take nothing from the others.
    values = normal(CELLS + 1)
    far = np.concatenate([np.array([-3e38, 1e30], np.float32), values])
    assert optimal(far, k + 2).inertia == pytest.approx(optimal(values, k).inertia, rel=1e-3)


@pytest.mark.parametrize("count", [10, CELLS + 1])
def test_equal_values_are_one_entry(count: int) -> None:
    found = optimal(np.full(count, -0.3, np.float32), 16)
    assert found.codebook.tolist() == [np.float32(-0.3)]
    assert found.inertia == 0
    assert not found.labels.any()


@pytest.mark.parametrize("k", [300, 256, 299])
def test_few_distinct_values_among_many_come_back_exactly(k: int) -> None:
    wanted = np.sort(normal(min(k, 256)))
    values = np.tile(wanted, 1 + CELLS // len(wanted))
    found = optimal(values, k)
    assert np.array_equal(found.codebook, wanted)
    assert np.array_equal(found.codebook[found.labels], values)
    assert found.inertia == 0


def test_neighbours_in_float32_are_told_apart_among_many() -> None:
    pair = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.75], np.float32)
    values = np.tile(pair, CELLS)
    assert np.array_equal(optimal(values, 3).codebook, pair)


def test_the_largest_floats() -> None:
    top = np.finfo(np.float32).max
    values = np.repeat(np.array([-top, -1, 0, 1, top], np.float32), [2, 5, 9, 5, 3])
    found = optimal(values, 3)
    assert found.codebook.tolist() == [-top, 0, top]
    assert found.inertia == 10


def test_both_zeros_are_one_value_among_many() -> None:
    values = np.tile(np.array([-0.0, 0.0, 1.0, -1.0], np.float32), CELLS)
    found = optimal(values, 3)
    assert found.codebook.tolist() == [-1, 0, 1]
    assert not np.signbit(found.codebook[1])


@pytest.mark.parametrize("name", LARGE)
def test_order_of_many_values_does_not_matter(name: str) -> None:
    values = large(name, CELLS + 999)
    shuffled = np.random.default_rng(1).permutation(len(values))
    straight, mixed = optimal(values, 20), optimal(values[shuffled], 20)
    assert np.array_equal(straight.codebook, mixed.codebook)
    assert np.array_equal(straight.labels[shuffled], mixed.labels)


@pytest.mark.parametrize("name", LARGE)
def test_many_values_get_their_nearest_entries(name: str) -> None:
    values = large(name, CELLS + 999)
    found = optimal(values, 20)
    assert np.array_equal(np.unique(found.labels), np.arange(20))
    distances = np.abs(values.astype(np.float64)[:, None] - found.codebook.astype(np.float64))
    assert np.array_equal(found.labels, distances.argmin(axis=1))
    assert found.inertia == pytest.approx(float(np.sum(distances.min(axis=1) ** 2)), rel=1e-9)


@pytest.mark.parametrize("k", [MOST + 1, 1_000])
def test_beyond_dynamic_programming_still_less_than_from_the_papers_starts(k: int) -> None:
    values = normal(30_000)
    found = optimal(values, k)
    assert len(found.codebook) == k
    assert found.inertia < min(cluster(values, k, init=start).inertia for start in STARTS)


def test_memory_stays_below_the_input() -> None:
    values = normal(4_000_000)
    tracemalloc.start()
    try:
        optimal(values, 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes * 1.5


# --- Cells ----------------------------------------------------------------------------------------


def assert_are_cells_of(values: Floats, found: cells_module.Cells) -> None:
    """Runs of the sorted values, with their means, and no more spread than is claimed."""
    ordered = np.sort(values.astype(np.float64))
    ends = np.cumsum(found.counts)
    assert ends[-1] == len(values)
    assert (found.counts > 0).all()
    groups = np.split(ordered, ends[:-1])
    np.testing.assert_allclose(found.points, [np.mean(g) for g in groups], rtol=1e-12, atol=1e-60)
    spread = sum(float(np.sum((group - np.mean(group)) ** 2)) for group in groups)
    assert spread <= found.spread * (1 + 1e-9) + roundings(values)
    assert (ordered[ends[:-1]] > ordered[ends[:-1] - 1]).all()  # equal values share a cell


def histogram(values: Floats) -> cells_module.Cells:
    held = np.zeros(1 << 16, np.int64)
    for blocks, _ in _pieces(values):
        held += np.bincount(blocks, minlength=1 << 16)
    return _histogram(values, held)


@settings(deadline=None)
@given(st.one_of(value_arrays, small_grids))
def test_cells_are_runs_of_values(values: Floats) -> None:
    with patch.object(cells_module, "CELLS", 64):
        found = histogram(values)
        assert len(found.points) <= 64
        assert_are_cells_of(values, found)


@pytest.mark.parametrize("name", LARGE)
def test_cells_of_many_values(name: str) -> None:
    values = large(name, CELLS + 10_000)
    found = gather(values)
    assert len(found.points) <= CELLS
    assert_are_cells_of(values, found)


def test_cells_are_fine_where_values_are() -> None:
    # Half a block of float32 and one value far out: that leaves the block 2^15 of 2^16 cells.
    start = np.float32(1).view(np.uint32)
    block = (start + np.arange(1 << 15, dtype=np.uint32)).view(np.float32)
    values = np.append(np.tile(block, 3), np.float32(1e20))
    found = gather(values)
    assert found.counts.tolist() == [6] * (1 << 14) + [1]
    assert found.points[-1] == np.float32(1e20)


# --- Even pieces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 64, 500])
def test_pieces_have_much_the_same_inertia(count: int) -> None:
    values = np.unique(normal(100_000))
    for line in (Runs(values), Line.through(gather(values))):
        bounds = even_pieces(line, count)
        assert len(bounds) == count + 1
        inertias = line.inertias(bounds)
        # A cut leaves about an eighth, and those of more than an eighth of the most are cut.
        assert inertias.max() <= 80 * np.median(inertias)


def test_no_more_pieces_than_distinct_values() -> None:
    values = np.repeat(np.array([1, 2, 4], np.float32), 50)
    assert even_pieces(Runs(values), 10).tolist() == [0, 50, 100, 150]
    assert even_pieces(Line.through(gather(values)), 10).tolist() == [0, 1, 2, 3]


def test_a_joined_piece_keeps_its_inertia() -> None:
    line = Line.through(gather(np.array([0, 1, 5, 6, 6.5], np.float32)))
    bounds = np.array([0, 2, 5])
    joined = line.joined(bounds)
    one: NDArray[np.intp] = np.array([0, 1, 2])
    np.testing.assert_allclose(joined.inertias(one), [0.5, line.inertias(bounds)[1]])
    np.testing.assert_allclose(joined.inertias(np.array([0, 2])), line.inertias(np.array([0, 5])))
