"""Second-order pruning against brute force: quadratic forms, least squares, dense Hessians."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer
from compressor.network import Context
from compressor.pruning import curvature
from compressor.pruning.refit import Moments, refit, solve
from compressor.pruning.second_order import DAMPING, GONE, removal_costs
from compressor.training.data import Data, Split


def curved(seed: int, blocks: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(blocks, 2 * size, size, generator=generator)
    return rows.transpose(1, 2) @ rows / size


def least_loss(hessian: NDArray[np.float64], w: NDArray[np.float64], gone: list[int]) -> float:
    """min d' H d where d takes the weights ``gone`` to zero, by solving for the others."""
    rest = [at for at in range(len(w)) if at not in gone]
    d = np.zeros(len(w))
    d[gone] = -w[gone]
    if rest:
        coupled = hessian[np.ix_(rest, gone)] @ d[gone]
        d[rest] = np.linalg.solve(hessian[np.ix_(rest, rest)], -coupled)
    return float(d @ hessian @ d)


def test_costs_are_the_losses_that_brute_force_finds() -> None:
    size, blocks = 5, 3
    curvature_ = curved(1, blocks, size)
    weights = torch.randn(blocks * size, generator=torch.Generator().manual_seed(2))
    costs = removal_costs(curvature_, weights, torch.ones(blocks * size, dtype=torch.bool))
    ridge = DAMPING * float(torch.diagonal(curvature_, dim1=1, dim2=2).double().mean())
    for block in range(blocks):
        hessian = curvature_[block].double().numpy() + ridge * np.eye(size)
        w = weights.double().numpy()[block * size : (block + 1) * size]
        expected = np.zeros(size)
        gone: list[int] = []
        highest = 0.0
        for _ in range(size):
            losses = {q: least_loss(hessian, w, [*gone, q]) for q in range(size) if q not in gone}
            before = least_loss(hessian, w, gone) if gone else 0.0
            q = min(losses, key=losses.__getitem__)
            highest = max(highest, losses[q] - before)
            expected[q] = highest
            gone.append(q)
        np.testing.assert_allclose(costs[block * size :][:size].numpy(), expected, rtol=1e-8)


def test_of_two_weights_that_stand_in_for_each_other_only_one_is_cheap() -> None:
    rows = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 1] = rows[:, 0]
    costs = removal_costs((rows.T @ rows / 100)[None], torch.ones(4), torch.ones(4).bool())
    twins = costs[:2].sort().values
    assert twins[0] < 0.05
    assert twins[1] > 1, "once one has gone the other does the work of both"


def test_weights_that_have_gone_cost_less_than_any_and_take_no_part() -> None:
    whole = curved(3, 1, 6)
    weights = torch.randn(6, generator=torch.Generator().manual_seed(4))
    kept = torch.tensor([True, False, True, True, False, True])
    costs = removal_costs(whole, weights, kept)
    assert (costs[~kept] == GONE).all()
    assert (costs[kept] >= 0).all()
    other = whole.clone()
    other[0, 1, 0] = other[0, 0, 1] = 0.0  # what a weight that is gone has in common with others
    torch.testing.assert_close(removal_costs(other, weights, kept), costs)


def test_the_last_block_may_be_shorter() -> None:
    blocks = curved(5, 2, 4)
    blocks[1, 3], blocks[1, :, 3] = 0.0, 0.0
    weights = torch.arange(1.0, 8.0)
    costs = removal_costs(blocks, weights, torch.ones(7, dtype=torch.bool))
    assert costs.shape == (7,)
    assert (costs > 0).all()


