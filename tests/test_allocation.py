"""Sparsities among layers: exact counts, torch's own masks, ERK by hand, LAMP by a loop."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import prune as rival

from compressor.pruning.allocation import (
    allocate,
    erk_densities,
    erk_zeros,
    lamp,
    without_lowest,
)

Floats = NDArray[np.float32]
SCOPES = ("layer", "global", "erk", "lamp")
FEW = st.sampled_from([0.0, 0.5, 1.0, 2.0])  # so few values that most scores are ties


def distinct(*shapes: tuple[int, ...]) -> dict[str, Floats]:
    """Weights of layers a, b, ... without ties."""
    draw = np.random.default_rng(7)
    total = sum(int(np.prod(shape)) for shape in shapes)
    values = draw.permutation(np.arange(1, total + 1)) * draw.choice([-1, 1], total) / 64
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    parts = np.split(values.astype(np.float32), ends)
    names = "abcdefgh"
    return {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=False)}


def magnitudes(weights: dict[str, Floats]) -> dict[str, Floats]:
    return {name: np.abs(weight) for name, weight in weights.items()}


LAYERS = distinct((4, 1, 3, 3), (6, 4, 3, 3), (20, 24), (10, 20))


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=FEW), st.data())
def test_exactly_so_many_go_also_with_ties(scores: Floats, data: st.DataObject) -> None:
    """A stable sort, by Python, says which."""
    count = data.draw(st.integers(0, scores.size))
    order = sorted(range(scores.size), key=scores.ravel().tolist().__getitem__)
    expected = np.ones(scores.size, bool)
    expected[order[:count]] = False
    np.testing.assert_array_equal(without_lowest(scores, count), expected.reshape(scores.shape))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sparsity", [0.001, 0.1, 0.5, 0.75, 0.9, 0.97])
def test_the_number_of_zeros_is_exact(scope: str, sparsity: float) -> None:
    for layers in (magnitudes(LAYERS), {n: np.ones_like(v) for n, v in LAYERS.items()}):
        masks = allocate(layers, dict.fromkeys(layers, sparsity), scope)
        assert {n: mask.shape for n, mask in masks.items()} == {
            n: values.shape for n, values in layers.items()
        }
        zeros = {name: int((~mask).sum()) for name, mask in masks.items()}
        if scope == "layer":
            assert zeros == {n: round(sparsity * v.size) for n, v in layers.items()}
        total = sum(values.size for values in layers.values())
        whole = sum(round(sparsity * v.size) for v in layers.values())
        assert sum(zeros.values()) == (whole if scope == "layer" else round(sparsity * total))


def torch_layers() -> dict[str, nn.Linear]:
    layers = {}
    for name, values in LAYERS.items():
        flat = torch.from_numpy(values.reshape(len(values), -1))
        layers[name] = nn.Linear(flat.shape[1], flat.shape[0])
        layers[name].weight = nn.Parameter(flat.clone())
    return layers


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.75, 0.9])
def test_each_layer_has_the_mask_of_torchs_l1_unstructured(sparsity: float) -> None:
    masks = allocate(magnitudes(LAYERS), dict.fromkeys(LAYERS, sparsity), "layer")
    for name, layer in torch_layers().items():
        rival.l1_unstructured(layer, "weight", amount=sparsity)
        expected = layer.weight_mask.bool().numpy()
        np.testing.assert_array_equal(masks[name].reshape(expected.shape), expected)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.75, 0.9])
def test_all_layers_have_the_masks_of_torchs_global_unstructured(sparsity: float) -> None:
    masks = allocate(magnitudes(LAYERS), dict.fromkeys(LAYERS, sparsity), "global")
    layers = torch_layers()
    pairs = [(layer, "weight") for layer in layers.values()]
    rival.global_unstructured(pairs, pruning_method=rival.L1Unstructured, amount=sparsity)
    for name, layer in layers.items():
        expected = layer.weight_mask.bool().numpy()
        np.testing.assert_array_equal(masks[name].reshape(expected.shape), expected)


# ---- ERK ---------------------------------------------------------------------------------------


def test_erk_densities_by_hand() -> None:
    """fc 8x8: (8 + 8) / 64 = 1/4; conv 4x4x2x2: 12 / 64 = 3/16. 64 weights each, density 0.21875:
    scale x (16 + 12) = 0.21875 x 128 = 28, so the scale is 1."""
    found = erk_densities({"fc": (8, 8), "conv": (4, 4, 2, 2)}, 0.21875)
    assert found == pytest.approx({"fc": 1 / 4, "conv": 3 / 16})


def test_erk_leaves_a_layer_dense_where_its_density_would_pass_one() -> None:
    """a 2x2: (2 + 2) / 4 = 1; b 10x10: 0.2. Density 0.5 of 104 weights leaves 52. All together the
    scale is 52 / (4 + 20) = 2.17, so a passes 1 and stays dense; b keeps 52 - 4 = 48 of 100."""
    found = erk_densities({"a": (2, 2), "b": (10, 10)}, 0.5)
    assert found == pytest.approx({"a": 1.0, "b": 0.48})
    assert erk_zeros({"a": (2, 2), "b": (10, 10)}, 52) == {"a": 0, "b": 52}


def test_erk_goes_on_until_no_layer_passes_one() -> None:
    """a 1x1 (raw 2), b 2x2 (1), c 20x20 (0.1); 405 weights, 81 left (density 0.2).

    Scale 81 / (2 + 4 + 40) = 1.76: a and b pass 1. Without a 80 / 44 = 1.82: b does still. Without
    both 76 / 40 = 1.9: c has 0.19."""
    found = erk_densities({"a": (1, 1), "b": (2, 2), "c": (20, 20)}, 0.2)
    assert found == pytest.approx({"a": 1.0, "b": 1.0, "c": 0.19})


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_erk_counts_are_within_one_of_their_densities_and_exact_in_all(
    sizes: list[tuple[int, int]], part: float
) -> None:
    shapes: dict[str, tuple[int, ...]] = {str(number): size for number, size in enumerate(sizes)}
    weights = sum(a * b for a, b in sizes)
    total = round(part * weights)
    counts = erk_zeros(shapes, total)
    densities = erk_densities(shapes, 1 - total / weights)
    assert sum(counts.values()) == total
    for name, (a, b) in zip(shapes, sizes, strict=True):
        assert 0 <= counts[name] <= a * b
        assert abs(counts[name] - a * b * (1 - densities[name])) < 1 + 1e-6


def test_erk_keeps_layers_in_the_order_of_their_formula() -> None:
    """a (4+1+3+3)/36 = 0.31, b (6+4+3+3)/216 = 0.07, c 44/480 = 0.09, d 30/200 = 0.15."""
    masks = allocate(magnitudes(LAYERS), dict.fromkeys(LAYERS, 0.9), "erk")
    kept = {name: float(mask.mean()) for name, mask in masks.items()}
    assert kept["a"] > kept["d"] > kept["c"] > kept["b"]


# ---- LAMP --------------------------------------------------------------------------------------


def test_lamp_scores_are_the_formula() -> None:
    """Lee et al. 2021, equation 1, by a loop: w_u^2 over the sum of w_v^2 with v >= u."""
    values = np.abs(LAYERS["b"])
    flat = values.ravel().astype(np.float64).tolist()
    expected = [u * u / sum(v * v for v in flat if v >= u) for u in flat]
    np.testing.assert_allclose(lamp(values), expected, rtol=1e-12)


def test_lamp_masks_by_hand() -> None:
    """a: 1, 2, 3 scores 1/14, 4/13, 1; b: 10, 10.5 scores 100/210.25 = 0.476, 1. Three of five go:
    both of a that are not its largest, and b's smaller one, though it is thrice a's largest."""
    layers = {"a": np.float32([1, 2, 3]), "b": np.float32([10, 10.5])}
    masks = allocate(layers, dict.fromkeys(layers, 0.6), "lamp")
    assert masks["a"].tolist() == [False, False, True]
    assert masks["b"].tolist() == [False, True]


def test_lamp_never_takes_the_last_weight_while_another_layer_has_two() -> None:
    layers = {"a": np.float32([1e-9, 2e-9]), "b": np.abs(LAYERS["c"])}
    count = layers["b"].size  # of all but two: each layer keeps its largest
    masks = allocate(layers, dict.fromkeys(layers, count / (count + 2)), "lamp")
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1]


def test_lamp_of_nothing_but_zeros() -> None:
    assert lamp(np.zeros((2, 3), np.float32)).tolist() == [0.0] * 6


def test_equal_scores_have_equal_masks_whatever_the_scope() -> None:
    """What ranks and machines rely on: a mask is a function of the scores alone."""
    layers = {n: np.round(np.abs(v) / 3).astype(np.float32) for n, v in LAYERS.items()}
    for scope, dtype in itertools.product(SCOPES, (np.float32, np.float64)):
        one = allocate(layers, dict.fromkeys(layers, 0.7), scope)
        copies = {name: values.astype(dtype) for name, values in layers.items()}
        other = allocate(copies, dict.fromkeys(layers, 0.7), scope)
        for name, mask in one.items():
            np.testing.assert_array_equal(other[name], mask)
