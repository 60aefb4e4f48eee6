"""Hidden units in another order: nothing changes by it, and dense rows come first."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import artifact
from compressor.channels import Kept, order_channels
from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer, mask_of, share_layer, shared_of
from compressor.models import get
from compressor.network import Network
from compressor.storage import plain_state, stored_tensors


def sparse(module: nn.Module, *shape: int, shared: bool = False) -> Network:
    """Masks of a density that differs from unit to unit; every second layer's weights shared."""
    torch.manual_seed(0)
    net = Network(module.eval(), torch.zeros(1, *shape), "net", "net")
    for number, layer in enumerate(compressible_layers(module).values()):
        weight = layer.weight
        density = torch.rand(len(weight)).view(-1, *[1] * (weight.ndim - 1))
        mask = torch.rand(weight.shape) < density
        if shared and number % 2:
            indices = torch.where(mask, torch.randint(1, 6, weight.shape), 0)
            share_layer(layer, indices, torch.randn(5))
        else:
            mask_layer(layer, mask)
    return net


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(module).eval().double()(x.double())


def counts(module: nn.Module, name: str) -> list[int]:
    weight = compressible_layers(module)[name].weight
    return (weight != 0).flatten(1).sum(1).tolist()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("arch", ["lenet-300-100", "lenet5", "resnet20"])
def test_outputs_stay_and_dense_units_come_first(arch: str, shared: bool) -> None:
    entry = get(arch)
    net = sparse(entry.build(), *entry.input_shape, shared=shared)
    x = torch.randn(3, *entry.input_shape)
    before = outputs(net.module, x)
    kinds = {
        n: (mask_of(each) is None, shared_of(each) is None)
        for n, each in compressible_layers(net.module).items()
    }
    report = order_channels(net)
    after = outputs(net.module, x)
    assert (after - before).abs().max() <= 1e-10 * before.abs().max()
    assert report["ordered"]
    for name in report["ordered"]:
        if arch != "resnet20" or name.endswith(".0.conv1"):  # a sum joins others' channels
            found = counts(net.module, name)
            assert found == sorted(found, reverse=True)
    for name, each in compressible_layers(net.module).items():
        assert kinds[name] == (mask_of(each) is None, shared_of(each) is None)


def test_a_mask_goes_with_its_weights() -> None:
    net = sparse(get("lenet5").build(), 1, 28, 28)
    order_channels(net)
    for layer in compressible_layers(net.module).values():
        mask = mask_of(layer)
        assert mask is not None
        assert torch.equal(layer.weight != 0, mask)
        assert not mask.all()


def test_the_multisets_of_rows_stay() -> None:
    module = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    net = sparse(module, 6)
    before = plain_state(copy.deepcopy(module))
    order_channels(net)
    after = plain_state(net.module)
    places = [np.flatnonzero((before["0.weight"] == row).all(1))[0] for row in after["0.weight"]]
    rows = {tuple(row) for row in before["0.weight"]}
    assert {tuple(row) for row in after["0.weight"]} == rows
    if len(rows) == 9:
        np.testing.assert_array_equal(after["0.bias"], before["0.bias"][places])
        np.testing.assert_array_equal(after["2.weight"], before["2.weight"][:, places])
    np.testing.assert_array_equal(after["2.bias"], before["2.bias"])


def test_a_network_that_cannot_be_followed_stays() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return self.fc(x)
            return self.fc(x) + 1

    net = sparse(Counting(), 4)
    before = plain_state(copy.deepcopy(net.module))
    with pytest.raises(StageError):
        order_channels(net)
    for name, value in plain_state(net.module).items():
        np.testing.assert_array_equal(value, before[name])


def test_units_in_order_take_fewer_bytes() -> None:
    net = sparse(get("lenet-300-100").build(), 1, 28, 28, shared=True)
    before = len(artifact.encode(stored_tensors(net, "fp16"), profile="best"))
    order_channels(net)
    assert len(artifact.encode(stored_tensors(net, "fp16"), profile="best")) < before


def test_the_first_channels_stand_for_those_that_are_left() -> None:
    kept = Kept({("fc1.weight", 0): np.array([1, 4, 7]), ("fc2.weight", 0): np.array([3])}, False)
    first = kept.leading()
    assert {axis: list(each) for axis, each in first.layers.items()} == {
        ("fc1.weight", 0): [0, 1, 2],
        ("fc2.weight", 0): [0],
    }
    shapes = []
    for each in (kept, first):
        cut = each.apply(get("lenet-300-100").build().eval(), torch.zeros(1, 1, 28, 28))
        shapes.append([tuple(value.shape) for value in cut.state_dict().values()])
    assert shapes[0] == shapes[1]
