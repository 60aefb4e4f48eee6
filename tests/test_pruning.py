"""Pruning by threshold: masks by the formula, rounds, and what retraining must not undo."""

import math
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_of
from compressor.network import Context, Network
from compressor.pruning import prune
from compressor.pruning.thresholds import deviation, magnitude_mask
from compressor.settings import Prune, Training
from compressor.training.data import Data, Split

Floats = NDArray[np.float32]
RETRAIN = Training(epochs=3, lr=0.05, batch_size=16, weight_decay=0.01, warmup=0.0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.norm(self.conv1(x)).relu()).relu()
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def network() -> Network:
    return Network(Small(), torch.zeros(1, 1, 8, 8), "small", "Small")


def toy_data() -> Data:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(48, 1, 8, 8, generator=generator)
    y = torch.arange(48) % 3
    train, rest = Split(x[:32], y[:32]), Split(x[32:], y[32:])
    return Data("toy", train, rest, rest, 3, (0.0,), (1.0,), "none", 0.0, "")


def weights(module: nn.Module) -> dict[str, Floats]:
    return {n: layer.weight.numpy().copy() for n, layer in compressible_layers(module).items()}


def population_deviation(values: Floats) -> float:
    return statistics.pstdev(values.ravel().tolist())


# ---- formulas ----------------------------------------------------------------------------------


def test_the_deviation_is_that_of_the_population() -> None:
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squares 9+1+1+1+0+0+4+16 = 32, 32 / 8 = 4
    values = np.array([[2, 4, 4, 4], [5, 5, 7, 9]], dtype=np.float32)
    assert deviation(values) == 2.0


def test_the_deviation_is_computed_in_float64() -> None:
    """A large mean: in float32 the squares of the differences would drown."""
    values = np.full(10_000, 1000.0, dtype=np.float32)
    values[::2] += np.float32(2**-13)
    assert deviation(values) == pytest.approx(2**-14, rel=1e-9)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-9, 9, width=32)))
def test_the_deviation_agrees_with_the_standard_library(values: Floats) -> None:
    assert deviation(values) == pytest.approx(population_deviation(values), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_an_error_that_names_the_layer(bad: float) -> None:
    values = np.array([1.0, bad], dtype=np.float32)
    with pytest.raises(StageError, match=r"layer1\.conv has weights that are NaN or infinite"):
        deviation(values, "layer1.conv")


@settings(max_examples=200)
@given(
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-3, 3, width=32)),
    st.floats(0, 3),
)
def test_the_mask_is_the_rule(values: Floats, threshold: float) -> None:
    """Python compares a float32 with a threshold exactly."""
    expected = [abs(v) >= threshold and v != 0 for v in values.ravel().tolist()]
    if any(expected):
        mask = magnitude_mask(values, threshold)
        assert mask.dtype == np.bool_
        assert mask.shape == values.shape
        assert mask.ravel().tolist() == expected
    else:
        with pytest.raises(StageError, match="vanish"):
            magnitude_mask(values, threshold)


def test_the_threshold_is_not_rounded_to_the_weights_type() -> None:
    weight = np.float32(0.1)
    values = np.array([weight, -weight, 1.0], dtype=np.float32)
    above = math.nextafter(float(weight), 1)
    assert np.float32(above) == weight, "the next float64 rounds to the same float32"
    assert magnitude_mask(values, float(weight)).tolist() == [True, True, True]
    assert magnitude_mask(values, above).tolist() == [False, False, True]


def test_zeros_are_pruned_at_any_threshold() -> None:
    values = np.array([0.0, -0.0, 1e-45, -1e-45], dtype=np.float32)
    assert magnitude_mask(values, 0.0).tolist() == [False, False, True, True]


def test_a_layer_that_would_vanish_is_named_with_its_numbers() -> None:
    values = np.array([[0.5, -0.25]], dtype=np.float32)
    with pytest.raises(StageError, match=r"head\.fc would vanish: all its 2 .* 0\.75 .* 0\.5\)"):
        magnitude_mask(values, 0.75, "head.fc")


# ---- the stage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sensitivity", [0.0, 0.25, 1.0, 1.3])
def test_pruning_without_data_keeps_what_is_above_the_threshold(sensitivity: float) -> None:
    net = network()
    before = weights(net.module)
    report = prune(net, Prune(sensitivity), Context())
    assert report.history == []
    assert [row["layer"] for row in report.layers] == ["conv1", "conv2", "fc"]
    for row in report.layers:
        dense = before[row["layer"]]
        threshold = sensitivity * population_deviation(dense)
        assert row["threshold"] == pytest.approx(threshold, rel=1e-12)
        assert row["sensitivity"] == sensitivity
        kept = np.abs(dense.astype(np.float64)) >= row["threshold"]
        found = weights(net.module)[row["layer"]]
        np.testing.assert_array_equal(found, np.where(kept, dense, 0))
        mask = mask_of(compressible_layers(net.module)[row["layer"]])
        assert mask is not None
        np.testing.assert_array_equal(mask.numpy(), kept)


def test_each_layer_has_its_own_sensitivity() -> None:
    net = network()
    before = weights(net.module)
    prune(net, Prune({"conv": 0.5, "conv2": 1.0, "fc": 0.25}), Context())
    after = weights(net.module)
    for name, sensitivity in {"conv1": 0.5, "conv2": 1.0, "fc": 0.25}.items():
        threshold = sensitivity * population_deviation(before[name])
        assert (after[name] != 0).sum() == (np.abs(before[name]) >= threshold).sum()


