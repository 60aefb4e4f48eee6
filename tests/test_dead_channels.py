"""Dead channels: what counts as dead, that nothing changes without them, and runs that do it."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import artifact, loading, pipeline, runtime_files
from compressor.channels import Kept, remove_dead
from compressor.channels import dead as dead_channels
from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer, mask_of, share_layer, shared_of
from compressor.network import Network
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.settings import Channels, Encode, Prune, Share
from tests.conftest import timed


def network(module: nn.Module, *shape: int) -> Network:
    return Network(module.eval(), torch.zeros(1, *shape), "net", "net")


def widths(module: nn.Module) -> dict[str, int]:
    """The output channels of each layer, read off its weight."""
    return {name: len(layer.weight) for name, layer in compressible_layers(module).items()}


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(module).eval().double()(x.double())


def removed_without_change(module: nn.Module, *shape: int) -> dict[str, int]:
    """The widths left, once the outputs were found to be the same on inputs of the test's own.

    What was folded is rounded to float32: a few of its steps relative to the largest output.
    """
    x = torch.randn(16, *shape)
    before, names = outputs(module, x), list(module.state_dict())
    given = network(module, *shape)
    removal = remove_dead(given)
    after = outputs(given.module, x)
    assert (after - before).abs().max() <= 1e-6 * before.abs().max()
    assert list(given.module.state_dict()) == names
    assert (removal is None) == (given.module is module)
    return widths(given.module)


def silence(layer: Any, *outputs: int, value: float = 0.0) -> None:
    """Channels that a layer makes without a look at its input."""
    with torch.no_grad():
        layer.weight[list(outputs)] = 0.0
        if layer.bias is not None:
            layer.bias[list(outputs)] = value


def deafen(layer: Any, *inputs: int) -> None:
    """Channels that a layer does not look at."""
    with torch.no_grad():
        layer.weight[:, list(inputs)] = 0.0


# ---- what is dead --------------------------------------------------------------------------------


def test_a_unit_that_nobody_reads_goes() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    deafen(module[2], 1, 5)
    assert removed_without_change(module, 6) == {"0": 6, "2": 4}


def test_what_only_a_dead_unit_read_goes_with_it() -> None:
    """Backward, over two layers: unit 0 of the second goes, then 3 of the first."""
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4))
    deafen(module[4], 0)
    with torch.no_grad():
        module[2].weight[1:, 3] = 0.0
    assert removed_without_change(module, 6) == {"0": 7, "2": 4, "4": 4}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.Hardswish()])
def test_a_constant_goes_into_the_readers_bias(activation: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 4))
    silence(module[0], 2, 3, value=1.5)
    given = network(copy.deepcopy(module), 6)
    remove_dead(given)
    constant = activation(torch.tensor(1.5)).item()
    expected = module[2].bias + constant * (module[2].weight[:, 2] + module[2].weight[:, 3])
    torch.testing.assert_close(given.module.get_submodule("2").bias, expected)
    assert removed_without_change(module, 6) == {"0": 6, "2": 4}


def test_constants_go_forward_until_nothing_changes() -> None:
    """Unit 0 of the second layer reads only a constant, so it is one itself."""
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 4))
    silence(module[0], 7, value=2.0)
    with torch.no_grad():
        module[2].weight[0, :7] = 0.0
    assert removed_without_change(module, 6) == {"0": 7, "2": 4, "4": 4}


def test_a_constant_behind_a_padded_convolution_stays_unless_it_is_zero() -> None:
    """At the edges the reader sees less of it: no bias can stand for that."""

    def module(padding: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=padding), nn.Flatten()
        )

    constant, negative = module(1), module(1)
    silence(constant[0], 2, value=1.0)
    silence(negative[0], 2, value=-1.0)  # the ReLU makes it zero
    without = module(0)
    silence(without[0], 2, value=1.0)
    assert removed_without_change(constant, 1, 8, 8)["0"] == 6
    assert removed_without_change(negative, 1, 8, 8)["0"] == 5
    assert removed_without_change(without, 1, 8, 8)["0"] == 5


def test_a_padded_constant_that_differs_at_the_edges_is_not_one_value() -> None:
    """The second convolution makes a constant map, but not a flat one; flattened, every entry of it
    is a constant for the linear layer's bias."""
    module = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3), nn.Flatten()
    )
    silence(module[0], 1, value=1.0)
    with torch.no_grad():
        module[1].weight[2, [0, 2]] = 0.0
    assert removed_without_change(module, 1, 8, 8) == {"0": 3, "1": 4, "2": 5}
    flat = nn.Sequential(*module[:2], nn.Flatten(), nn.Linear(4 * 64, 5))
    assert removed_without_change(flat, 1, 8, 8) == {"0": 3, "1": 3, "3": 5}


