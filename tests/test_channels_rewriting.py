"""A rewritten network is an ordinary module: it trains, saves, copies, exports, takes stages."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.channels.cutting import Kept, cut
from compressor.channels.dependencies import Dependencies
from compressor.channels.rewriting import GraphNetwork
from compressor.export import graph, onnx, verify
from compressor.layers import compressible_layers, mask_layer, share_layer
from compressor.storage import plain_state


class Split(nn.Module):
    """Its ``forward`` names widths, so that the class cannot run with fewer channels."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU())
        self.one, self.two = nn.Conv2d(8, 16, 1), nn.Conv2d(32, 16, 1)
        self.norm, self.drop = nn.BatchNorm2d(16), nn.Dropout(dropout)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        few, many = self.stem(x).split([8, 32], 1)
        x = functional.relu(self.norm(self.one(few) + self.two(many)))
        return self.head(self.drop(x.mean((2, 3))))


EXAMPLE = torch.zeros(1, 3, 8, 8)


def halved(module: nn.Module) -> tuple[GraphNetwork, Kept]:
    dependencies = Dependencies(module, EXAMPLE)
    removed = np.concatenate([group.classes[::2] for group in dependencies.groups])
    made = cut(module, EXAMPLE, dependencies, removed)
    assert isinstance(made.module, GraphNetwork)
    assert made.rewritten
    assert made.why
    return made.module, Kept.of(dependencies, removed, rewritten=True)


@pytest.fixture
def network() -> GraphNetwork:
    return halved(Split().eval())[0]


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8)


def test_names_are_the_originals_and_shapes_are_smaller(network):
    original = Split().state_dict()
    state = network.state_dict()
    assert list(state) == list(original)
    assert state["stem.0.weight"].shape == (20, 3, 3, 3)
    assert state["one.weight"].shape == (8, 4, 1, 1)
    assert state["two.weight"].shape == (8, 16, 1, 1)
    assert [name for name, _ in network.named_parameters()] == [
        name for name, _ in Split().named_parameters()
    ]


def test_batch_norm_follows_the_training_flag(network):
    x = images()
    before = network.norm.running_mean.clone()
    network.eval()
    network(x)
    assert torch.equal(network.norm.running_mean, before)
    network.train()
    network(x)
    assert not torch.equal(network.norm.running_mean, before)
    with torch.no_grad():
        few, many = functional.relu(network.stem[1](network.stem[0](x))).split([4, 16], 1)
        mean = (network.one(few) + network.two(many)).mean((0, 2, 3))
    assert torch.allclose(network.norm.running_mean, 0.9 * before + 0.1 * mean, atol=1e-6)


def test_one_norm_can_be_held_in_evaluation(network):
    network.train()
    network.norm.eval()
    norm, stem = network.norm.running_mean.clone(), network.stem[1].running_mean.clone()
    network(images())
    assert torch.equal(network.norm.running_mean, norm)
    assert not torch.equal(network.stem[1].running_mean, stem)


def test_dropout_follows_the_training_flag(network):
    x = images()
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    for each in (network.norm, network.stem):
        each.eval()
    assert not torch.equal(network(x), network(x))


def test_in_training_it_computes_what_the_class_does(network):
    """The same norms over the batch: the class with widths 4 and 16 is the network by hand."""
    network = halved(Split(dropout=0.0).eval())[0].train()
    x = images()
    few, many = network.stem(x).split([4, 16], 1)
    expected = functional.relu(network.norm(network.one(few) + network.two(many))).mean((2, 3))
    assert torch.allclose(network(x), network.head(expected), atol=1e-6)


def test_gradients_reach_every_parameter_and_it_learns():
    network = halved(Split(dropout=0.0).eval())[0].train()
    y = torch.arange(20) % 5
    x = 0.1 * images(20) + torch.randn(5, 3, 1, 1)[y]  # a colour for each class
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None for each in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_copy_computes_the_same_and_is_its_own(network):
    network.eval()
    x = images()
    other = copy.deepcopy(network)
    assert torch.equal(other(x), network(x))
    with torch.no_grad():
        other.head.bias.add_(1.0)
    assert torch.allclose(other(x), network(x) + 1.0, atol=1e-6)
    assert isinstance(other, GraphNetwork)


def test_masks_apply(network):
    layer = compressible_layers(network)["two"]
    mask = torch.rand(layer.weight.shape) < 0.5
    network.eval()
    dense = copy.deepcopy(network)
    with torch.no_grad():
        dense.two.weight.mul_(mask)
    mask_layer(layer, mask)
    x = images()
    assert torch.allclose(network(x), dense(x), atol=1e-6)
    network(x).square().sum().backward()
    trained = network.two.parametrizations.weight.original
    assert (trained.grad[~mask] == 0).all()
    assert (trained.grad[mask] != 0).any()


def test_shared_weights_apply(network):
    layer = compressible_layers(network)["one"]
    codebook = torch.tensor([-0.5, 0.25, 1.0])
    indices = torch.randint(0, 4, layer.weight.shape)
    network.eval()
    dense = copy.deepcopy(network)
    with torch.no_grad():
        dense.one.weight.copy_(torch.cat([torch.zeros(1), codebook])[indices])
    share_layer(layer, indices, codebook)
    x = images()
    assert torch.allclose(network(x), dense(x), atol=1e-6)
    network(x).square().sum().backward()
    (trained,) = [p for name, p in network.named_parameters() if name.startswith("one.param")]
    assert trained.shape == (3,)
    assert (trained.grad != 0).all()


def test_it_is_exported_with_a_free_batch(network):
    network.eval()
    model = onnx.build(graph.trace(network, EXAMPLE, 18), plain_state(network), {})
    for count in (1, 5):
        assert verify.compare(model, network, images(count)).relative < 1e-5


def test_it_can_be_cut_again(network):
    before = network.state_dict()["two.weight"].shape
    again, _ = halved(network.eval())
    assert again.state_dict()["two.weight"].shape == (before[0] // 2, before[1] // 2, 1, 1)
    assert list(again.state_dict()) == list(Split().state_dict())


def test_the_same_cut_is_repeated_on_a_fresh_network():
    network, kept = halved(Split().eval())
    fresh = Kept.from_json(kept.to_json()).apply(Split().eval(), EXAMPLE)
    fresh.load_state_dict(network.state_dict())
    x = images()
    assert torch.equal(fresh.eval()(x), network.eval()(x))
