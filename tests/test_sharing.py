"""The sharing stage: codebooks of the right size, zeros that stay, centroids that learn."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError, UsageError
from compressor.layers import compressible_layers, mask_of, shared_of
from compressor.network import Context, Network
from compressor.parametrizations import Nearest
from compressor.pruning import prune
from compressor.quantization import share
from compressor.settings import INITS, Prune, Share, Training
from compressor.training.data import Data, Split
from compressor.training.fit import fit

Floats = NDArray[np.float32]
STILL = Training(epochs=0)
FINETUNE = Training(epochs=8, lr=3e-3, optimizer="adam", weight_decay=0.0, batch_size=16)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(8 * 36, 40)
        self.fc2 = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu().flatten(1)
        logits: Tensor = self.fc2(self.fc1(x).relu())
        return logits


def network(pruned: float | None = 0.5) -> Network:
    net = Network(Small(), torch.zeros(1, 1, 8, 8), "small", "Small")
    if pruned is not None:
        prune(net, Prune(pruned), Context())
    return net


def toy_data() -> Data:
    """Three classes, told apart by where the image is bright."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(96) % 3
    x = torch.randn(96, 1, 8, 8, generator=generator)
    for label in range(3):
        x[y == label, :, 2 * label : 2 * label + 3] += 0.7
    train, rest = Split(x[:64], y[:64]), Split(x[64:], y[64:])
    return Data("toy", train, rest, rest, 3, (0.0,), (1.0,), "none", 0.0, "")


def weights(module: nn.Module) -> dict[str, Floats]:
    return {n: layer.weight.numpy().copy() for n, layer in compressible_layers(module).items()}


def assignments(module: nn.Module) -> dict[str, NDArray[np.int32]]:
    pairs = {n: shared_of(layer) for n, layer in compressible_layers(module).items()}
    return {name: pair[0].copy() for name, pair in pairs.items() if pair is not None}


def loss(module: nn.Module, data: Data) -> float:
    module.eval()
    with torch.no_grad():
        return float(functional.cross_entropy(module(data.train.x), data.train.y))


@pytest.mark.parametrize("finetune", [STILL, FINETUNE], ids=["before", "after fine-tuning"])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("bits", [1, 3, 5])
def test_no_more_values_than_the_codebook_holds(bits: int, init: str, finetune: Training) -> None:
    net = network()
    before = weights(net.module)
    share(net, Share(bits, init, finetune), Context(toy_data()))  # type: ignore[arg-type]
    for name, weight in weights(net.module).items():
        values = np.unique(weight[weight != 0])
        assert 1 < len(values) <= 2**bits
        np.testing.assert_array_equal(weight == 0, before[name] == 0)


def test_layers_have_codebooks_of_their_own_width() -> None:
    net = network()
    report = share(net, Share("conv=2bit,fc=4bit,fc2=1bit", "linear", STILL), Context())
    rows = {row["layer"]: row for row in report.layers}
    assert {name: row["bits"] for name, row in rows.items()} == {"conv": 2, "fc1": 4, "fc2": 1}
    for name, weight in weights(net.module).items():
        assert rows[name]["centroids"] == len(np.unique(weight[weight != 0]))
        assert rows[name]["centroids"] <= 2 ** rows[name]["bits"]
    assert report.history == []


def test_codebooks_of_any_size() -> None:
    net = network()
    settings = Share("conv=2bit,fc=4bit", finetune=STILL, centroids="fc1=5,fc2=3")
    rows = {row["layer"]: row for row in share(net, settings, Context()).layers}
    for name, size in (("conv", 4), ("fc1", 5), ("fc2", 3)):
        weight = compressible_layers(net.module)[name].weight.numpy()
        assert len(np.unique(weight[weight != 0])) == rows[name]["centroids"] == size


@pytest.mark.parametrize("size", [-1, 65537, 2.5, "few"])
def test_a_codebook_of_another_size_is_refused(size: object) -> None:
    with pytest.raises(UsageError, match=r"share\.centroids"):
        Share(centroids=size)  # type: ignore[arg-type]


def test_behind_shared_values_weights_train_on() -> None:
    """They may change centroids, none comes back from zero, and the loss is lower than without."""
    losses, labels = [], []
    for train in (STILL, FINETUNE):
        torch.manual_seed(1)
        net = network()
        zero = {name: weight == 0 for name, weight in weights(net.module).items()}
        share(net, Share(centroids=3, finetune=STILL, train=train), Context(toy_data()))
        for name, weight in weights(net.module).items():
            np.testing.assert_array_equal(weight == 0, zero[name])
            assert len(np.unique(weight[weight != 0])) <= 3
        losses.append(loss(net.module, toy_data()))
        labels.append(assignments(net.module))
    assert losses[1] < losses[0]
    assert any((labels[0][name] != labels[1][name]).any() for name in labels[0])


def test_the_values_behind_are_moved_by_one_lloyd_step() -> None:
    weight = torch.tensor([[0.1, 0.3, 0.9], [1.1, 5.0, -2.0]])
    mask = torch.tensor([[True, True, True], [True, False, True]])
    nearest = Nearest(mask, torch.tensor([0.0, 1.0]))
    behind = weight.clone().requires_grad_()
    found = nearest(behind)
    # -2, 0.1 and 0.3 go to the lower entry, 0.9 and 1.1 to the upper; entries become their means,
    # -0.5333 and 1, and then 0.3 is nearer to 1: half-way is 0.2333.
    low = np.float32((-2 + 0.1 + 0.3) / 3)
    expected = np.array([[low, 1.0, 1.0], [1.0, 0.0, low]])
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)
    (found * torch.arange(6.0).view(2, 3)).sum().backward()
    assert behind.grad is not None
    np.testing.assert_array_equal(behind.grad.numpy(), [[0, 1, 2], [3, 0, 5]])
    before = nearest.codebook.clone()
    nearest.eval()(weight)
    assert torch.equal(nearest.codebook, before)