def test_a_batch_norms_scale_of_zero_and_its_mean() -> None:
    """The scale hides what comes in; the next norm's mean takes what no bias can."""
    module = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten()),
    )
    for norm in (module[1], module[4]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.bias)
    with torch.no_grad():
        module[1].weight[[0, 4]] = 0.0
        module[1].bias[[0, 4]] = torch.tensor([0.7, -0.7])
    expected = module[4].running_mean - 0.7 * module[3].weight[:, 0].sum((1, 2))
    given = network(copy.deepcopy(module), 2, 8, 8)
    remove_dead(given)
    torch.testing.assert_close(given.module.get_submodule("4").running_mean, expected)
    assert removed_without_change(module, 2, 8, 8) == {"0": 4, "3": 5}


def test_without_a_bias_a_constant_stays() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))
    silence(module[0], 0, value=1.0)
    silence(module[0], 1)
    assert removed_without_change(module, 6) == {"0": 7, "2": 4}


def test_pools_keep_constants() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(6, 4)
    )
    silence(module[0], 1, 2, value=3.0)
    assert removed_without_change(module, 1, 8, 8) == {"0": 4, "4": 4}


class Wired(nn.Module):
    """Two convolutions side by side, joined in one of several ways, and two readers."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 6, 3), nn.Conv2d(2, 6, 3)
        self.join = join
        self.left, self.right = nn.Conv2d(width, 4, 3), nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.join(self.one(x), self.two(x)).relu()
        return self.left(y).flatten(1).sum(1) + self.right(y).flatten(1).sum(1)


def _sum(one: Tensor, two: Tensor) -> Tensor:
    return one + two


def _concatenation(one: Tensor, two: Tensor) -> Tensor:
    return torch.cat([one, two], 1)


def _product(one: Tensor, two: Tensor) -> Tensor:
    return one * two.mean((2, 3), keepdim=True)


def test_in_a_sum_both_parts_must_be_constant() -> None:
    module = Wired(_sum, 6)
    silence(module.one, 0, 1, value=0.5)
    silence(module.two, 1, value=0.25)
    found = removed_without_change(module, 2, 8, 8)
    assert (found["one"], found["two"]) == (5, 5)


def test_a_channel_of_a_sum_needs_no_reader_to_be_deaf_but_all() -> None:
    module = Wired(_sum, 6)
    deafen(module.left, 0, 1)
    deafen(module.right, 1, 2)
    found = removed_without_change(module, 2, 8, 8)
    assert (found["one"], found["two"]) == (5, 5)


def test_each_part_of_a_concatenation_is_on_its_own() -> None:
    module = Wired(_concatenation, 12)
    silence(module.one, 0, value=0.5)
    silence(module.two, 1, 2, value=0.5)
    deafen(module.left, 5, 6)
    deafen(module.right, 5)
    found = removed_without_change(module, 2, 8, 8)
    assert (found["one"], found["two"]) == (4, 4)  # 0 and 5; 1 and 2, not 0, which right reads


def test_zero_times_anything_is_zero_but_a_constant_is_not() -> None:
    module = Wired(_product, 6)
    silence(module.one, 0)
    silence(module.two, 1)
    silence(module.two, 2, value=1.0)
    found = removed_without_change(module, 2, 8, 8)
    assert (found["one"], found["two"]) == (4, 4)


def test_a_residual_stream_that_only_its_own_blocks_read() -> None:
    """A cycle of channels that nothing outside reads is dead as a whole."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(6, 8)
            self.up, self.down = nn.Linear(8, 5), nn.Linear(5, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            y = y + self.down(self.up(y).relu())
            return self.head(y)

    module = Residual()
    deafen(module.head, 2)  # up reads it, for the sake of all other channels
    with torch.no_grad():
        module.up.weight[1:, 2] = 0.0  # but unit 0 alone
        module.down.weight[[0, 1, 3, 4, 5, 6, 7], 0] = 0.0  # which writes to 2 alone
    assert removed_without_change(module, 6) == {"stem": 7, "up": 4, "down": 7, "head": 3}


def test_depthwise_and_grouped_convolutions() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(2, 9, 3), nn.ReLU(), nn.Conv2d(9, 9, 3, groups=9), nn.ReLU()),
        *(nn.Conv2d(9, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=2), nn.Flatten()),
    )
    silence(module[2], 3, value=1.0)  # what comes before is lost, what goes on is a constant
    deafen(module[4], 5)
    deafen(module[6], 4)  # position 4 of both groups
    found = removed_without_change(module, 2, 10, 10)
    assert found == {"0": 7, "2": 7, "4": 10, "6": 6}


