"""Network slimming: the subgradient by hand, scales that shrink, and how they are shown."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import preflight
from compressor.errors import StageError, UsageError
from compressor.network import Context, Network
from compressor.recipe import Recipe
from compressor.reporting import scales as reporting
from compressor.settings import Prune, Training
from compressor.training import data as datasets
from compressor.training.data import Data, Split
from compressor.training.fit import fit
from compressor.training.slimming import penalise, scales
from tests.conftest import Compress


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 16),
        nn.BatchNorm1d(16, affine=False),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 10),
    )


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load("digits", input_shape=(1, 8, 8))


def states(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def trained(data: Data, slimming: float) -> dict[str, Tensor]:
    module = network()
    training = Training(epochs=4, lr=0.05, batch_size=64, augment="none", slimming=slimming)
    fit(module, training, Context(data), "train")
    return states(module)


# ---- the penalty -------------------------------------------------------------------------------


def test_the_subgradient_is_lambda_times_the_sign() -> None:
    weight, frozen = torch.tensor([2.0, -0.5, 0.0]), torch.tensor([1.0])
    weight.grad = torch.tensor([1.0, 1.0, 1.0])
    penalise([weight, frozen], 0.25)
    assert weight.grad.tolist() == [1.25, 0.75, 1.0]
    assert frozen.grad is None


def test_one_step_by_hand() -> None:
    """A step of plain descent goes lr * lambda * sign further, on the scales alone."""
    data = datasets.load("digits", input_shape=(1, 8, 8))
    data = Data(**{**vars(data), "train": data.train.take(torch.arange(64))})
    found = []
    for slimming in (0.0, 0.5):
        module = network()
        with torch.no_grad():
            module.get_parameter("1.weight")[::2] *= -1
        training = Training(
            *(1, 0.125), momentum=0, batch_size=64, warmup=0, augment="none", slimming=slimming
        )
        signs = module.get_parameter("1.weight").sign()
        fit(module, training, Context(data), "train")
        found.append(states(module))
    plain, slim = found
    step = 0.125 * 0.5
    torch.testing.assert_close(slim["1.weight"], plain["1.weight"] - step * signs)
    torch.testing.assert_close(slim["7.weight"], plain["7.weight"] - step)
    for name, value in plain.items():
        assert name in ("1.weight", "7.weight") or torch.equal(value, slim[name]), name


def test_scales_shrink_the_more_the_higher_the_price(digits: Data) -> None:
    sums = []
    for slimming in (0.0, 5e-3, 5e-2):
        state = trained(digits, slimming)
        sums.append(float(state["1.weight"].abs().sum() + state["7.weight"].abs().sum()))
    assert sums[0] > sums[1] > sums[2]
    assert sums[2] < 0.5 * sums[0]


def test_without_a_price_nothing_changes_bit_for_bit(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in a training that could not have added a penalty."""
    one = trained(digits, 0.0)
    monkeypatch.setattr("compressor.training.fit.penalise", lambda *_: None)
    other = trained(digits, 0.0)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_frozen_scales_stay(digits: Data) -> None:
    module = network()
    module.get_parameter("1.weight").requires_grad_(False)
    fit(module, Training(epochs=1, batch_size=64, slimming=0.1), Context(digits), "train")
    assert module.get_parameter("1.weight").tolist() == [1.0] * 8


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_prices_that_cannot_be(value: float) -> None:
    with pytest.raises(UsageError, match="slimming"):
        Training(slimming=value)


def test_a_network_without_scales_is_refused_before_anything_runs() -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, affine=False))
    split = Split(torch.randn(20, 1, 8, 8), torch.arange(20) % 10)
    data = Data("x", split, split, split, 10, (0.0,), (1.0,), "none", 0.0, "")
    training = Training(epochs=1, slimming=1e-4)
    before = states(bare)
    with pytest.raises(StageError, match="this network has none"):
        fit(bare, training, Context(data), "train")
    assert all(torch.equal(value, states(bare)[name]) for name, value in before.items())
    recipe = Recipe(prune=Prune(retrain=training))
    bare_network = Network(bare, torch.zeros(1, 1, 8, 8), "bare", "bare")
    with pytest.raises(StageError, match="this network has none"):
        preflight.check(bare_network, recipe, data)


def test_the_training_command_slims(compress: Compress, here: Path) -> None:
    (here / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(288, 10))\n"
        "build.input_shape = (1, 8, 8)\n"
    )
    command = ("train", "net.py:build", "--data", "digits", "--epochs", 3, "--threads", 1, "-q")
    sums = []
    for words in (("-o", "a.pt"), ("-o", "b.pt", "--slimming", "0.02")):
        done = compress(*command, *words)
        assert done.code == 0, done.err
        sums.append(float(torch.load(here / words[1])["1.weight"].abs().sum()))
    assert sums[1] < 0.9 * sums[0]
    refused = compress(*command, "-o", "c.pt", "--slimming", "-1")
    assert refused.code == 2
    assert "--slimming is -1.0" in refused.err


# ---- the scales, shown -------------------------------------------------------------------------


def test_scales_are_absolute_and_by_layer() -> None:
    module = network()
    with torch.no_grad():
        module.get_parameter("1.weight").copy_(torch.arange(-4.0, 4.0))
    found = reporting.scales(module)
    assert list(found) == ["1", "7"]
    assert found["1"].tolist() == [4, 3, 2, 1, 0, 1, 2, 3]
    assert found["7"].tolist() == [1.0] * 8
    assert len(scales(module)) == 2


def test_the_threshold_is_over_all_layers() -> None:
    draw = np.random.default_rng(0)
    found = {"a": draw.random(301).astype(np.float32), "b": draw.random(700).astype(np.float32)}
    values = np.sort(np.concatenate(list(found.values())))
    for fraction in (0.0, 0.5, 0.9, 1.0):
        assert reporting.threshold(found, fraction) == values[round(fraction * 1000)]


def test_a_drawing_is_the_same_for_the_same_scales(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    networks = {
        "λ = 0": {"bn": draw.random(99).astype(np.float32)},
        "λ = 1e-4": {"bn": 0.1 * draw.random(99).astype(np.float32)},
    }
    for name in ("a.svg", "b.svg"):
        reporting.draw(networks, tmp_path / name, fractions=(0.5,))
    first = (tmp_path / "a.svg").read_text()
    assert first == (tmp_path / "b.svg").read_text()
    assert "<svg" in first


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    for empty in ({}, {"λ = 0": {}}):
        with pytest.raises(UsageError, match="no scales to draw"):
            reporting.draw(empty, tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()
