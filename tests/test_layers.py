"""Masked and shared layers against dense networks and gradients worked out by hand."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError
from compressor.layers import (
    bake,
    compressible_layers,
    mask_layer,
    mask_of,
    restore,
    share_layer,
    shared_of,
)
from compressor.models import get

Optimizers = Callable[[Any], torch.optim.Optimizer]


class Small(nn.Module):
    """Every kind of layer that can be compressed in 2-D, with batch norm, on (B, 2, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = functional.relu(self.up(functional.relu(self.grouped(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def inputs(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, 8, 8, generator=generator)
    return x, torch.randint(0, 5, (count,), generator=generator)


def random_mask(weight: Tensor) -> Tensor:
    mask = torch.rand(weight.shape) < 0.4
    mask.view(-1)[0] = True
    return mask


def masked(module: nn.Module) -> dict[str, Tensor]:
    """Put a random mask on every layer; the masks."""
    layers = compressible_layers(module)
    masks = {name: random_mask(layer.weight) for name, layer in layers.items()}
    for name, layer in layers.items():
        mask_layer(layer, masks[name])
    return masks


def shared(module: nn.Module, size: int = 4) -> dict[str, tuple[Tensor, Tensor]]:
    """Share every layer's weights at random, a third of them pruned; indices and codebooks."""
    pairs = {}
    for name, layer in compressible_layers(module).items():
        indices = torch.randint(1, size + 1, layer.weight.shape, dtype=torch.int32)
        indices[torch.rand(layer.weight.shape) < 0.3] = 0
        codebook = torch.randn(size) * layer.weight.std()
        pairs[name] = indices, codebook.clone()
        share_layer(layer, indices, codebook)
    return pairs


def looked_up(indices: Tensor, codebook: Tensor) -> Tensor:
    """The dense weight of a shared layer, by NumPy."""
    table = np.concatenate([[np.float32(0)], codebook.numpy()])
    return torch.from_numpy(table[indices.numpy()])


def is_positive_zero(values: Tensor) -> bool:
    return bool((values.contiguous().view(torch.int32) == 0).all())


def train(module: nn.Module, make: Optimizers, steps: int = 1) -> None:
    x, y = inputs()
    optimizer = make(module.parameters())
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    module.eval()


def gradients_of_dense(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the loss by each weight of a plain copy that computes with ``weights``."""
    dense = Small()
    dense.load_state_dict(module.state_dict(), strict=False)
    for name, weight in weights.items():
        dense.get_submodule(name).weight = nn.Parameter(weight.clone())
    x, y = inputs()
    dense.eval()
    functional.cross_entropy(dense(x), y).backward()  # type: ignore[no-untyped-call]
    return {name: dense.get_parameter(f"{name}.weight").grad for name in weights}  # type: ignore[misc]


def original(module: nn.Module, name: str) -> Tensor:
    """What is trained in a layer: the weight under the mask, or the codebook."""
    return module.get_parameter(f"{name}.parametrizations.weight.original")


# ---- which layers ------------------------------------------------------------------------------


def test_layers_come_by_name_and_kind_in_the_networks_order() -> None:
    layers = compressible_layers(Small())
    assert {name: layer.kind for name, layer in layers.items()} == {
        "conv": "conv",
        "grouped": "conv",
        "up": "conv",
        "fc": "fc",
    }
    assert list(layers) == ["conv", "grouped", "up", "fc"]


def test_masked_and_shared_layers_are_still_found() -> None:
    network = Small()
    before = list(compressible_layers(network))
    masked(network)
    assert list(compressible_layers(network)) == before
    shared(network)
    assert list(compressible_layers(network)) == before


def test_a_layer_with_two_names_stands_once_or_under_each() -> None:
    network = Small()
    network.again = network.fc
    assert list(compressible_layers(network)).count("fc") == 1
    assert "again" not in compressible_layers(network)
    assert "again" in compressible_layers(network, every_name=True)


# ---- masks -------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Optimizers] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_stay_plus_zero_whatever_the_optimiser_does(optimizer: str) -> None:
    network = Small()
    # Negative weights under the mask: times 0 they would give -0.
    with torch.no_grad():
        for layer in compressible_layers(network).values():
            layer.weight.abs_().neg_()
    before = {name: layer.weight.clone() for name, layer in compressible_layers(network).items()}
    # Dense training first, so that the optimiser has momentum for what is pruned later.
    x, y = inputs()
    working = OPTIMIZERS[optimizer](network.parameters())
    network.train()
    masks: dict[str, Tensor] = {}
    for step in range(60):
        if step == 10:
            masks = masked(network)
        working.zero_grad()
        functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        working.step()
        for name, mask in masks.items():
            assert is_positive_zero(compressible_layers(network)[name].weight[~mask])
    for name, layer in compressible_layers(network).items():
        kept = masks[name]
        assert not torch.equal(layer.weight[kept], before[name][kept]), "survivors are trained"
        assert (layer.weight[kept] != 0).all()


def test_gradients_are_zero_where_masked_and_the_dense_ones_elsewhere() -> None:
    network = Small().eval()
    dense = {name: layer.weight.clone() for name, layer in compressible_layers(network).items()}
    masks = masked(network)
    expected = gradients_of_dense(network, {n: w * masks[n] for n, w in dense.items()})
    x, y = inputs()
    functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    for name, mask in masks.items():
        found = original(network, name).grad
        assert found is not None
        assert (found[~mask] == 0).all()
        assert torch.equal(found[mask], expected[name][mask])
        assert expected[name][~mask].abs().max() > 0, "the dense gradient is not zero there"


def test_a_mask_hides_what_is_not_a_number() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
        layer.weight[1, 1] = torch.inf
    mask = torch.isfinite(layer.weight.detach())
    mask_layer(compressible_layers(nn.Sequential(layer))["0"], mask)
    layer(torch.ones(1, 3)).sum().backward()
    assert is_positive_zero(layer.weight[~mask])
    grad = layer.get_parameter("parametrizations.weight.original").grad
    assert grad is not None
    assert torch.equal(grad, mask.float())


def test_a_new_mask_takes_the_place_of_the_old() -> None:
    network = Small()
    layer = compressible_layers(network)["fc"]
    dense = layer.weight.clone()
    first = torch.zeros(5, 3, dtype=torch.bool)
    first[:3] = True
    second = torch.zeros(5, 3, dtype=torch.bool)
    second[2:] = True
    mask_layer(layer, first)
    mask_layer(layer, second)
    found = mask_of(layer)
    assert found is not None
    assert torch.equal(found, second)
    # What the first mask cut off has stayed pruned; what the second cut off is gone as well.
    assert torch.equal(layer.weight, dense * (first & second))
    assert len(layer.module.parametrizations.weight) == 1  # type: ignore[union-attr, arg-type]


# ---- shared weights ----------------------------------------------------------------------------


def test_a_shared_weight_is_looked_up_in_the_codebook() -> None:
    network = Small()
    pairs = shared(network)
    for name, layer in compressible_layers(network).items():
        indices, codebook = pairs[name]
        assert torch.equal(layer.weight, looked_up(indices, codebook))
        assert is_positive_zero(layer.weight[indices == 0])
        stored = shared_of(layer)
        assert stored is not None
        assert stored[0].dtype == np.int32
        assert stored[1].dtype == np.float32
        np.testing.assert_array_equal(stored[0], indices.numpy())
        np.testing.assert_array_equal(stored[1], codebook.numpy())
        found = mask_of(layer)
        assert found is not None
        assert torch.equal(found, indices != 0)


def test_a_centroids_gradient_is_the_sum_over_its_cluster() -> None:
    """Deep Compression, section 3.3, equation 3; sums by numpy.bincount in float64."""
    network = Small().eval()
    pairs = shared(network)
    expected = gradients_of_dense(network, {n: looked_up(*pair) for n, pair in pairs.items()})
    x, y = inputs()
    functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    for name, (indices, codebook) in pairs.items():
        dense = expected[name].double().numpy()
        sums = np.bincount(indices.numpy().ravel(), weights=dense.ravel(), minlength=5)
        found = original(network, name).grad
        assert found is not None
        assert found.shape == codebook.shape
        assert abs(sums[0]) > 0, "pruned positions have a dense gradient that must be left out"
        np.testing.assert_allclose(found.numpy(), sums[1:], rtol=1e-5, atol=1e-7)


def test_centroids_without_weights_get_no_gradient() -> None:
    layer = nn.Linear(2, 2)
    indices = torch.tensor([[1, 0], [3, 3]], dtype=torch.int32)
    share_layer(compressible_layers(nn.Sequential(layer))["0"], indices, torch.randn(4))
    layer(torch.tensor([[2.0, 3.0]])).sum().backward()
    # weight[0, 0] sees the input 2; weight[1] sees 2 and 3
    grad = layer.get_parameter("parametrizations.weight.original").grad
    assert grad is not None
    assert grad.tolist() == [2.0, 0.0, 5.0, 0.0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_moves_centroids_only(optimizer: str) -> None:
    network = Small()
    pairs = shared(network)
    train(network, OPTIMIZERS[optimizer], steps=30)
    for name, layer in compressible_layers(network).items():
        indices, codebook = pairs[name]
        stored = shared_of(layer)
        assert stored is not None
        np.testing.assert_array_equal(stored[0], indices.numpy())
        assert not np.array_equal(stored[1], codebook.numpy())
        assert is_positive_zero(layer.weight[indices == 0])
        assert torch.equal(layer.weight, looked_up(indices, torch.from_numpy(stored[1])))


def test_training_leaves_the_callers_codebook_alone() -> None:
    network = Small()
    layer = compressible_layers(network)["fc"]
    codebook = torch.randn(3)
    before = codebook.clone()
    share_layer(layer, torch.ones(5, 3, dtype=torch.int32), codebook)
    train(network, OPTIMIZERS["sgd"])
    assert torch.equal(codebook, before)
    assert not torch.equal(original(network, "fc"), before)


def test_sharing_takes_the_place_of_a_mask_and_of_another_sharing() -> None:
    network = Small()
    masked(network)
    shared(network, 7)
    pairs = shared(network, 3)
    for name, layer in compressible_layers(network).items():
        assert torch.equal(layer.weight, looked_up(*pairs[name]))
    assert original(network, "fc").shape == (3,)
    masks = masked(network)
    for name, layer in compressible_layers(network).items():
        assert shared_of(layer) is None
        assert torch.equal(layer.weight, looked_up(*pairs[name]) * masks[name])


def test_a_dense_layer_has_neither_mask_nor_codebook() -> None:
    layer = compressible_layers(Small())["fc"]
    assert mask_of(layer) is None
    assert shared_of(layer) is None


# ---- all kinds of layers -----------------------------------------------------------------------

KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), (6,)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3), (2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), (2, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (2, 4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (4, 6, 6)),
    "circular": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (2, 6, 6)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 4, 3, stride=2), (2, 5)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 3, 3, 3)),
}


@pytest.mark.parametrize("compress", [masked, shared], ids=["masked", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind: str, compress: Callable[[nn.Module], Any]) -> None:
    """It computes what a plain layer with the same weight computes, and bakes into that layer."""
    make, shape = KINDS[kind]
    network = nn.Sequential(make())
    names = list(network.state_dict())
    held = compress(network)["0"]
    x = torch.randn(2, *shape)
    computed = compressible_layers(network)["0"].weight.clone()
    found = network(x)
    plain = nn.Sequential(make())
    state = {"0.weight": computed}
    if "0.bias" in names:
        state["0.bias"] = network.get_parameter("0.bias").detach()
    plain.load_state_dict(state)
    assert torch.equal(found, plain(x))
    pruned = ~held if isinstance(held, Tensor) else held[0] == 0
    assert is_positive_zero(computed[pruned])
    bake(network)
    assert list(network.state_dict()) == names
    assert torch.equal(network(x), found)


# ---- taking parametrizations off ---------------------------------------------------------------


@pytest.mark.parametrize("compress", [masked, shared], ids=["masked", "shared"])
def test_baking_leaves_a_plain_network_that_computes_the_same(
    compress: Callable[[nn.Module], Any],
) -> None:
    network, plain = Small(), Small()
    compress(network)
    train(network, OPTIMIZERS["sgd"], steps=3)
    x, _ = inputs()
    before = network(x)
    bake(network)
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == list(plain.state_dict())
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in network.named_parameters()] == names
    assert [type(m) for m in network.modules()] == [type(m) for m in plain.modules()]
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in network.parameters())
    plain.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(plain.eval()(x), before)


def test_a_baked_network_trains_densely() -> None:
    network = Small()
    masks = masked(network)
    bake(network)
    train(network, OPTIMIZERS["sgd"], steps=2)
    layer = compressible_layers(network)["conv"]
    assert (layer.weight[~masks["conv"]] != 0).any()


def test_baking_a_plain_network_changes_nothing() -> None:
    network = Small()
    before = copy.deepcopy(network.state_dict())
    bake(network)
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("compress", [masked, shared], ids=["masked", "shared"])
def test_deep_copies_live_apart(compress: Callable[[nn.Module], Any]) -> None:
    network = Small()
    compress(network)
    network.eval()
    twin = copy.deepcopy(network)
    x, _ = inputs()
    before = network(x)
    assert torch.equal(twin(x), before)
    train(network, OPTIMIZERS["sgd"], steps=2)
    assert not torch.equal(network(x), before)
    assert torch.equal(twin(x), before)
    bake(network)
    assert torch.equal(twin(x), before), "taking one apart must not take the other apart"
    assert mask_of(compressible_layers(twin)["fc"]) is not None
    bake(twin)
    assert torch.equal(twin(x), before)


# ---- saving and restoring ----------------------------------------------------------------------


def resnet20() -> nn.Module:
    return get("resnet20").build()


def lenet5() -> nn.Module:
    return get("lenet5").build()


def half_and_half(module: nn.Module) -> None:
    """Some layers dense, some masked, some shared."""
    for number, layer in enumerate(compressible_layers(module).values()):
        if number % 3 == 1:
            mask_layer(layer, random_mask(layer.weight))
        elif number % 3 == 2:
            indices = torch.randint(0, 5, layer.weight.shape, dtype=torch.int32)
            share_layer(layer, indices, torch.randn(4))


@pytest.mark.parametrize("compress", [masked, shared, half_and_half])
@pytest.mark.parametrize(
    ("build", "shape"),
    [(Small, (2, 8, 8)), (lenet5, (1, 28, 28)), (resnet20, (3, 32, 32))],
)
def test_a_saved_state_is_restored_bit_for_bit(
    build: Callable[[], nn.Module], shape: tuple[int, ...], compress: Callable[[nn.Module], Any]
) -> None:
    network = build()
    compress(network)
    x = torch.randn(3, *shape)
    network.train()
    network(x).square().sum().backward()  # the norms' statistics move
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    other = build()
    restore(other, state)
    found = other.state_dict()
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert torch.equal(network.eval()(x), other.eval()(x))
    for name, layer in compressible_layers(other).items():
        assert (shared_of(layer) is None) == (shared_of(compressible_layers(network)[name]) is None)


def test_training_goes_on_alike_after_restoring() -> None:
    network, other = Small(), Small()
    half_and_half(network)
    restore(other, {name: value.clone() for name, value in network.state_dict().items()})
    for one in (network, other):
        train(one, OPTIMIZERS["sgd"], steps=5)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_restoring_a_layer_that_has_two_names() -> None:
    def build() -> nn.Module:
        network = Small()
        network.again = network.fc
        return network

    network, other = build(), build()
    shared(network)
    restore(other, network.state_dict())
    x, _ = inputs()
    assert torch.equal(other.eval()(x), network.eval()(x))


@pytest.mark.parametrize("compress", [lambda module: None, masked, shared])
@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Sequential(nn.Linear(3, 5)),  # other names
        lambda: nn.ModuleDict({"fc": nn.Linear(3, 5)}),  # fewer layers
        lambda: nn.ModuleDict({**dict(Small().named_children()), "fc": nn.Linear(3, 6)}),  # shapes
        lambda: nn.ModuleDict({**dict(Small().named_children()), "more": nn.Linear(3, 6)}),
    ],
    ids=["names", "fewer", "shapes", "more"],
)
def test_the_state_of_another_network_is_refused(
    other: Callable[[], nn.Module], compress: Callable[[nn.Module], Any]
) -> None:
    network = Small()
    compress(network)
    with pytest.raises(StageError, match="does not fit this network"):
        restore(other(), network.state_dict())