def test_layers_without_a_rule_are_not_touched() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    report = prune(net, Prune("conv2=1"), Context())
    assert [row["layer"] for row in report.layers] == ["conv2"]
    after = net.module.state_dict()
    for name, value in before.items():
        if name != "conv2.weight":
            assert torch.equal(after[name], value)
    for name in ("conv1", "fc"):
        assert mask_of(compressible_layers(net.module)[name]) is None


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_retraining_keeps_the_sparsity_to_the_weight(optimizer: str, rounds: int) -> None:
    retrain = Training(
        epochs=4, lr=0.01, batch_size=16, weight_decay=0.01, optimizer=optimizer, warmup=0.0
    )
    net = network()
    prune(net, Prune(0.8, rounds=rounds, retrain=retrain), Context(toy_data()))
    for layer in compressible_layers(net.module).values():
        mask = mask_of(layer)
        assert mask is not None
        # Neither a pruned weight revived nor a survivor at zero: the counts are equal.
        assert torch.equal(layer.weight != 0, mask)
        assert 0 < int(mask.sum()) < mask.numel()


def test_retraining_changes_survivors_and_biases() -> None:
    net, data = network(), toy_data()
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    report = prune(net, Prune("fc=0.5", retrain=RETRAIN), Context(data))
    layer = compressible_layers(net.module)["fc"]
    mask = mask_of(layer)
    assert mask is not None
    assert (layer.weight != before["fc.weight"])[mask].all()
    assert not torch.equal(net.module.get_parameter("fc.bias"), before["fc.bias"])
    assert not torch.equal(net.module.get_parameter("conv1.weight"), before["conv1.weight"])
    assert [(row["round"], row["epoch"]) for row in report.history] == [(1, 1), (1, 2), (1, 3)]


def test_rounds_raise_the_threshold_in_equal_steps() -> None:
    """Without retraining, three rounds end where one does."""
    once, thrice = network(), network()
    thrice.module.load_state_dict(once.module.state_dict())
    prune(once, Prune(0.9), Context())
    prune(thrice, Prune(0.9, rounds=3), Context())
    for name, expected in weights(once.module).items():
        np.testing.assert_array_equal(weights(thrice.module)[name], expected)


def test_each_round_prunes_at_its_share_of_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What survives each round, seen where it is retrained; the deviation is the first one's."""
    from compressor.pruning import stage

    net = network()
    dense = weights(net.module)
    seen: list[dict[str, Floats]] = []

    def halve(module: nn.Module, *_: object) -> list[object]:
        """A "retraining" that halves all weights, so that later rounds prune more."""
        seen.append(weights(module))
        with torch.no_grad():
            for layer in compressible_layers(module):
                module.get_parameter(f"{layer}.parametrizations.weight.original").mul_(0.5)
        return []

    monkeypatch.setattr(stage, "fit", halve)
    report = prune(net, Prune(0.6, rounds=2), Context())
    assert len(seen) == 2
    for row in report.layers:
        name, whole = row["layer"], 0.6 * population_deviation(dense[row["layer"]])
        assert row["threshold"] == pytest.approx(whole, rel=1e-12)
        first = np.where(np.abs(dense[name]) >= whole / 2, dense[name], 0)
        np.testing.assert_array_equal(seen[0][name], first)
        second = np.where(np.abs(first / 2) >= whole, first / 2, 0)
        np.testing.assert_array_equal(seen[1][name], second)


def test_what_a_round_pruned_stays_pruned() -> None:
    net, data = network(), toy_data()
    dense = weights(net.module)
    prune(net, Prune(0.8, rounds=4, retrain=RETRAIN), Context(data))
    first_cuts = 0
    for name, weight in weights(net.module).items():
        cut = np.abs(dense[name]) < 0.2 * population_deviation(dense[name])
        first_cuts += int(cut.sum())
        assert not weight[cut].any()
    assert first_cuts > 10


def test_pruning_again_starts_from_what_is_left() -> None:
    net = network()
    prune(net, Prune(0.3), Context())
    first = weights(net.module)
    prune(net, Prune(1.0), Context())
    for name, weight in weights(net.module).items():
        threshold = population_deviation(first[name])
        np.testing.assert_array_equal(
            weight, np.where(np.abs(first[name]) >= threshold, first[name], 0)
        )


def test_a_vanishing_layer_ends_the_stage_and_is_named() -> None:
    with pytest.raises(StageError, match=r"^conv2 would vanish.*prune sensitivity"):
        prune(network(), Prune("0.1,conv2=50"), Context())


def test_weights_that_are_nan_end_the_stage() -> None:
    net = network()
    with torch.no_grad():
        net.module.get_parameter("conv2.weight")[0, 0, 0, 0] = torch.nan
    with pytest.raises(StageError, match="conv2 has weights that are NaN"):
        prune(net, Prune(0.1), Context())


def test_a_rule_for_no_layer_ends_the_stage() -> None:
    with pytest.raises(StageError, match=r"'conv3'.*conv2"):
        prune(network(), Prune("conv3=0.1"), Context())


def test_a_network_without_layers_to_prune() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())
    net = Network(module, torch.zeros(1, 2, 3, 3), "norms", "Sequential")
    with pytest.raises(StageError, match="norms has no convolution or linear layer"):
        prune(net, Prune(), Context())


def test_progress_is_told_round_by_round() -> None:
    from contextlib import contextmanager

    from compressor.progress import Progress, Step

    titles: list[str] = []

    class Listener(Progress):
        @contextmanager
        def task(self, title: str, total: int) -> Iterator[Step]:
            titles.append(title)
            yield lambda note="": None

    prune(
        network(), Prune(0.1, rounds=2, retrain=RETRAIN), Context(toy_data(), progress=Listener())
    )
    assert titles == ["retrain 1/2", "retrain 2/2"]