def test_convolutions_of_whole_blocks_keep_whole_blocks() -> None:
    """32 channels are two blocks of 16: 19 live ones need both, 15 one; 12 are no blocks at all."""
    for width, dead, left in ((32, 13, 32), (32, 17, 16), (24, 9, 16), (24, 2, 24), (12, 5, 7)):
        module = nn.Sequential(
            nn.Conv2d(2, width, 3), nn.ReLU(), nn.Conv2d(width, 5, 1), nn.Flatten()
        )
        deafen(module[2], *range(dead))
        assert removed_without_change(module, 2, 6, 6) == {"0": left, "2": 5}


def test_shared_tensors_are_no_place_for_constants() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.again(self.first(x).relu()).relu()))

    module = Twice()
    silence(module.again, 2, value=1.0)
    assert removed_without_change(module, 6)["again"] == 6


def test_one_channel_stays_where_all_are_dead() -> None:
    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) + self.two(self.one(x).relu())

    module = Bypassed()
    silence(module.two, 0, 1, 2, value=0.5)
    assert removed_without_change(module, 6) == {"one": 1, "two": 3, "head": 3}


def test_an_operator_that_is_not_known_keeps_its_channels() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).cumsum(1))

    module = Sorted()
    deafen(module.two, 2)
    silence(module.one, 3)
    assert removed_without_change(module, 6) == {"one": 8, "two": 3}


def test_the_inputs_and_outputs_of_a_network_stay() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    deafen(module[0], 0)
    silence(module[2], 1, value=0.5)
    assert removed_without_change(module, 6) == {"0": 8, "2": 4}


def _random_network(draw: np.random.Generator) -> nn.Module:
    wide = draw.integers(2, 9, 4).tolist()
    activation = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid][draw.integers(4)]
    norm = draw.random() < 0.5

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a, b, c, d = wide
            self.one = nn.Conv2d(2, a, 3, padding=int(draw.integers(2)), bias=not norm)
            self.norm = nn.BatchNorm2d(a) if norm else nn.Identity()
            self.two = nn.Conv2d(a, a, 3, padding=1)
            self.three = nn.Conv2d(a, b, 1)
            self.four = nn.Conv2d(a + b, c, 3)
            self.five = nn.LazyLinear(d)
            self.head = nn.Linear(d, 3)
            self.act = activation()

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.norm(self.one(x)))
            x = x + self.act(self.two(x))
            x = torch.cat([x, self.act(self.three(x))], 1)
            x = nn.functional.max_pool2d(self.act(self.four(x)), 2)
            return self.head(self.act(self.five(x.flatten(1))))

    return Net()


