"""Batch norms recalibrated: the formula, however norms are called, and nothing else changed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError, UsageError
from compressor.layers import batch_norms, compressible_layers, mask_layer
from compressor.network import Context
from compressor.training import recalibration
from compressor.training.data import Data, Split
from compressor.training.recalibration import recalibrate

Array = NDArray[np.float64]


def noise(images: int = 60, augment: str = "none") -> Data:
    """Images 2 x 6 x 6 whose brightness differs from image to image; two classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(images, 2, 6, 6, generator=generator)
    x = x * (1 + torch.arange(images).view(-1, 1, 1, 1) / images) + 0.3
    split = Split(x, torch.arange(images) % 2)
    return Data("noise", split, split, split, 2, (0.1, 0.2), (0.9, 1.1), augment, 0.0, "")


class Plain(nn.Module):
    """Two convolutions, each with a norm; a dropout, and a norm that nothing runs."""

    def __init__(self, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(5, momentum=momentum), nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 2)
        self.unused = nn.BatchNorm1d(3)
        with torch.no_grad():
            for norm in (self.bn1, self.bn2):
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.fc(self.bn2(self.conv2(x)).flatten(1)))


def rewritten(call: Callable[..., Tensor]) -> type[Plain]:
    """The same network as code would be generated: norms' tensors are read, nothing is called."""

    class Rewritten(Plain):
        def norm(self, x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
            return call(
                x, bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.training, 0.3, bn.eps
            )

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.conv1(x), self.bn1))
            return cast(Tensor, self.fc(self.norm(self.conv2(x), self.bn2).flatten(1)))

    return Rewritten


def by_function(
    x: Tensor, mean: Any, var: Any, w: Any, b: Any, train: bool, *rest: float
) -> Tensor:
    momentum, eps = rest
    return functional.batch_norm(x, mean, var, w, b, train, momentum=momentum, eps=eps)


def by_operator(
    x: Tensor, mean: Any, var: Any, w: Any, b: Any, train: bool, *rest: float
) -> Tensor:
    return cast(Tensor, torch.ops.aten.batch_norm.default(x, w, b, mean, var, train, *rest, False))


def made(kind: Callable[[], nn.Module] = Plain) -> nn.Module:
    torch.manual_seed(2)
    return kind()


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], *, but: str = "-") -> bool:
    return all(torch.equal(v, other[n]) for n, v in one.items() if but not in n)


# ---- the formula -------------------------------------------------------------------------------


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and unbiased variance of each channel of (N, C, H, W)."""
    flat = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    mean = flat.sum(1) / flat.shape[1]
    return mean, ((flat - mean[:, None]) ** 2).sum(1) / (flat.shape[1] - 1)


def convolved(x: Array, conv: nn.Conv2d) -> Array:
    """A 3 x 3 convolution in float64, without padding."""
    weight = conv.weight.detach().double().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    bias = cast(Tensor, conv.bias).detach().double().numpy()
    out = np.einsum("nchwij,ocij->nohw", windows, weight)
    return cast(Array, out + bias[:, None, None])


def normalised(x: Array, norm: nn.BatchNorm2d) -> Array:
    """As in training: by the batch's own biased moments."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    weight, bias = (p.detach().double().numpy()[:, None, None] for p in norm.parameters())
    return cast(Array, (x - mean) / np.sqrt(variance + norm.eps) * weight + bias)


