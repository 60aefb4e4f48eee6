"""Architectures against the arithmetic of their papers, and the registry that finds them."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.errors import LoadError, UsageError
from compressor.models import ARCHITECTURES, Architecture, get, names, recognise
from compressor.models import registry as registry_module
from compressor.models.resnet_thin import Block

SHARED = Path(__file__).parents[2] / "shared"
Shapes = dict[str, tuple[int, ...]]


def conv(c_in: int, c_out: int, kernel: int, bias: bool = False) -> int:
    return c_out * (c_in * kernel * kernel + bias)


def linear(c_in: int, c_out: int) -> int:
    return c_out * (c_in + 1)


def norm(channels: int) -> int:
    return 2 * channels


def vgg_parameters() -> int:
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    return linear(512, 10) + sum(conv(a, b, 3) + norm(b) for a, b in pairwise(widths))


def deep_parameters(bottleneck: bool, kernel: int, classes: int, shortcut_norm: bool) -> int:
    """He et al. 2016, table 1: depths 2-2-2-2 (basic) or 3-4-6-3 (bottleneck)."""
    total, c_in = conv(3, 64, kernel) + norm(64), 64
    depths = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)
    for depth, width in zip(depths, (64, 128, 256, 512), strict=True):
        c_out = 4 * width if bottleneck else width
        for _ in range(depth):
            if bottleneck:
                total += conv(c_in, width, 1) + conv(width, width, 3) + conv(width, c_out, 1)
                total += 2 * norm(width) + norm(c_out)
            else:
                total += conv(c_in, width, 3) + conv(width, width, 3) + 2 * norm(width)
            if c_in != c_out:
                total += conv(c_in, c_out, 1) + (norm(c_out) if shortcut_norm else 0)
            c_in = c_out
    return total + linear(c_in, classes)


def thin_parameters(blocks: int) -> int:
    """Section 4.2: 6n + 2 layers, no parameters in shortcuts."""
    total, c_in = conv(3, 16, 3) + norm(16), 16
    for width in (16, 32, 64):
        for _ in range(blocks):
            total += conv(c_in, width, 3) + conv(width, width, 3) + 2 * norm(width)
            c_in = width
    return total + linear(64, 10)


PARAMETERS = {
    "lenet-300-100": (linear(784, 300) + linear(300, 100) + linear(100, 10), 266_610),
    "lenet5": (
        conv(1, 20, 5, True) + conv(20, 50, 5, True) + linear(800, 500) + linear(500, 10),
        431_080,
    ),
    "lenet5-small": (
        conv(1, 6, 5, True)
        + conv(6, 16, 5, True)
        + linear(16 * 4 * 4, 120)
        + linear(120, 1024)
        + linear(1024, 10),
        167_566,
    ),
    "vgg-cifar": (vgg_parameters(), 9_228_362),
    "resnet18": (deep_parameters(False, 7, 1000, True), 11_689_512),
    "resnet50": (deep_parameters(True, 7, 1000, True), 25_557_032),
    "resnet18-cifar": (deep_parameters(False, 3, 10, True), 11_173_962),
    "resnet50-cifar": (deep_parameters(True, 3, 10, False), 23_513_162),
    "resnet20": (thin_parameters(3), 269_722),
    "resnet32": (thin_parameters(5), 464_154),
    "resnet44": (thin_parameters(7), 658_586),
    "resnet56": (thin_parameters(9), 853_018),
}


def meta(name: str, classes: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return get(name).build(classes)


def shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def macs(name: str) -> int:
    with FlopCounterMode(display=False) as counter:
        meta(name).eval()(torch.zeros(1, *get(name).input_shape, device="meta"))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    formula, published = PARAMETERS[name]
    assert sum(p.numel() for p in meta(name).parameters()) == formula == published


def test_every_architecture_is_tested() -> None:
    assert list(PARAMETERS) == names()


def test_lenet_macs() -> None:
    assert macs("lenet-300-100") == 784 * 300 + 300 * 100 + 100 * 10
    convolutions = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25
    assert macs("lenet5") == convolutions + 800 * 500 + 500 * 10


def test_vgg_macs() -> None:
    widths, sizes = [3, 64, 128, 256, 256, 512, 512, 512, 512], [32, 32, 16, 16, 8, 8, 4, 4]
    layers = zip(pairwise(widths), sizes, strict=True)
    formula = sum(9 * a * b * size * size for (a, b), size in layers)
    assert macs("vgg-cifar") == formula + 512 * 10
    assert round(macs("vgg-cifar") / 1e6) == 606


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_thin_macs(name: str, blocks: int) -> None:
    # Every 3 x 3 convolution inside a stage costs 9 * 16 * 16 * 32 * 32: half the size, twice
    # the channels. The first of stages two and three sees half its stage's channels.
    inside = 9 * 16 * 16 * 32 * 32
    stem, head = 9 * 3 * 16 * 32 * 32, 64 * 10
    assert macs(name) == stem + 6 * blocks * inside - 2 * (inside // 2) + head


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_computes_what_torchvision_computes(name: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    theirs, ours = models.get_model(name, num_classes=7), get(name).build(7)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    assert shapes_of(ours).keys() == shapes_of(theirs).keys()


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "lenet-300-100", "vgg-cifar"])
def test_output_is_one_row_of_logits_per_image(name: str) -> None:
    network = get(name).build(7).eval()
    assert network(torch.zeros(3, *get(name).input_shape)).shape == (3, 7)


@pytest.mark.parametrize("name", ["resnet18-cifar", "resnet50-cifar"])
def test_cifar_stem_keeps_the_resolution(name: str) -> None:
    network = meta(name)
    x = torch.zeros(1, 3, 32, 32, device="meta")
    stem = nn.Sequential(network.get_submodule("conv1"), network.get_submodule("maxpool"))
    assert stem(x).shape == (1, 64, 32, 32)


def test_option_a_shortcut() -> None:
    block = Block(2, 6, 2).eval()
    nn.init.zeros_(block.conv2.weight)  # leaves relu(shortcut)
    x = torch.randn(1, 2, 4, 4)
    expected = torch.zeros(1, 6, 2, 2)
    for channel in range(2):
        for row in range(2):
            for column in range(2):
                expected[0, channel + 2, row, column] = x[0, channel, 2 * row, 2 * column]
    assert torch.equal(block(x), expected.relu())


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    weight = get("resnet20").build().get_parameter("layer3.1.conv1.weight")  # 64 x 64 x 3 x 3
    expected = (2 / (64 * 9)) ** 0.5
    # The deviation of a sample's standard deviation is expected / sqrt(2 n): four of them.
    assert abs(weight.std().item() - expected) < 4 * expected / (2 * weight.numel()) ** 0.5


def test_the_same_seed_gives_the_same_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(get("resnet20").build().state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("classes", [3, 10])
def test_recognise_finds_each_with_its_classes(name: str, classes: int) -> None:
    entry, found = recognise(shapes_of(meta(name, classes)))
    assert (entry.name, found) == (name, classes)


def test_recognise_does_without_batch_counters_and_draws_no_random_number() -> None:
    shapes = shapes_of(meta("resnet20"))
    kept = {name: shape for name, shape in shapes.items() if "num_batches" not in name}
    assert len(kept) < len(shapes)
    registry_module._reference.cache_clear()
    before = torch.get_rng_state()
    assert recognise(kept)[0].name == "resnet20"
    assert torch.equal(torch.get_rng_state(), before)


def changed(name: str, **changes: tuple[int, ...] | None) -> Shapes:
    shapes = shapes_of(meta(name))
    for key, shape in changes.items():
        shapes.pop(key.replace("__", "."), None)
        if shape is not None:
            shapes[key.replace("__", ".")] = shape
    return shapes


@pytest.mark.parametrize(
    ("shapes", "parts"),
    [
        (
            changed("lenet5", fc1__weight=(500, 801)),
            ["lenet5", "fc1.weight has shape (500, 801), not (500, 800)"],
        ),
        (
            changed("resnet20", linear__bias=None),
            ["resnet20", "linear.bias of shape (10,) is missing"],
        ),
        (changed("resnet56", extra=(3,)), ["resnet56", "also has extra of shape (3,)"]),
        ({"some.thing": (2, 2)}, ["no tensor name"]),
        ({}, ["no tensor name"]),
        ({"fc3.weight": ()}, ["lenet"]),
    ],
)
def test_recognise_names_the_closest_and_the_first_difference(
    shapes: Shapes, parts: list[str]
) -> None:
    with pytest.raises(LoadError) as caught:
        recognise(shapes)
    for part in [*parts, "--arch"]:
        assert part in str(caught.value)


def test_recognise_names_both_where_two_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Architecture("twin", get("lenet5").factory, (1, 28, 28), 10, "the same again")
    monkeypatch.setitem(ARCHITECTURES, "twin", twin)
    with pytest.raises(LoadError, match="--arch lenet5 or --arch twin"):
        recognise(shapes_of(meta("lenet5")))


def test_get_lists_the_names_and_suggests() -> None:
    with pytest.raises(LoadError, match="did you mean resnet20") as caught:
        get("ResNet_20")
    assert all(name in str(caught.value) for name in names())


def test_build_refuses_no_classes() -> None:
    with pytest.raises(UsageError, match="at least 1 class"):
        get("lenet5").build(0)


def test_the_registry_imports_without_torch() -> None:
    code = (
        "import sys; from compressor.models import names, get; names(); get('lenet5');"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [("resnet20-12fca82f.th", "resnet20"), ("resnet56-4bfd9763.th", "resnet56")],
)
def test_public_checkpoints_fit(file: str, name: str) -> None:
    path = SHARED / "checkpoints" / file
    if not path.exists():
        pytest.skip(f"{path} is absent")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    entry, classes = recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert (entry.name, classes) == (name, 10)
    result = entry.build().load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
