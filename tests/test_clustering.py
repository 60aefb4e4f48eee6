"""One-dimensional k-means, against scikit-learn, exhaustive search and its own definition."""

import json
import tracemalloc
from importlib import metadata
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from compressor.benchmarks import clustering as benchmark
from compressor.errors import StageError
from compressor.quantization.clustering import (
    INITS,
    STARTS,
    Clustering,
    Init,
    Start,
    _farthest_values,
    cluster,
    default_iterations,
    initial_centroids,
)
from compressor.quantization.runs import CHUNK, Floats, Runs

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
value_arrays = arrays(np.float32, st.integers(1, 60), elements=finite32)
small_grids = arrays(np.float32, st.integers(1, 60), elements=st.integers(-4, 4))


def normal(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def surviving(n: int, seed: int = 0) -> Floats:
    """What pruning leaves of normal weights: two tails, and a gap between them."""
    values = normal(n, seed)
    return values[np.abs(values) > 0.5]


def direct_inertia(values: Floats, found: Clustering) -> float:
    return float(np.sum((values.astype(np.float64) - found.codebook[found.labels]) ** 2))


def peer(values: Floats, k: int, init: Start, seed: int = 0, max_iter: int = 10_000) -> KMeans:
    """scikit-learn from the same start, on float64: for float32 its distances are float32 too."""
    start = initial_centroids(np.sort(values), k, init, seed).reshape(-1, 1)
    model = KMeans(k, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=max_iter)
    return model.fit(values.astype(np.float64).reshape(-1, 1))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize(("k", "steps"), [(2, 1), (7, 20), (16, 1), (16, 5), (16, 40)])
def test_takes_the_steps_of_scikit_learn(k: int, steps: int, init: Start) -> None:
    values = normal(3_000, seed=k)
    model = peer(values, k, init, max_iter=steps)
    found = cluster(values, k, init=init, max_iterations=steps)
    assert found.iterations == steps
    assert found.inertia == pytest.approx(model.inertia_, rel=1e-6)
    np.testing.assert_allclose(found.codebook, np.sort(model.cluster_centers_[:, 0]), rtol=1e-6)
    in_order = np.argsort(np.argsort(model.cluster_centers_[:, 0]))
    assert np.mean(found.labels != in_order[model.labels_]) < 1e-3  # rounding of the codebook


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize("k", [8, 32, 100])
@pytest.mark.parametrize("name", ["normal", "gap", "heavy tails", "outlier", "few values"])
def test_inertia_is_no_worse_than_scikit_learns(name: str, k: int, init: Start) -> None:
    rng = np.random.default_rng(k)
    outlier = normal(2_000)
    outlier[7] = 100
    values: NDArray[np.float32] = {
        "normal": normal(2_000),
        "gap": surviving(2_000),
        "heavy tails": rng.standard_cauchy(2_000).astype(np.float32),
        "outlier": outlier,
        "few values": normal(150),
    }[name]
    model, found = peer(values, k, init, seed=3), cluster(values, k, init=init, seed=3)
    assert found.inertia <= model.inertia_ * (1 + 1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_empty_clusters_are_put_to_use() -> None:
    values = normal(5_000)
    values[0] = 1_000  # a linear start leaves all but two of 64 clusters without a value
    start = initial_centroids(np.sort(values), 64, "linear")
    assert len(np.unique(np.abs(values[:, None] - start).argmin(axis=1))) == 2
    found = cluster(values, 64)
    assert len(found.codebook) == 64
    # scikit-learn gives them to single far values first, and stays behind
    assert found.inertia < 0.7 * peer(values, 64, "linear", max_iter=1_000).inertia_


@pytest.mark.parametrize("seed", range(10))
def test_reaches_the_optimum_from_one_of_its_starts(seed: int) -> None:
    values = normal(12, seed)
    ordered = np.sort(values).astype(np.float64)
    costs = []
    for inner in combinations(range(1, 12), 3):
        runs = np.split(ordered, inner)
        costs.append(sum(float(np.sum((run - run.mean()) ** 2)) for run in runs))
    best = min(costs)
    found = [cluster(values, 4, init="random", seed=s).inertia for s in range(20)]
    assert min(found) == pytest.approx(best, rel=1e-5)
    assert all(inertia >= best * (1 - 1e-5) for inertia in found)


@settings(deadline=None)
@given(st.one_of(value_arrays, small_grids), st.integers(1, 20), st.sampled_from(INITS))
def test_is_what_it_says(values: Floats, k: int, init: Init) -> None:
    found = cluster(values, k, init=init)
    m = len(found.codebook)
    assert found.codebook.dtype == np.float32
    assert (np.diff(found.codebook.astype(np.float64)) > 0).all()
    assert found.labels.shape == values.shape
    assert np.array_equal(np.unique(found.labels), np.arange(m))
    assert 1 <= m <= min(k, len(np.unique(values)))
    assert found.inertia == pytest.approx(direct_inertia(values, found), rel=1e-9, abs=1e-300)
    distances = np.abs(values.astype(np.float64)[:, None] - found.codebook.astype(np.float64))
    assert (distances[np.arange(len(values)), found.labels] <= distances.min(axis=1)).all()


@settings(deadline=None)
@given(small_grids, st.integers(1, 9))
def test_half_way_belongs_to_the_lower(values: Floats, k: int) -> None:
    found = cluster(values, k)
    distances = np.abs(values.astype(np.float64)[:, None] - found.codebook.astype(np.float64))
    assert np.array_equal(found.labels, distances.argmin(axis=1))  # argmin: first, so lowest


@settings(deadline=None)
@given(value_arrays, st.integers(0, 5))
def test_few_distinct_values_come_back_exactly(values: Floats, spare: int) -> None:
    found = cluster(values, len(np.unique(values)) + spare)
    assert np.array_equal(found.codebook[found.labels], values)
    assert found.inertia == 0
    assert found.iterations == 0


def test_both_zeros_are_one_value() -> None:
    found = cluster(np.array([-0.0, 0.0, 1.0, -0.0], dtype=np.float32), 2)
    assert found.codebook.tolist() == [0.0, 1.0]
    assert not np.signbit(found.codebook[0])


@pytest.mark.parametrize("init", INITS)
def test_at_the_end_every_centroid_is_the_mean_of_its_values(init: Init) -> None:
    values = surviving(4_000)
    found = cluster(values, 32, init=init)
    assert found.iterations < default_iterations(32)
    means = [values[found.labels == i].mean(dtype=np.float64) for i in range(32)]
    np.testing.assert_allclose(found.codebook, means, rtol=1e-6)


def test_centroids_left_without_values_are_dropped() -> None:
    # The middle one of 3 starts with the values 2.1 and 7.9; one step later both have a nearer one.
    values = np.repeat([-1, 1.9, 2.1, 7.9, 8.1, 11], [1, 99, 1, 1, 99, 1]).astype(np.float32)
    found = cluster(values, 3, max_iterations=1)
    assert len(found.codebook) == 2
    assert np.array_equal(found.labels, np.repeat([0, 1], 101))


def test_a_run_that_goes_into_single_values_leaves_its_centroid_to_others() -> None:
    runs = Runs(np.array([0, 0.1, 5, 7], dtype=np.float32))
    # 5 and 7 are farthest from their centroid; alone, they need one bound more, not two.
    bounds = _farthest_values(runs, np.array([0, 2, 4]), np.array([0.05, 100]), 2)
    assert bounds.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("seed", range(5))
def test_at_the_end_no_single_value_does_better_elsewhere(seed: int, init: Init) -> None:
    values = surviving(150, seed)
    k = 8
    labels = cluster(values, k, init=init).labels
    for moved in range(len(values)):
        if np.sum(labels == labels[moved]) == 1:
            continue  # its cluster would be gone
        other = [np.where(np.arange(len(values)) == moved, i, labels) for i in range(k)]
        inertias = np.array([inertia_of_means(values, candidate, k) for candidate in other])
        assert inertias.min() >= inertias[labels[moved]] * (1 - 1e-6)


def inertia_of_means(values: Floats, labels: NDArray[np.integer], k: int) -> float:
    parts = [values[labels == i].astype(np.float64) for i in range(k)]
    return sum(float(np.sum((part - part.mean()) ** 2)) for part in parts)


@pytest.mark.parametrize("init", INITS)
def test_order_of_the_values_does_not_matter(init: Init) -> None:
    values = normal(5_000)
    shuffled = np.random.default_rng(1).permutation(5_000)
    straight, mixed = cluster(values, 16, init=init), cluster(values[shuffled], 16, init=init)
    assert np.array_equal(straight.codebook, mixed.codebook)
    assert np.array_equal(straight.labels[shuffled], mixed.labels)
    assert straight.inertia == pytest.approx(
        mixed.inertia, rel=0 if init in STARTS else 1e-12, abs=0
    )


@pytest.mark.parametrize("k", [2, 5, 256, 257, 1_000])
def test_labels_of_many_values_have_the_smallest_type(k: int) -> None:
    values = normal(2 * CHUNK + 17)  # ends within a chunk
    found = cluster(values, k, init="density", max_iterations=3)
    assert found.labels.dtype == (np.uint8 if k <= 256 else np.uint16)
    limits = (found.codebook[1:].astype(np.float64) + found.codebook[:-1]) / 2
    assert np.array_equal(found.labels, np.searchsorted(limits, values.astype(np.float64)))
    assert found.inertia == pytest.approx(direct_inertia(values, found), rel=1e-9)


@pytest.mark.parametrize("offset", [1e-30, 1e-3, 1e30])
def test_labels_are_exact_at_every_scale(offset: float) -> None:
    values = (normal(3_000) * offset + offset).astype(np.float32)
    values[:2] = [-3e38, 3e38]  # their difference is beyond float32
    found = cluster(values, 16, init="density")
    distances = np.abs(values.astype(np.float64)[:, None] - found.codebook.astype(np.float64))
    assert np.array_equal(found.labels, distances.argmin(axis=1))


def test_linear_start_spaces_the_range() -> None:
    ordered = np.array([-1, 0, 0.1, 3], dtype=np.float32)
    assert initial_centroids(ordered, 5, "linear").tolist() == [-1, 0, 1, 2, 3]


def test_density_start_spaces_the_distribution() -> None:
    ordered = np.sort(normal(10_000))
    start = initial_centroids(ordered, 10, "density")
    share_below = np.searchsorted(ordered, start) / 10_000
    np.testing.assert_allclose(share_below, (np.arange(10) + 0.5) / 10, atol=1e-3)


def test_random_start_draws_values_without_replacement() -> None:
    ordered = np.sort(normal(1_000))
    start = initial_centroids(ordered, 50, "random", seed=5)
    assert len(np.unique(start)) == 50
    assert np.isin(start, ordered).all()
    assert (np.diff(start) > 0).all()
    assert np.array_equal(start, initial_centroids(ordered, 50, "random", seed=5))
    assert not np.array_equal(start, initial_centroids(ordered, 50, "random", seed=6))
    assert np.array_equal(initial_centroids(ordered, 1_000, "random"), ordered)


def test_random_start_is_fair() -> None:
    ordered = np.arange(8, dtype=np.float32)
    drawn = [initial_centroids(ordered, 2, "random", seed=s) for s in range(4_000)]
    counts = np.bincount(np.concatenate(drawn).astype(int), minlength=8)
    # 4000 draws, each value in a quarter: standard deviation 27
    assert np.abs(counts - 1_000).max() < 5 * 27


@pytest.mark.parametrize(
    ("values", "k", "message"),
    [
        ([], 4, "no values"),
        ([1, np.nan, 2], 2, "NaN or infinite"),
        ([1, np.inf, 2], 2, "NaN or infinite"),
        ([1, -np.inf, np.nan], 2, "NaN or infinite"),
        ([1, 2], 0, "k = 0"),
    ],
)
def test_refuses_what_cannot_be_clustered(values: list[float], k: int, message: str) -> None:
    with pytest.raises(StageError, match=message):
        cluster(np.array(values, dtype=np.float32), k)


def test_refuses_an_unknown_start() -> None:
    with pytest.raises(StageError, match="linear, density, random, optimal"):
        cluster(normal(100), 4, init="lienar")  # type: ignore[arg-type]


def test_refuses_other_types_and_shapes() -> None:
    with pytest.raises(ValueError, match="float64"):
        cluster(np.zeros(3), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        cluster(np.zeros((2, 3), np.float32), 2)


def test_memory_stays_below_twice_the_input() -> None:
    values = normal(2_000_000)
    tracemalloc.start()
    try:
        cluster(values, 256, max_iterations=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * values.nbytes


def test_runs_have_the_means_and_inertias_of_their_values() -> None:
    ordered = np.sort(np.concatenate([normal(500), np.full(70, 0.1), np.full(3, 7e7)])).astype("f4")
    inner = np.random.default_rng(0).choice(np.arange(1, len(ordered)), 40, replace=False)
    flat = np.searchsorted(ordered, np.array([0.1, 7e7], np.float32))  # two runs of one value each
    bounds = np.unique(np.concatenate([[0], inner, flat, flat + 3, [len(ordered)]]))
    runs = np.split(ordered.astype(np.float64), bounds[1:-1])
    sums = Runs(ordered)
    np.testing.assert_allclose(sums.means(bounds), [run.mean() for run in runs], rtol=1e-9)
    expected = [np.sum((run - run.mean()) ** 2) for run in runs]
    np.testing.assert_allclose(sums.inertias(bounds), expected, rtol=1e-6, atol=1e-9)
    assert np.array_equal(sums.inertias(bounds) > 0, [len(np.unique(run)) > 1 for run in runs])


def test_cutting_at_the_mean_leaves_no_part_empty() -> None:
    # Beside 1e30 a sum is good to 1e14 only, and the mean of the last two comes out too large.
    ordered = np.array([-1e30, 1e14, 1.00001e14], dtype=np.float32)
    assert Runs(ordered).means(np.array([1, 3])) == ordered[2]
    assert Runs(ordered).middles(np.array([1, 3])).tolist() == [2]


def test_default_iterations_bound_the_work() -> None:
    assert [default_iterations(k) for k in (1, 32, 256, 4_096, 65_536)] == [2_000] * 3 + [1_024, 64]


def test_benchmark_compares_both_tools(tmp_path: Path) -> None:
    output = tmp_path / "clustering.json"
    sizes = ["--size", "3000", "--peer-size", "2000", "--clusters", "8"]
    benchmark.main([*sizes, "-o", str(output)])
    result = json.loads(output.read_text())
    assert result["environment"]["libraries"]["scikit-learn"] == metadata.version("scikit-learn")
    tools = [row["tool"] for row in result["rows"]]
    optimum = ["kmeans1d"] if find_spec("kmeans1d") else []
    assert tools == ["scikit-learn", *3 * ["compressor"], *optimum, *4 * ["compressor"]]
    values = [row["values"] for row in result["rows"]]
    assert values == (4 + len(optimum)) * [2_000] + 4 * [3_000]
    peer_row, *rows = result["rows"][:-4]
    for row in rows:
        assert row["inertia_ratio"] == row["inertia"] / peer_row["inertia"]
        assert row["inertia_ratio"] <= 1 + 1e-5
        assert row.get("optimum_ratio", 1) >= 1 - 1e-9
    assert [row["init"] for row in result["rows"][-4:]] == list(INITS)
    expected = peer(benchmark.normal(2_000), 8, "linear", max_iter=300).inertia_
    assert peer_row["inertia"] == pytest.approx(expected, rel=1e-4)
