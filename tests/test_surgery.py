"""Optimal Brain Surgeon for channels: against brute force and against least squares by hand."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.channels.cost import Macs
from compressor.channels.dependencies import Dependencies
from compressor.channels.importance import importance
from compressor.channels.moments import DAMPING, measure
from compressor.channels.removal import remove
from compressor.channels.surgery import reconstruct, scores
from compressor.errors import StageError


def network(seed: int = 0) -> nn.Sequential:
    """Two convolutions with biases, a linear layer on what is flattened: (B, 3, 6, 6) -> (B, 4)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 4),
    ).eval()  # fmt: skip


def images(count: int = 40) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 6, 6, generator=generator)
    return [(x, torch.zeros(count, dtype=torch.int64))]


def read_by_linear(module: nn.Sequential) -> Tensor:
    """What the linear layer reads of all images, (N, 24) float64."""
    with torch.no_grad():
        return module[:-1](images()[0][0]).double()


def test_moments_are_the_damped_covariance_of_what_is_read() -> None:
    module = network()
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    reader = measure(dependencies, module, images())["5"]
    x = read_by_linear(module)
    expected = np.cov(x.numpy().T, bias=True)
    expected += DAMPING * np.trace(expected) / 24 * np.eye(24)
    np.testing.assert_allclose(reader.moments[0].numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reader.mean.numpy(), x.mean(0).numpy(), rtol=1e-5, atol=1e-7)


def test_reconstruction_is_the_least_squares_fit_of_weights_and_bias() -> None:
    module = network()
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    readers = measure(dependencies, module, images())
    group = next(group for group in dependencies.groups if group.name == "2")
    keep = dependencies.keep(group.classes[[1, 4]])
    small = network()
    remove(small, keep)
    assert reconstruct(small, keep, {"5": readers["5"]}) == ["5"]

    x = read_by_linear(module)
    left = torch.from_numpy(keep["5.weight", 1])
    y = x @ module[5].weight.detach().double().T
    centred, part = y - y.mean(0), x[:, left] - x[:, left].mean(0)
    # Ridge regression towards the old weights, solved as one stacked least squares problem.
    ridge = float(DAMPING * x.var(0, correction=0).mean() * len(x)) ** 0.5
    old = module[5].weight.detach().double()[:, left]
    stacked = torch.cat([part, ridge * torch.eye(part.shape[1], dtype=torch.float64)])
    target = torch.cat([centred, ridge * old.T])
    fitted = torch.linalg.lstsq(stacked, target).solution.T
    np.testing.assert_allclose(small[5].weight.detach().numpy(), fitted.numpy(), atol=1e-4)
    bias = module[5].bias.detach().double() + y.mean(0) - fitted @ x[:, left].mean(0)
    np.testing.assert_allclose(small[5].bias.detach().numpy(), bias.numpy(), atol=1e-4)


def test_the_scores_of_all_removed_sum_to_the_error_that_is_left() -> None:
    """The last layer's outputs are the network's: their change can be computed outright."""
    module = network()
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    readers = {"5": measure(dependencies, module, images())["5"]}
    found = scores(dependencies, readers)
    group = next(group for group in dependencies.groups if group.name == "2")
    own = found[group.classes]
    assert np.isfinite(own).all()
    assert (own > 0).all()
    reader = readers["5"]

    def error(removed: tuple[int, ...]) -> float:
        """What is left of the layer's error, by the Schur complement of the moments."""
        gone = torch.from_numpy(np.isin(reader.classes, group.classes[list(removed)]))
        moments, weight = reader.moments[0], reader.weight
        fit = torch.linalg.solve(moments[~gone][:, ~gone], moments[~gone][:, gone])
        rest = moments[gone][:, gone] - moments[gone][:, ~gone] @ fit
        per_row = ((weight[:, gone] @ rest) * weight[:, gone]).sum(1)
        return float((per_row * reader.importance).sum())

    order = np.argsort(own)
    assert own[order[0]] == pytest.approx(min(error((i,)) for i in range(6)), rel=1e-6)
    assert own[order[:2]].sum() == pytest.approx(error(tuple(order[:2])), rel=1e-6)
    best = min(error(pair) for pair in itertools.combinations(range(6), 2))
    assert own[order[:2]].sum() <= 1.2 * best  # greedy, and near the best pair here


def test_a_channel_that_repeats_another_costs_next_to_nothing() -> None:
    module = network()
    with torch.no_grad():
        module[2].weight[3] = module[2].weight[0]
        module[2].bias[3] = module[2].bias[0]
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    group = next(group for group in dependencies.groups if group.name == "2")
    own = scores(dependencies, measure(dependencies, module, images()))[group.classes]
    assert int(np.argmin(own)) in (0, 3)
    assert own.min() < 0.1 * np.median(own)


def test_importance_of_a_row_is_its_outputs_own_variance_share() -> None:
    """Logits less their mean: an error e in one of n changes their sum of squares by e^2 (n-1)/n,
    which random signs meet on average."""
    module = network()
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    many = images(4000)
    reader = measure(dependencies, module, many)["5"]
    np.testing.assert_allclose(reader.importance.numpy(), 3 / 4, rtol=0.1)


def test_blocks_share_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that is cut into blocks, across classes, is scored and fitted block by block."""
    monkeypatch.setattr("compressor.channels.moments.BLOCK", 10)
    module = network()
    dependencies = Dependencies(module, torch.zeros(1, 3, 6, 6))
    readers = measure(dependencies, module, images())
    assert [len(each) for each in readers["5"].moments] == [10, 10, 4]
    assert np.isfinite(scores(dependencies, readers)[dependencies.groups[1].classes]).all()
    keep = dependencies.keep(dependencies.groups[1].classes[[0, 5]])
    small = network()
    remove(small, keep)
    reconstruct(small, keep, readers)
    with torch.no_grad():
        assert torch.isfinite(small(images()[0][0])).all()


def test_macs_of_a_class_are_what_goes_with_it() -> None:
    dependencies = Dependencies(network(), torch.zeros(1, 3, 6, 6))
    macs = Macs(dependencies)
    shares = macs.of_classes()
    for group in dependencies.groups:
        for one in group.classes:
            assert shares[one] == pytest.approx(1 - macs.left(np.array([one])), rel=1e-9)


def test_obs_without_data_says_what_to_give() -> None:
    module = network()
    with pytest.raises(StageError, match="--criterion l2"):
        importance(Dependencies(module, torch.zeros(1, 3, 6, 6)), module, "obs")
