"""Layers with several weights: recurrent ones and attention go the way of all others."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import api, artifact
from compressor.layers import (
    bake,
    compressible_layers,
    mask_layer,
    mask_of,
    restore,
    share_layer,
    shared_of,
    single_layers,
)
from compressor.network import Network
from compressor.recipe import Recipe
from compressor.reporting.measure import layer_macs, measure
from compressor.settings import Prune, Share, Training


class Reads(nn.Module):
    """A bidirectional LSTM of two layers, a GRU, attention over what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 7, 2, batch_first=True, bidirectional=True)
        self.one = nn.GRU(14, 8, batch_first=True)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.both(x)[0])[0]
        logits: Tensor = self.head(self.mix(x, x, x, need_weights=False)[0][:, -1])
        return logits


MATRICES = [
    *(
        f"both.weight_{side}_l{at}{way}"
        for at in (0, 1)
        for way in ("", "_reverse")
        for side in ("ih", "hh")
    ),
    "one.weight_ih_l0",
    "one.weight_hh_l0",
    "mix.in_proj_weight",
]


@pytest.fixture
def net() -> Reads:
    torch.manual_seed(0)
    return Reads().eval()


def test_every_matrix_is_a_layer_by_its_own_name(net: Reads) -> None:
    layers = compressible_layers(net)
    assert list(layers) == [*MATRICES, "mix.out_proj", "head"]
    for name, layer in layers.items():
        assert layer.tensor in net.state_dict()
        assert torch.equal(layer.weight, net.state_dict()[layer.tensor]), name
    assert list(single_layers(net)) == ["mix.out_proj", "head"]


def test_masks_are_what_the_layer_computes_with(net: Reads) -> None:
    """The same outputs as a plain network whose weights were set to zero by hand."""
    x = torch.randn(2, 5, 6)
    by_hand = copy.deepcopy(net)
    for name, layer in compressible_layers(net).items():
        mask = torch.rand(layer.weight.shape) < 0.5
        with torch.no_grad():
            by_hand.state_dict()[compressible_layers(by_hand)[name].tensor].mul_(mask)
        mask_layer(layer, mask)
    torch.testing.assert_close(net(x), by_hand(x))
    # Pruned weights learn nothing, the others do.
    net(x).square().sum().backward()
    for name in MATRICES:
        layer = compressible_layers(net)[name]
        steps = layer.module.parametrizations[layer.leaf]  # type: ignore[index, operator, union-attr]
        mask = mask_of(layer)
        assert mask is not None
        assert not steps.original.grad[~mask].any()
        assert steps.original.grad[mask].any()
    twin = copy.deepcopy(net)
    torch.testing.assert_close(twin(x), net(x))
    saved = net.state_dict()
    bake(net)
    torch.testing.assert_close(net(x), by_hand(x))
    assert set(net.state_dict()) == set(Reads().state_dict())
    assert [type(each) for each in net.modules()] == [type(each) for each in Reads().modules()]
    fresh = Reads().eval()
    restore(fresh, saved)
    torch.testing.assert_close(fresh(x), by_hand(x))
    fresh.both.flatten_parameters()
    torch.testing.assert_close(fresh(x), by_hand(x))


def test_shared_values_are_what_the_layer_computes_with(net: Reads) -> None:
    x = torch.randn(2, 5, 6)
    codebook = torch.tensor([-0.5, 0.25, 0.5])
    for layer in compressible_layers(net).values():
        share_layer(layer, torch.randint(0, 4, layer.weight.shape), codebook)
    table = torch.cat([torch.zeros(1), codebook])
    by_hand = Reads().eval()
    for name, layer in compressible_layers(net).items():
        found = shared_of(layer)
        assert found is not None
        with torch.no_grad():
            own = by_hand.state_dict()
            own[layer.tensor].copy_(table[torch.from_numpy(found[0])])
            for key, value in net.state_dict().items():
                if "bias" in key:
                    own[key].copy_(value)
        assert name in compressible_layers(by_hand)
    torch.testing.assert_close(net(x), by_hand(x))


def test_multiply_adds_of_recurrent_layers(net: Reads) -> None:
    """Each matrix meets every step of the sequence once: its size times the length."""
    macs = layer_macs(net, torch.zeros(1, 5, 6))
    for name in MATRICES[:-1]:
        assert macs[name] == 5 * compressible_layers(net)[name].weight.numel()


def test_the_whole_way(net: Reads, tmp_path: Path) -> None:
    once = Training(epochs=0)
    recipe = Recipe(
        prune=Prune(sparsity=0.5, retrain=once), share=Share(bits=3, finetune=once), threads=1
    )
    dense = {name: value.clone() for name, value in net.state_dict().items()}
    result = api.compress(net, recipe, input_shape=(5, 6), output=tmp_path / "out")
    state = result.module.state_dict()
    decoded = artifact.decode(result.artifact).tensors()
    for name in MATRICES:
        weight = state[name]
        assert int((weight == 0).sum()) == round(weight.numel() / 2)
        assert len(torch.unique(weight[weight != 0])) <= 8
        np.testing.assert_array_equal(decoded[name], weight.numpy())
        # What stayed are the larger half, near what they were.
        kept = weight != 0
        assert dense[name].abs()[kept].min() >= dense[name].abs()[~kept].max()
        assert (weight - dense[name])[kept].abs().max() < dense[name].abs().max() / 2
    size = measure(
        Network(result.module, torch.zeros(1, 5, 6), "n", "n"),
        {"": 0} | dict.fromkeys(compressible_layers(net), 0),
    )
    assert size.sparsity == pytest.approx(0.5, abs=0.01)