@pytest.mark.parametrize("seed", range(30))
def test_sparse_networks_compute_the_same(seed: int) -> None:
    """Weights pruned at random and by whole channels; most networks must lose something."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    module = _random_network(draw)
    module(torch.zeros(1, 2, 9, 9))
    with torch.no_grad():
        for layer in compressible_layers(module).values():
            weight, bias = layer.module.weight, layer.module.bias
            weight *= torch.rand(weight.shape) < 0.6
            weight[torch.rand(len(weight)) < 0.25] = 0.0
            weight[:, torch.rand(weight.shape[1]) < 0.25] = 0.0
            if bias is not None:
                bias *= torch.rand(len(bias)) < 0.7
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean)
                norm.weight *= torch.rand(len(norm.weight)) < 0.7
                nn.init.normal_(norm.bias)
        module.get_submodule("head").weight[:, 0] = 0.7  # the outputs see something
    before = widths(module)
    after = removed_without_change(module, 2, 9, 9)
    assert all(1 <= after[name] <= before[name] for name in before)
    assert after["head"] == 3
    LOST.append(after != before)
    assert seed < 29 or sum(LOST) >= len(LOST) * 0.8


LOST: list[bool] = []


# ---- masks and codebooks -------------------------------------------------------------------------


def test_masks_and_indices_lose_what_the_weights_lose() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    first, second = compressible_layers(module).values()
    indices = torch.randint(0, 4, (8, 6))
    indices[:, 0], indices[5] = 1, 0
    share_layer(first, indices, torch.tensor([-0.5, 0.25, 0.75]))
    mask = torch.rand(4, 8) < 0.7
    mask[:, 0], mask[:, 2] = True, False
    mask_layer(second, mask)
    given = network(module, 6)
    remove_dead(given)
    left = [0, 1, 3, 4, 6, 7]
    first, second = compressible_layers(given.module).values()
    shared = shared_of(first)
    assert shared is not None
    np.testing.assert_array_equal(shared[0], indices[left])
    np.testing.assert_array_equal(shared[1], np.array([-0.5, 0.25, 0.75], np.float32))
    found = mask_of(second)
    assert found is not None
    assert shared_of(second) is None
    assert torch.equal(found, mask[:, left])


def test_what_cannot_be_proved_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    silence(module[0], 2, value=1.0)
    monkeypatch.setattr(dead_channels, "_move_constants", lambda *_: None)
    given = network(module, 6)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(StageError, match="would change"):
        remove_dead(given)
    assert given.module is module
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# ---- a run ---------------------------------------------------------------------------------------

ARCH = """
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.ReLU(),
        torch.nn.Conv2d(12, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(8 * 16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10),
    )

build.input_shape = (1, 8, 8)
"""
RECIPE = Recipe(
    channels=Channels(ratio="0.25", round=4, recalibrate=0),
    prune=Prune(0.6),
    share=Share("4bit"),
    threads=1,
)
GONE = [1, 2, 7]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of 24 units that weigh much, but are read with less than pruning's threshold."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "arch.py").write_text(ARCH)
    scope: dict[str, Any] = {}
    exec(ARCH, scope)
    torch.manual_seed(0)
    module = scope["build"]()
    with torch.no_grad():
        module[6].weight[GONE] *= 3.0
        module[8].weight[:, GONE] *= 0.01
    torch.save(module.state_dict(), folder / "net.pt")
    return folder / "net.pt"


@pytest.fixture
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(models: dict[str, bytes], shape: tuple[int, ...], **_: Any) -> dict[str, Any]:
        return timed(**dict.fromkeys(models, 1.0))

    monkeypatch.setattr(runtime_files, "latency", measured)


def run_of(checkpoint: Path, folder: Path, recipe: Recipe = RECIPE) -> pipeline.Run:
    arch = f"{checkpoint.parent / 'arch.py'}:build"
    return pipeline.Run(loading.load(checkpoint, arch=arch), recipe, None, folder, Progress())


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("net.dcz", "net.onnx")}


def test_a_run_removes_them_and_its_files_load(
    checkpoint: Path, tmp_path: Path, quick_latency: None
) -> None:
    report = run_of(checkpoint, tmp_path / "out").execute()
    stages = report["stages"]
    rows = {row["layer"]: row for row in stages["dead"]["removed"]}
    earlier = {row["group"]: row["after"] for row in stages["channels"]["groups"]}
    assert rows["6"]["before"] == earlier["6"]
    assert rows["6"]["after"] < rows["6"]["before"]
    assert stages["encode"]["macs"] < stages["channels"]["macs"] < stages["dense"]["macs"]

    decoded = artifact.read(tmp_path / "out" / "net.dcz")
    shapes = {name: value.shape for name, value in decoded.tensors().items()}
    assert shapes["6.weight"][0] == shapes["8.weight"][1] == rows["6"]["after"]
    kept = Kept.from_json(decoded.metadata["channels"])
    assert len(kept.layers["6.weight", 0]) == rows["6"]["after"]
    assert kept.layers["6.weight", 0].max() < 24  # counted in the original network

    arch = f"{checkpoint.parent / 'arch.py'}:build"
    module = compressor.load(tmp_path / "out" / "net.dcz", arch=arch)
    x = torch.randn(4, 1, 8, 8)
    session = onnxruntime.InferenceSession((tmp_path / "out" / "net.onnx").read_bytes())
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-4, atol=1e-6)


def test_it_is_lossless_beside_a_run_without_it(
    checkpoint: Path, tmp_path: Path, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored with float32 vectors, since a folded bias is rounded like any other."""
    recipe = dataclasses.replace(
        RECIPE, encode=dataclasses.replace(RECIPE.encode, width="fp32"), channels=None
    )
    run_of(checkpoint, tmp_path / "with", recipe).execute()
    monkeypatch.setattr(pipeline, "remove_dead", lambda _: None)
    run_of(checkpoint, tmp_path / "without", recipe).execute()
    arch = f"{checkpoint.parent / 'arch.py'}:build"
    small, large = (
        compressor.load(tmp_path / each / "net.dcz", arch=arch) for each in ("with", "without")
    )
    assert widths(small)["6"] < widths(large)["6"] == 24
    x = torch.randn(8, 1, 8, 8)
    expected = outputs(large, x)
    assert (outputs(small, x) - expected).abs().max() <= 1e-6 * expected.abs().max()