def test_every_weight_gets_its_nearest_centroid_and_the_error_is_reported() -> None:
    net = network()
    before = weights(net.module)
    report = share(net, Share(3, "linear", STILL), Context())
    for row in report.layers:
        dense, layer = before[row["layer"]], compressible_layers(net.module)[row["layer"]]
        pair = shared_of(layer)
        assert pair is not None
        kept = dense != 0
        distances = np.abs(dense[kept][:, None].astype(np.float64) - pair[1][None])
        found = layer.weight.numpy()[kept]
        np.testing.assert_array_equal(
            np.abs(dense[kept].astype(np.float64) - found), distances.min(1)
        )
        error = np.sqrt(np.mean((dense[kept].astype(np.float64) - found) ** 2))
        assert row["rms_error"] == pytest.approx(error, rel=1e-9)


def test_few_distinct_weights_are_kept_exactly() -> None:
    net = network(None)
    with torch.no_grad():
        weight = net.module.get_parameter("fc2.weight")
        weight.copy_(torch.tensor([-0.5, 0.0, 0.25])[torch.arange(120).view(3, 40) % 3])
    before = weights(net.module)["fc2"]
    report = share(net, Share("fc2=4bit", "linear", STILL), Context())
    np.testing.assert_array_equal(weights(net.module)["fc2"], before)
    assert report.layers[0]["centroids"] == 2
    assert report.layers[0]["rms_error"] == 0.0


def test_layers_without_a_rule_are_left_as_they_are() -> None:
    net = network()
    before = weights(net.module)
    share(net, Share("fc1=2bit", "linear", STILL), Context())
    for name in ("conv", "fc2"):
        layer = compressible_layers(net.module)[name]
        assert shared_of(layer) is None
        assert mask_of(layer) is not None, "the mask of the earlier stage stays on"
        np.testing.assert_array_equal(layer.weight.numpy(), before[name])


def test_fine_tuning_changes_codebooks_and_not_assignments() -> None:
    still, tuned = network(), network()
    tuned.module.load_state_dict(still.module.state_dict())
    share(still, Share(3, "linear", STILL), Context())
    report = share(tuned, Share(3, "linear", FINETUNE), Context(toy_data()))
    assert len(report.history) == FINETUNE.epochs
    expected = assignments(still.module)
    assert expected.keys() == {"conv", "fc1", "fc2"}
    for name, indices in assignments(tuned.module).items():
        np.testing.assert_array_equal(indices, expected[name])
        layers = compressible_layers(tuned.module)[name], compressible_layers(still.module)[name]
        moved, start = (shared_of(layer) for layer in layers)
        assert moved is not None
        assert start is not None
        assert (moved[1] != start[1]).all()


def test_fine_tuning_trains_biases_and_norms_too() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.module.named_parameters()}
    share(net, Share(3, "linear", FINETUNE), Context(toy_data()))
    for name in ("conv.bias", "norm.weight", "norm.bias", "fc1.bias", "fc2.bias"):
        assert not torch.equal(net.module.get_parameter(name), before[name])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_fine_tuning_lowers_the_loss(optimizer: str) -> None:
    data = toy_data()
    still, tuned = network(None), network(None)
    fit(still.module, Training(epochs=10, lr=0.02, batch_size=16), Context(data), "train")
    tuned.module.load_state_dict(still.module.state_dict())
    trained = loss(still.module, data)
    rate = 3e-3 if optimizer == "adam" else 3e-4
    settings = Training(epochs=20, lr=rate, optimizer=optimizer, weight_decay=0.0, batch_size=16)
    share(still, Share(1, "linear", STILL), Context())
    share(tuned, Share(1, "linear", settings), Context(data))
    shared, recovered = loss(still.module, data), loss(tuned.module, data)
    assert shared > 2 * trained, "one bit a weight costs something"
    assert recovered < 0.5 * shared


def test_random_starts_follow_the_seed() -> None:
    books = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        net = network(None)
        with torch.no_grad():
            weight = net.module.get_parameter("fc1.weight")
            weight.copy_(torch.randn_like(weight) ** 5)  # long tails: many local optima
        share(net, Share("fc1=4bit", "random", STILL), Context(seed=seed))
        pair = shared_of(compressible_layers(net.module)["fc1"])
        assert pair is not None
        books.append(pair[1])
    np.testing.assert_array_equal(books[0], books[1])
    assert not np.array_equal(books[0], books[2])


def test_a_layer_of_zeros_is_refused_by_name() -> None:
    net = network(None)
    with torch.no_grad():
        net.module.get_parameter("fc1.weight").zero_()
    with pytest.raises(StageError, match="fc1 has no weight other than zero"):
        share(net, Share(5, "linear", STILL), Context())


def test_weights_that_are_nan_are_refused() -> None:
    net = network(None)
    with torch.no_grad():
        net.module.get_parameter("fc1.weight")[0, 0] = torch.nan
    with pytest.raises(StageError, match="NaN"):
        share(net, Share(5, "linear", STILL), Context())


def test_a_rule_for_no_layer_is_refused() -> None:
    with pytest.raises(StageError, match=r"'fc3'.*fc2"):
        share(network(), Share("fc3=5bit", "linear", STILL), Context())


def test_a_network_without_layers_to_share() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())
    net = Network(module, torch.zeros(1, 2, 3, 3), "norms", "Sequential")
    with pytest.raises(StageError, match="norms has no convolution or linear layer"):
        share(net, Share(), Context())
