"""Entropy-constrained quantization: the sum it minimises, its limits, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import StageError
from compressor.quantization.clustering import cluster
from compressor.quantization.rate_aware import Quantization, _envelope, quantize

RATES = (0.0, 0.002, 0.01, 0.05, 0.2)


def survivors(seed: int = 0, size: int = 20_000) -> tuple[np.ndarray, int]:
    """Laplacian weights without those near zero, and how many those were."""
    weights = np.random.default_rng(seed).laplace(size=size).astype(np.float32)
    kept = np.abs(weights) > 1.5
    return weights[kept], int(size - kept.sum())


def lagrangian(values: np.ndarray, found: Quantization, rate: float, pruned: int) -> float:
    """Error and price of the ideal code, counted from the outcome alone."""
    table = np.concatenate([[0.0], found.codebook])
    counts = np.bincount(found.indices, minlength=len(table)).astype(float)
    counts[0] += pruned
    shares = counts[counts > 0] / counts.sum()
    bits = -counts.sum() * np.sum(shares * np.log2(shares))
    error = np.sum((values - table[found.indices]) ** 2)
    assert found.bits == pytest.approx(bits)
    assert found.inertia == pytest.approx(error, rel=1e-5)
    return float(error + rate * np.mean(values.astype(float) ** 2) * bits)


def test_more_rate_means_fewer_bits_and_more_error() -> None:
    values, pruned = survivors()
    found = [quantize(values, 32, rate, pruned=pruned) for rate in RATES]
    bits, errors = [f.bits for f in found], [f.inertia for f in found]
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert bits[-1] < 0.5 * bits[0]


@pytest.mark.parametrize("rate", RATES[1:])
def test_the_sum_is_below_that_of_k_means_and_of_every_other_rate(rate: float) -> None:
    values, pruned = survivors(1)
    best = lagrangian(values, quantize(values, 32, rate, pruned=pruned), rate, pruned)
    for other in RATES:
        found = quantize(values, 32, other, pruned=pruned)
        assert best <= 1.01 * lagrangian(values, found, rate, pruned)
    clusters = cluster(values, 32)
    same = Quantization(clusters.codebook, clusters.labels.astype(np.int32) + 1, 0.0, 0.0)
    table = np.concatenate([[0.0], same.codebook])
    counts = np.append(np.bincount(same.indices, minlength=33)[1:], pruned)
    shares = counts[counts > 0] / counts.sum()
    k_means = np.sum((values - table[same.indices]) ** 2) - rate * np.mean(
        values.astype(float) ** 2
    ) * counts.sum() * np.sum(shares * np.log2(shares))
    assert best < k_means


def test_at_equal_error_fewer_bits_than_k_means() -> None:
    """The point of it: 32 entropy-constrained centroids against fewer of k-means."""
    values, pruned = survivors(2)
    found = quantize(values, 32, 0.05, pruned=pruned)
    for k in range(2, 33):
        plain = quantize(values, k, 0.0, pruned=pruned)
        if plain.inertia <= found.inertia:
            assert found.bits < 0.97 * plain.bits
            break
    else:
        pytest.fail("k-means never got as good")


@settings(deadline=None, max_examples=100)
@given(
    entries=st.lists(st.integers(-20, 20), min_size=1, max_size=9, unique=True),
    seed=st.integers(0, 10_000),
)
def test_the_envelope_is_the_least_of_all_lines(entries: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.sort(np.array(entries, dtype=np.float64))
    costs = rng.integers(0, 60, len(points)).astype(np.float64)
    best, edges = _envelope(points, costs)
    weights = np.linspace(-30, 30, 241) + 0.013
    every = (weights[:, None] - points) ** 2 + costs
    chosen = best[np.searchsorted(edges, weights)]
    cost = (weights - points[chosen]) ** 2 + costs[chosen]
    assert np.allclose(cost, every.min(axis=1))


def test_errors_are_smaller_where_they_cost_more() -> None:
    values, pruned = survivors(4)
    costly = np.random.default_rng(5).random(len(values)) < 0.5
    importance = np.where(costly, 64.0, 1.0).astype(np.float32)
    found = quantize(values, 32, 0.05, importance=importance, pruned=pruned)
    plain = quantize(values, 32, 0.05, pruned=pruned)
    table = np.concatenate([[0.0], found.codebook])
    errors = (values - table[found.indices]) ** 2
    assert errors[costly].mean() < 0.5 * errors[~costly].mean()
    weighted = importance / importance.mean()
    other = (values - np.concatenate([[0.0], plain.codebook])[plain.indices]) ** 2
    price = 0.05 * np.mean(values.astype(float) ** 2)
    assert np.sum(weighted * errors) + price * found.bits < (
        np.sum(weighted * other) + price * plain.bits
    )


def test_equal_importance_is_none() -> None:
    values, _ = survivors(6)
    found = quantize(values, 16, 0.02, importance=np.full(len(values), 7, np.float32))
    assert found.indices.tolist() == quantize(values, 16, 0.02).indices.tolist()


def test_a_rate_that_no_weight_is_worth_leaves_zeros() -> None:
    values, pruned = survivors(3)
    found = quantize(values, 8, 1e6, pruned=pruned)
    assert not found.indices.any()
    assert len(found.codebook) == 0
    assert found.bits == 0


def test_equal_values_take_one_centroid() -> None:
    found = quantize(np.full(50, 0.5, np.float32), 4, 0.01, pruned=50)
    assert found.codebook.tolist() == [0.5]
    assert (found.indices == 1).all()
    assert found.bits == pytest.approx(100)


@pytest.mark.parametrize("rate", [-0.1, float("nan")])
def test_a_rate_below_zero_is_refused(rate: float) -> None:
    with pytest.raises(StageError, match="0 or more"):
        quantize(np.ones(3, np.float32), 2, rate)
