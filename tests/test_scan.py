"""Scans: replayed networks against whole ones, points against torch's own pruning, the command."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from compressor import loading
from compressor.channels.dependencies import Dependencies
from compressor.channels.proof import Masked
from compressor.layers import compressible_layers
from compressor.models import registry
from compressor.network import Context, Network
from compressor.recipe import Recipe
from compressor.scan import scan
from compressor.scan.allocation import RESOLUTION, Setting, allocate, layer_model, price_of
from compressor.scan.proposal import with_settings
from compressor.scan.replay import Replay
from compressor.scan.variants import Channels
from compressor.settings import Training
from compressor.tracing import traced
from compressor.training import data as datasets
from compressor.training.data import Data, Split
from compressor.training.evaluation import evaluate
from compressor.training.fit import fit
from compressor.training.layout import layout
from tests import channel_networks
from tests.conftest import Compress


def network_of(kind: str) -> Network:
    torch.manual_seed(1)
    if kind.startswith("resnet"):
        module, shape = registry.get(kind).build(), (1, 3, 32, 32)
    else:
        module = getattr(channel_networks, kind)()
        shape = (1, *module.shape)
    return Network(module.eval(), torch.zeros(shape), kind, kind)


class WritesInPlace(nn.Module):
    """A view of a value is written to after a layer that reads the value."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = x * 2
        half = x[:, :3]
        y = self.one(x)
        half.add_(1)
        return self.two(y + x)


@pytest.mark.parametrize("kind", ["Residual", "Concat", "Split", "Shuffle", "resnet20"])
def test_a_replay_from_each_layer_is_a_whole_run(kind: str) -> None:
    network = network_of(kind)
    _compare(network.module, network.example)


def test_operators_that_write_to_their_input_leave_what_is_kept_alone() -> None:
    _compare(WritesInPlace().eval(), torch.zeros(1, 6))