@pytest.mark.parametrize(
    "kind",
    [
        Plain,
        lambda: Plain(momentum=None),
        lambda: Plain(momentum=0.003),
        rewritten(by_function),
        rewritten(by_operator),
    ],
    ids=["modules", "cumulative", "slow", "functions", "operators"],
)
@pytest.mark.parametrize("most", [100, 20, 8], ids=lambda most: f"batches of {most}")
def test_statistics_are_those_of_all_activations_at_once(
    kind: Callable[[], Plain], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against NumPy, which keeps all activations; only norms in between see single batches."""
    monkeypatch.setattr(recalibration, "BATCH", most)
    data, module = noise(), made(kind)
    assert isinstance(module, Plain)
    assert recalibrate(module, data, Context(data, seed=3), images=60) == ["bn1", "bn2"]

    generator = torch.Generator().manual_seed(3)
    chosen = torch.randperm(60, generator=generator)
    images = data.train.x[chosen].double().numpy()
    steps = -(-60 // most)
    size = 60 // steps
    order = torch.randperm(steps * size, generator=generator).numpy()
    mean, std = np.array(data.mean)[:, None, None], np.array(data.std)[:, None, None]
    first = convolved((images[order] - mean) / std, module.conv1)
    parts = [normalised(first[i : i + size], module.bn1) for i in range(0, steps * size, size)]
    second = convolved(np.maximum(np.concatenate(parts), 0), module.conv2)
    for norm, inputs in ((module.bn1, first), (module.bn2, second)):
        for found, expected in zip(
            (norm.running_mean, norm.running_var), moments(inputs), strict=True
        ):
            np.testing.assert_allclose(cast(Tensor, found).numpy(), expected, rtol=2e-5, atol=2e-6)


def test_the_variance_is_of_the_whole_and_not_the_mean_of_the_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of two: their own variances say little of how bright images differ."""
    monkeypatch.setattr(recalibration, "BATCH", 2)
    x = torch.arange(8.0).view(8, 1, 1, 1)
    split = Split(x, torch.arange(8) % 2)
    data = Data("ramp", split, split, split, 2, (0.0,), (1.0,), "none", 0.0, "")
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    recalibrate(module, data, Context(data))
    norm = batch_norms(module)["0"]
    assert float(cast(Tensor, norm.running_mean)) == 3.5
    assert float(cast(Tensor, norm.running_var)) == 6.0  # n (n + 1) / 12 for 0 .. n - 1


def test_a_norm_that_runs_twice_gets_the_statistics_of_both_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.bn(x) + self.bn(3 * x + 1))

    data, module = noise(), Twice()
    recalibrate(module, data, Context(data))
    mean, std = np.array(data.mean)[:, None, None], np.array(data.std)[:, None, None]
    x = (data.train.x.double().numpy() - mean) / std
    for found, expected in zip(
        (module.bn.running_mean, module.bn.running_var),
        moments(np.concatenate([x, 3 * x + 1])),
        strict=True,
    ):
        np.testing.assert_allclose(cast(Tensor, found).numpy(), expected, rtol=1e-5)


def test_a_network_that_was_not_touched_keeps_its_outputs() -> None:
    """Norms that had the statistics of these very images: recalibrating them changes nothing."""
    data = noise(80)
    module = made().eval()
    recalibrate(module, data, Context(data))
    before = module(data.train.x)
    recalibrate(module, data, Context(data))
    assert torch.equal(module(data.train.x), before)


def test_linear_networks_norms_and_masked_layers() -> None:
    data = noise()
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    layer = compressible_layers(module)["1"]
    mask_layer(layer, torch.arange(4 * 72).view(4, 72) % 3 == 0)
    assert recalibrate(module, data, Context(data)) == ["2"]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    inputs = ((data.train.x - mean) / std).flatten(1) @ layer.weight.T + module[1].bias
    norm = batch_norms(module)["2"]
    torch.testing.assert_close(norm.running_mean, inputs.mean(0).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inputs.var(0).detach(), rtol=1e-4, atol=1e-5)


# ---- which images ------------------------------------------------------------------------------