class Killed(BaseException):
    """Stands for a process that is gone."""


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run leaves that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run_of(checkpoint, folder).execute()
    return written(folder)


def owner_of(step: str) -> Any:
    if step == "remove_dead":
        return pipeline
    return runtime_files.RuntimeFiles if step == "write" else pipeline.Run


@pytest.mark.parametrize("at", ["remove_dead", "_encode", "write", "_report"])
def test_a_run_that_was_killed_resumes_to_the_same_bytes(
    at: str,
    checkpoint: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    quick_latency: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner_of(at), at, stop)
        with pytest.raises(Killed):
            run_of(checkpoint, tmp_path / "out").execute()
    run_of(checkpoint, tmp_path / "out").execute(resume=True)
    assert written(tmp_path / "out") == whole


ORDERED = dataclasses.replace(RECIPE, encode=Encode(width="fp32", order=True))


def test_in_order_the_network_computes_the_same_and_its_file_tells_first_channels(
    checkpoint: Path, tmp_path: Path, quick_latency: None
) -> None:
    given = dataclasses.replace(RECIPE, encode=Encode(width="fp32"))
    run_of(checkpoint, tmp_path / "given", given).execute()
    run_of(checkpoint, tmp_path / "ordered", ORDERED).execute()
    files = [tmp_path / each / "net.dcz" for each in ("given", "ordered")]
    kept = [Kept.from_json(artifact.read(file).metadata["channels"]) for file in files]
    for axis, indices in kept[1].layers.items():
        assert list(indices) == list(range(len(kept[0].layers[axis])))
    arch = f"{checkpoint.parent / 'arch.py'}:build"
    plain, ordered = (compressor.load(file, arch=arch) for file in files)
    used = (compressible_layers(ordered)["6"].weight != 0).sum(1).tolist()
    assert used == sorted(used, reverse=True)
    assert used != (compressible_layers(plain)["6"].weight != 0).sum(1).tolist()
    x = torch.randn(8, 1, 8, 8)
    expected = outputs(plain, x)
    assert (outputs(ordered, x) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["_order", "_encode", "write"])
def test_an_ordered_run_that_was_killed_resumes_to_the_same_bytes(
    at: str, checkpoint: Path, tmp_path: Path, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(checkpoint, tmp_path / "whole", ORDERED).execute()

    def stop(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner_of(at), at, stop)
        with pytest.raises(Killed):
            run_of(checkpoint, tmp_path / "out", ORDERED).execute()
    run_of(checkpoint, tmp_path / "out", ORDERED).execute(resume=True)
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_the_result_of_a_finished_run_has_its_widths(checkpoint: Path, tmp_path: Path) -> None:
    def call() -> compressor.Result:
        return compressor.compress(checkpoint, recipe, output=tmp_path / "out", resume=True)

    recipe = dataclasses.replace(RECIPE, arch=f"{checkpoint.parent / 'arch.py'}:build")
    first, again = call(), call()
    assert again.artifact == first.artifact
    assert widths(again.module) == widths(first.module)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(outputs(again.module, x), outputs(first.module, x))