def test_rows_are_fitted_as_least_squares_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    dense_x = x + 0.3 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
    old = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    kept = torch.rand(4, 6, generator=generator) < 0.5
    kept[3] = False  # a row without a weight
    now = torch.where(kept, old, 0.0)
    moments = Moments((x.T @ x / 200)[None], (dense_x.T @ x / 200)[None], (x[:1], x[:1]))
    found = solve(old[None], now[None], moments)[0]
    ridge = 0.01 * float(torch.diagonal(x.T @ x / 200).mean())
    for row in range(4):
        support = kept[row].nonzero().flatten().numpy()
        design = np.vstack([x.numpy()[:, support] / 200**0.5, ridge**0.5 * np.eye(len(support))])
        pull = ridge**0.5 * now[row].numpy()[support]
        target = np.concatenate([(dense_x @ old[row]).numpy() / 200**0.5, pull])
        expected = np.zeros(6)
        expected[support] = np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-9)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.late = nn.Linear(12, 3)  # defined before what runs before it
        self.fc = nn.Linear(6 * 16, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.max_pool2d(self.conv(x).relu(), 2).flatten(1)
        logits: Tensor = self.late(self.fc(x).relu())
        return logits


def some_data(images: int = 120) -> Data:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(images, 1, 4, 4, generator=generator)
    x = base.repeat_interleave(2, 2).repeat_interleave(2, 3)  # smooth, as images are
    y = torch.arange(images) % 3
    split = Split(x, y)
    return Data("toy", split, split, split, 3, (0.0,), (1.0,), "none", 0.0, "")


def pair(sparsity: float) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    dense, pruned = Small(), Small()
    pruned.load_state_dict(dense.state_dict())
    for layer in compressible_layers(pruned).values():
        mask_layer(layer, layer.weight.abs() > layer.weight.abs().quantile(sparsity))
    return dense, pruned


def change(dense: nn.Module, pruned: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((dense(data.train.x) - pruned(data.train.x)).square().mean())


def test_fitted_layers_compute_what_the_dense_ones_did_and_zeros_stay() -> None:
    data = some_data()
    dense, pruned = pair(0.5)
    zeros = {n: layer.weight == 0 for n, layer in compressible_layers(pruned).items()}
    before = change(dense, pruned, data)
    names = refit(pruned, dense, zeros, Context(data))
    assert names == ["conv", "fc", "late"], "in the order in which they run"
    assert change(dense, pruned, data) < 0.5 * before
    for name, layer in compressible_layers(pruned).items():
        assert torch.equal(layer.weight == 0, zeros[name])


def test_only_the_layers_that_are_wanted_are_fitted() -> None:
    data = some_data()
    dense, pruned = pair(0.5)
    before = {n: layer.weight.clone() for n, layer in compressible_layers(pruned).items()}
    assert refit(pruned, dense, ["fc"], Context(data)) == ["fc"]
    for name, layer in compressible_layers(pruned).items():
        assert torch.equal(layer.weight, before[name]) == (name != "fc")


def test_a_bias_takes_up_what_is_constant() -> None:
    data = some_data()
    dense, pruned = (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
    )
    pruned.load_state_dict(dense.state_dict())
    shifted = Data(
        "toy", Split(data.train.x + 5, data.train.y), *[data.test] * 2, 3, (0.0,), (1.0,), "none",
        0.0, "",
    )  # fmt: skip
    layer = compressible_layers(pruned)["1"]
    mask_layer(layer, torch.zeros(3, 64, dtype=torch.bool))  # nothing but the bias is left
    refit(pruned, dense, ["1"], Context(shifted))
    with torch.no_grad():
        wanted = dense(shifted.train.x).mean(0)
        torch.testing.assert_close(pruned(shifted.train.x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_layers_that_run_twice_are_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.last = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(self.first(x.flatten(1)).relu()))
            return logits

    torch.manual_seed(0)
    dense, pruned = Twice(), Twice()
    pruned.load_state_dict(dense.state_dict())
    assert refit(pruned, dense, ["first", "last"], Context(some_data())) == ["last"]


@pytest.mark.parametrize("entries", [1 << 28, 1])
def test_curvature_is_that_of_the_gradients_of_signed_sums(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "_ENTRIES", entries)  # all layers at once, or one by one
    data = some_data(30)
    context = Context(data, seed=7)
    torch.manual_seed(0)
    module = Small().eval()
    layers = compressible_layers(module)
    found = curvature.scores(module, layers, context)
    signs = torch.Generator().manual_seed(7)
    grads: dict[str, list[Tensor]] = {name: [] for name in layers}
    for x in curvature.images(context, 30, 1):
        draw = torch.randint(0, 2, (1, 3), generator=signs) * 2.0 - 1
        module.zero_grad()
        (draw * (module(x) - module(x).mean())).sum().backward()
        for name in layers:
            grads[name].append(module.get_parameter(f"{name}.weight").grad.flatten().clone())
    for name, layer in layers.items():
        gradients = torch.stack(grads[name]).double()
        count = gradients.shape[1]
        size = curvature.BLOCK
        blocks = [gradients[:, at : at + size] for at in range(0, count, size)]
        fishers = torch.zeros(len(blocks), size, size)
        for fisher, block in zip(fishers, blocks, strict=True):
            width = block.shape[1]
            fisher[:width, :width] = (block.T @ block / len(block)).float()
        flat = layer.weight.flatten()
        expected = removal_costs(fishers, flat, flat != 0).reshape(layer.weight.shape)
        torch.testing.assert_close(found[name], expected, rtol=2e-3, atol=1e-9)


def test_without_data_there_is_nothing_to_measure() -> None:
    module = Small()
    with pytest.raises(StageError, match="needs data"):
        curvature.scores(module, compressible_layers(module), Context())


def test_the_same_seed_gives_the_same_costs() -> None:
    data = some_data(40)
    runs = []
    for seed, _ in itertools.product((1, 2), range(2)):
        torch.manual_seed(0)
        module = Small()
        layers = compressible_layers(module)
        runs.append(curvature.scores(module, layers, Context(data, seed=seed))["fc"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