def statistics(data: Data, seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    module = made()
    recalibrate(module, data, Context(data, seed=seed), **settings)
    return {n: v for n, v in state_of(module).items() if "running" in n}


def test_images_follow_the_seed_alone() -> None:
    data = noise(300)
    first = statistics(data, images=50)
    torch.manual_seed(99)
    assert same(first, statistics(data, images=50))
    assert not same(first, statistics(data, images=50, seed=1), but="unused")
    assert not same(first, statistics(data, images=60), but="unused")


def test_images_are_augmented_as_in_training() -> None:
    own = noise(100, augment="flip-crop")
    assert same(statistics(own), statistics(noise(100), augment="flip-crop"))
    assert same(statistics(own, augment="none"), statistics(noise(100)))
    assert not same(statistics(own), statistics(noise(100)), but="unused")


@pytest.mark.parametrize(
    ("images", "most", "batches"),
    [(7, 3, [2, 2, 2]), (9, 4, [3, 3, 3]), (5, 5, [5]), (8, 5, [4, 4])],
)
def test_batches_are_equal(
    images: int, most: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalibration, "BATCH", most)
    seen: list[int] = []
    module = nn.Sequential(nn.BatchNorm2d(2))
    module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    recalibrate(module, noise(), Context(), images=images)
    assert seen == batches


# ---- what stays as it was ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Plain, rewritten(by_function)])
def test_weights_modes_and_counters_stay(kind: Callable[[], Plain]) -> None:
    module = made(kind)
    module.train()
    module.get_submodule("bn2").eval()
    module.get_submodule("drop").eval()
    before, modes = state_of(module), {n: m.training for n, m in module.named_modules()}
    momenta = {n: norm.momentum for n, norm in batch_norms(module).items()}
    recalibrate(module, noise(), Context())
    after = state_of(module)
    assert {n for n, v in before.items() if not torch.equal(v, after[n])} == {
        f"{norm}.running_{moment}" for norm in ("bn1", "bn2") for moment in ("mean", "var")
    }
    assert {n: m.training for n, m in module.named_modules()} == modes
    assert {n: norm.momentum for n, norm in batch_norms(module).items()} == momenta
    assert all(parameter.grad is None for parameter in module.parameters())


def test_dropout_stays_out_of_it() -> None:
    """Also one that a norm holds itself, as those of some image models do."""

    class Fused(nn.BatchNorm2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.drop = nn.Dropout(0.9)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.drop(super().forward(x)))

    states = []
    for noisy in (True, False):
        module = nn.Sequential(Fused(2), nn.Dropout(0.9 if noisy else 0), nn.BatchNorm2d(2))
        if not noisy:
            module[0].drop.p = 0.0
        recalibrate(module.train(), noise(), Context())
        states.append(state_of(module))
    assert same(*states)


def test_everything_is_put_back_when_the_network_raises() -> None:
    class Broken(Plain):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            self.calls += 1
            if self.calls == 2:
                raise ValueError("at the second batch")
            return out

    module = made(Broken).train()
    before = state_of(module)
    with pytest.raises(ValueError, match="at the second batch"):
        recalibrate(module, noise(250), Context())
    assert same(before, state_of(module))
    assert all(child.training for child in module.modules())


def test_a_network_without_norms_is_not_run() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("run")

    assert recalibrate(Silent(), noise(), Context()) == []


def test_norms_without_statistics_have_none_afterwards() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2))
    assert recalibrate(module, noise(), Context()) == ["1"]
    assert batch_norms(module)["0"].running_mean is None


def test_what_cannot_be() -> None:
    data = noise()
    with pytest.raises(StageError, match="on 1 images"):
        recalibrate(made(), data, Context(), images=1)
    few = replace(data, train=data.train.take(torch.arange(1)))
    with pytest.raises(StageError, match="on 1 images"):
        recalibrate(made(), few, Context())
    module = made().train()
    before = state_of(module)
    with pytest.raises(UsageError, match="mixup"):
        recalibrate(module, data, Context(), augment="mixup")
    assert same(before, state_of(module))
    assert module.training


def test_pruned_channels_are_made_up_for() -> None:
    """After channels are cut, the next norm's old statistics are wrong; these are right."""
    data = noise(400)
    whole = made().eval()
    recalibrate(whole, data, Context(data))
    cut = copy.deepcopy(whole)
    with torch.no_grad():
        cut.get_parameter("conv2.weight")[:, :3] = 0  # as if bn1's first channels were gone
    outputs = cut.get_submodule("bn2")
    inputs: list[Tensor] = []
    cut.requires_grad_(False)
    outputs.register_forward_hook(lambda _, __, out: inputs.append(out))
    for settled in (False, True):
        if settled:
            recalibrate(cut, data, Context(data))
        inputs.clear()
        cut((data.train.x - torch.tensor([[[0.1]], [[0.2]]])) / torch.tensor([[[0.9]], [[1.1]]]))
        norm = batch_norms(cut)["bn2"]
        scaled = (inputs[0] - norm.bias.view(-1, 1, 1)) / norm.weight.view(-1, 1, 1)
        away = float((scaled.var((0, 2, 3)) - 1).abs().max())
        assert (away < 0.05) is settled