def _compare(module: nn.Module, example: torch.Tensor) -> None:
    replay = Replay(module, traced(module, example))
    x = torch.randn(3, *example.shape[1:])
    cursor = replay.begin(x.clone())
    layers = compressible_layers(module)
    for name in sorted(layers, key=lambda name: replay.start([f"{name}.weight"])):
        cursor.advance(replay.start([f"{name}.weight"]))
        changed = layers[name].weight * 0.5 + 0.1
        whole = copy.deepcopy(module)
        with torch.no_grad():
            whole.get_submodule(name).weight.copy_(changed)  # type: ignore[union-attr,operator]
            expected = whole(x)
        for _ in range(2):  # the second run finds what the first one found
            found = cursor.output({f"{name}.weight": changed})
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["Residual", "Concat", "Depthwise", "resnet20"])
def test_channels_without_their_slices_are_the_masked_network(kind: str) -> None:
    network = network_of(kind)
    program = traced(network.module, network.example)
    dependencies = Dependencies(network.module, network.example, program=program)
    replay, channels = Replay(network.module, program), Channels(network, dependencies)
    x = torch.randn(2, *network.example.shape[1:])
    assert channels.units
    for unit in channels.units:
        for variant in list(channels.variants(unit))[:3]:
            cursor = replay.begin(x)
            cursor.advance(replay.start(variant.names))
            gone = torch.cat(
                [torch.from_numpy(group.classes) for group in channels.units[unit]]
            ).numpy()
            order = np.argsort(channels.worths[gone], kind="stable")
            count = variant.facts["of"] - variant.facts["left"]
            if len(channels.units[unit]) == 1:
                masked = Masked(
                    network.module, dependencies, np.sort(gone[order[:count]]), torch.float32
                )
                found = cursor.output(variant.changes(), variant.operators)
                torch.testing.assert_close(found, masked(x), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load("digits", input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import run_compress

    target = tmp_path_factory.mktemp("lenet") / "net.pt"
    made = run_compress(
        "train", "lenet5", "--data", "digits", "--epochs", 3, "--threads", 1, "-q", "-o", target
    )
    assert made.code == 0, made.err
    return target


def test_a_point_is_what_torch_prunes_and_evaluates(lenet: Path, digits: Data) -> None:
    network = loading.load(lenet)
    found = scan(network, digits, Context(), kinds=["weights"], layers=["fc1", "conv*"])

    assert [curve.unit for curve in found.curves] == ["conv1", "conv2", "fc1"]
    assert found.dense.accuracy == pytest.approx(evaluate(network.module, digits, found.images))
    for curve in found.curves:
        for variant, point in curve.points:
            module = copy.deepcopy(network.module)
            layer = module.get_submodule(curve.unit)
            torch_prune.l1_unstructured(layer, "weight", variant.value)
            assert variant.facts["zeros"] == int((layer.weight == 0).sum())
            assert point.accuracy == pytest.approx(evaluate(module, digits, found.images))
            assert point.lost >= found.dense.accuracy - point.accuracy - 1e-9


class Viewing(nn.Module):
    """Takes no images that lie channels last: (B, 4, 5, 5) cannot be viewed as flat then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 4, stride=5), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def test_a_network_that_views_axes_as_one_is_trained_and_scanned(digits: Data) -> None:
    def coloured(split: Split) -> Split:
        return replace(split, x=split.x.repeat(1, 3, 1, 1))

    data = replace(
        digits,
        train=coloured(digits.train),
        validation=coloured(digits.validation),
        test=coloured(digits.test),
        mean=digits.mean * 3,
        std=digits.std * 3,
    )
    torch.manual_seed(0)
    module = Viewing()
    x = torch.zeros(1, 3, 28, 28)
    assert layout(module, x) is torch.contiguous_format
    assert layout(module.conv, x) is torch.channels_last
    network = Network(module, x, "viewing", "viewing")

    epochs = fit(module, Training(epochs=5, lr=0.05), Context(data), "train")
    found = scan(network, data, Context(), kinds=["weights"])

    assert found.dense.accuracy == pytest.approx(evaluate(module, data, data.validation))
    assert epochs[-1].validation == pytest.approx(found.dense.accuracy)
    assert found.dense.accuracy > 0.5


def test_several_threads_find_what_one_finds(lenet: Path, digits: Data) -> None:
    def points() -> list[float]:
        found = scan(loading.load(lenet), digits, Context(), kinds=["bits"])
        return [point.loss for curve in found.curves for _, point in curve.points]

    one = points()
    torch.set_num_threads(2)
    assert points() == pytest.approx(one, rel=1e-6)


def test_proposed_settings_leave_the_zeros_asked_for(lenet: Path) -> None:
    from compressor.pruning import prune

    network = loading.load(lenet)
    wanted = {"conv1": 0.31, "fc1": 0.97}
    settings = with_settings(Recipe(), {name: Setting(s, None) for name, s in wanted.items()})
    assert settings.prune is not None
    assert settings.share is None
    prune(network, settings.prune, Context())
    for name, layer in compressible_layers(network.module).items():
        zeros = int((layer.weight == 0).sum())
        assert zeros == round(wanted.get(name, 0.0) * layer.weight.numel())


def test_an_allocation_takes_from_the_layer_that_loses_least() -> None:
    hardy = layer_model(1000, [(0.5, 0.0), (0.9, 0.01)], [(8, 0.0, 7.5), (2, 0.01, 1.9)])
    frail = layer_model(1000, [(0.5, 0.5), (0.9, 2.0)], [(8, 0.0, 7.5), (2, 1.0, 1.9)])
    models = {"hardy": hardy, "frail": frail}
    plain, most = allocate(models, 1e-14)
    price = price_of(models, most / 2)
    chosen, size = allocate(models, price)

    assert plain["frail"].sparsity == 0.0
    assert plain["frail"].bits == 8
    assert size <= most / 2
    assert chosen["hardy"].sparsity > chosen["frail"].sparsity


def test_what_images_do_not_tell_is_not_taken_for_nothing() -> None:
    pruned = [(0.5, 0.0), (0.9, 0.5)]
    lucky = layer_model(1000, pruned, [(8, -0.1, 7.5), (4, 0.0, 3.9), (2, 1.0, 1.9)])
    unlucky = layer_model(1000, pruned, [(8, 0.4, 7.5), (4, 0.4, 3.9), (2, 1.0, 1.9)])

    assert lucky.widths == (8, 4, 2)
    assert lucky.increase[0].tolist() == [RESOLUTION / 4**4, RESOLUTION, 1.0]
    assert unlucky.increase[0].tolist() == [0.4 - RESOLUTION, 0.4, 1.0]
    # Where size costs next to nothing, nothing is given up for a lucky figure.
    for model in (lucky, unlucky):
        assert allocate({"": model}, 1e-14)[0][""] == Setting(0.0, 8)


def test_the_command_writes_a_recipe_that_a_run_takes(
    lenet: Path, digits: Data, here: Path, compress: Compress
) -> None:
    few = {"x_train": digits.train.x[:400, 0], "y_train": digits.train.y[:400]}
    np.savez("few.npz", **few, x_test=digits.test.x[:100, 0], y_test=digits.test.y[:100])
    given = ("scan", lenet, "--data", "few.npz")
    done = compress(*given, "--max-drop", 3, "--threads", 1, "--json")

    assert done.code == 0, done.err
    table = json.loads(done.out)
    assert json.loads((here / "net-scan" / "scan.json").read_text()) == table
    kinds = {curve["kind"] for curve in table["curves"]}
    assert kinds == {"weights", "channels", "bits"} == set(table["sensitivity"])
    first = table["histograms"][0]
    assert sum(first["counts"]) + first["zeros"] == first["weights"] == 500
    assert 0 < table["work"]["macs_part"] < 1
    assert table["proposals"]["weights"]["lost"] <= 0.03
    for kind in (*kinds, "histograms"):
        assert (here / "net-scan" / f"{kind}.svg").read_text().startswith("<?xml")
    recipe = Recipe.read(here / "net-scan" / "recipe.toml")
    assert recipe.prune is not None
    assert recipe.share is not None
    run = ("net-scan/recipe.toml", "--epochs", 0, "--finetune-epochs", 0, "-q")
    assert compress(lenet, "--recipe", *run).code == 0
    again = compress(*given)
    assert again.code == 1
    assert "--force" in again.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "give --data"),
        (("--data", "digits", "--kinds", "weight"), 2, "weights, channels, bits"),
        (("--data", "digits", "--layers", "fc9"), 1, "fits no layer"),
        (("--data", "digits", "--images", 0), 2, "--images 0"),
        (("--data", "digits", "--max-drop", -1), 2, "--max-drop"),
    ],
)
def test_bad_input_gets_one_line(
    options: tuple[object, ...], code: int, said: str, lenet: Path, here: Path, compress: Compress
) -> None:
    done = compress("scan", lenet, *options, "-q")

    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(here.iterdir())
