"""Parameters, zeros and MACs by formula; latency by a clock that is wound by hand."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, repeat
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from compressor.layers import bake, compressible_layers, mask_layer, share_layer
from compressor.models import get
from compressor.network import Network
from compressor.progress import Progress, Step
from compressor.reporting import latency as latency_module
from compressor.reporting.latency import latency
from compressor.reporting.measure import Size, layer_macs, measure

Array = NDArray[Any]
MAX_ROUNDS = latency_module.MAX_ROUNDS


@pytest.fixture(autouse=True)
def as_many_rounds_as_users_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_module, "MAX_ROUNDS", MAX_ROUNDS)


def network(module: nn.Module, *shape: int) -> Network:
    return Network(module.eval(), torch.zeros(1, *shape), "net", "net")


def size_of(net: Network) -> Size:
    return measure(net, layer_macs(net.module, net.example))


def keep(net: Network, name: str, kept: int) -> None:
    """Mask a layer so that ``kept`` of its weights, none of them 0, are left."""
    layer = compressible_layers(net.module)[name]
    mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
    mask[torch.randperm(len(mask))[:kept]] = True
    mask_layer(layer, mask.view(layer.weight.shape))


# ---- LeNet-5: output size x kernel size x channels in and out --------------------------------

LENET5 = {
    "conv1": 24 * 24 * 5 * 5 * 1 * 20,
    "conv2": 8 * 8 * 5 * 5 * 20 * 50,
    "fc1": 800 * 500,
    "fc2": 500 * 10,
}
WEIGHTS = {"conv1": 500, "conv2": 25_000, "fc1": 400_000, "fc2": 5_000}
BIASES = 20 + 50 + 500 + 10


def test_the_macs_of_lenet5() -> None:
    net = network(get("lenet5").build(), 1, 28, 28)
    assert layer_macs(net.module, net.example) == {"": sum(LENET5.values()), **LENET5}


def test_a_dense_lenet5() -> None:
    net = network(get("lenet5").build(), 1, 28, 28)
    with torch.no_grad():
        for parameter in net.module.parameters():
            parameter[parameter == 0] = 0.1
    total = sum(WEIGHTS.values()) + BIASES
    macs = sum(LENET5.values())
    assert total == 431_080
    assert size_of(net) == Size(total, total, 0.0, macs, macs)


def test_a_pruned_lenet5() -> None:
    """A convolution's weight is met once at each of its 24 x 24 or 8 x 8 outputs."""
    net = network(get("lenet5").build(), 1, 28, 28)
    kept = {"conv1": 123, "conv2": 4_567, "fc1": 31_001, "fc2": 5_000}
    with torch.no_grad():
        for parameter in net.module.parameters():
            parameter.fill_(0.5)
        net.module.get_parameter("fc1.bias")[:7] = 0
    for name, number in kept.items():
        keep(net, name, number)
    assert size_of(net) == Size(
        parameters=431_080,
        nonzero=sum(kept.values()) + BIASES - 7,
        sparsity=1 - sum(kept.values()) / sum(WEIGHTS.values()),
        macs=sum(LENET5.values()),
        nonzero_macs=24 * 24 * 123 + 8 * 8 * 4_567 + 31_001 + 5_000,
    )


def test_masks_codebooks_and_plain_zeros_count_alike() -> None:
    net = network(get("lenet5").build(), 1, 28, 28)
    keep(net, "fc1", 1_000)
    layer = compressible_layers(net.module)["conv2"]
    indices = torch.arange(25_000, dtype=torch.int32).view(layer.weight.shape) % 5
    share_layer(layer, indices, torch.tensor([0.1, -0.1, 0.2, -0.2]))
    macs = layer_macs(net.module, net.example)
    found = measure(net, macs)
    assert found.parameters == 431_080
    assert found.sparsity == 1 - (500 + 20_000 + 1_000 + 5_000) / 430_500
    assert found.nonzero_macs == LENET5["conv1"] + 8 * 8 * 20_000 + 1_000 + 5_000
    bake(net.module)
    assert measure(net, macs) == found


def test_a_centroid_at_zero_is_a_zero() -> None:
    net = network(nn.Sequential(nn.Linear(4, 2, bias=False)), 4)
    indices = torch.tensor([[0, 1, 1, 2], [2, 2, 0, 1]])
    share_layer(compressible_layers(net.module)["0"], indices, torch.tensor([0.0, 0.5]))
    assert size_of(net) == Size(8, 3, 5 / 8, 8, 3)


# ---- other layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), (6, 8, 8), 4 * 4 * 9 * 3 * 8),
        (nn.Conv2d(8, 8, 3, groups=8), (8, 6, 6), 4 * 4 * 9 * 8),
        (nn.Conv2d(2, 4, 3, dilation=2, padding=2), (2, 6, 6), 6 * 6 * 9 * 2 * 4),
        (nn.Conv1d(2, 4, 3), (2, 10), 8 * 3 * 2 * 4),
        (nn.Conv3d(2, 4, 2), (2, 4, 4, 4), 27 * 8 * 2 * 4),
        (nn.ConvTranspose2d(4, 3, 3, stride=2), (4, 5, 5), 5 * 5 * 9 * 4 * 3),
        (nn.Linear(6, 4), (5, 6), 5 * 6 * 4),
    ],
)
def test_the_macs_of_a_layer(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    """Padding counts as dense runtimes compute it; a transposed convolution by its inputs."""
    net = network(nn.Sequential(layer), *shape)
    assert layer_macs(net.module, net.example) == {"": macs, "0": macs}
    weight = compressible_layers(net.module)["0"].weight
    half = weight.numel() // 2
    keep(net, "0", half)
    assert size_of(net).nonzero_macs == round(macs * half / weight.numel())


class Mixed(nn.Module):
    """A layer that runs three times, and a product in which no layer has a part."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.inner(x)
        logits: Tensor = self.last(x @ x.T @ x)
        return logits


def test_a_layer_that_runs_several_times_and_work_outside_layers() -> None:
    net = network(Mixed(), 4)
    inner, last, product = 3 * 16, 8, 2 * 4
    macs = layer_macs(net.module, net.example)
    assert macs == {"": inner + last + product, "inner.0": inner, "last": last}
    keep(net, "inner.0", 5)
    found = measure(net, macs)
    assert found.nonzero_macs == 3 * 5 + last + product
    assert found.parameters == 16 + 4 + 8 + 8 + 2, "statistics of norms are no parameters"


def test_a_layer_under_two_names_counts_once() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))
    module.again, module.norm = module[0], module[2]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1)
    net = network(module, 4)
    # nn.Sequential runs the two that were added as well.
    assert size_of(net) == Size(20 + 8, 28, 0.0, 32, 32)


def test_a_network_without_layers() -> None:
    assert size_of(network(nn.Sequential(nn.BatchNorm1d(4)), 4)) == Size(8, 4, 0.0, 0, 0)


def test_measuring_changes_nothing() -> None:
    net = network(get("resnet20").build(), 3, 32, 32)
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    size = size_of(net)
    assert size.row() == {
        "parameters": size.parameters,
        "nonzero": size.nonzero,
        "sparsity": size.sparsity,
        "macs": size.macs,
        "nonzero_macs": size.nonzero_macs,
    }
    assert all(torch.equal(v, before[n]) for n, v in net.module.state_dict().items())


# ---- latency -----------------------------------------------------------------------------------


class FakeRuntime:
    """A session that takes the time it is told to, on a clock of its own."""

    def __init__(self, name: str, durations: Iterator[float], stage: "Stage") -> None:
        self.name, self.durations, self.stage = name, durations, stage

    def run(self, outputs: None, inputs: dict[str, Array]) -> None:
        assert list(inputs) == ["input"]
        self.stage.inputs.append(inputs["input"])
        self.stage.calls.append(self.name)
        self.stage.now += next(self.durations)


class Stage:
    """Replaces sessions and the clock; remembers who was called when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **durations: Iterator[float]) -> None:
        self.now = 1000.0
        self.calls: list[str] = []
        self.inputs: list[Array] = []
        self.threads: list[int] = []
        self.durations = durations
        monkeypatch.setattr(latency_module, "session", self.session)
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(latency_module, "time", clock)

    def session(self, model: bytes, threads: int) -> FakeRuntime:
        self.threads.append(threads)
        name = model.decode()
        return FakeRuntime(name, self.durations[name], self)


MODELS = {"dense": b"a", "compressed": b"b"}


def test_models_take_turns_and_warm_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, a=repeat(0.001), b=repeat(0.002))
    found = latency(MODELS, (1, 3, 4, 4), threads=5, seconds=0.0)
    turns = [stage.calls[n : n + 2] for n in range(0, len(stage.calls), 2)]
    assert len(turns) == 4 * (5 + 10)  # four sets of ten rounds, each warmed up anew
    assert all(sorted(turn) == ["a", "b"] for turn in turns)
    assert ["a", "b"] in turns
    assert ["b", "a"] in turns
    assert stage.threads == [5] * 8
    assert {x.shape for x in stage.inputs} == {(1, 3, 4, 4)}
    assert {x.dtype for x in stage.inputs} == {np.dtype(np.float32)}
    assert all(np.array_equal(x, stage.inputs[0]) for x in stage.inputs)
    assert found["calls"] == 40
    assert found["threads"] == 5
    assert found["batch"] == 1
    assert list(found["ms"]) == ["dense", "compressed"]


def test_times_are_milliseconds_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start = [5.0] * 5
    times = [0.001 * (7 * i % 40 + 1) for i in range(40)]  # 1..40 ms in some order
    sets = [each for at in range(0, 40, 10) for each in (*slow_start, *times[at : at + 10])]
    Stage(monkeypatch, a=iter(sets), b=iter([*slow_start, *[0.25] * 10] * 4))
    found = latency(MODELS, (1, 3), seconds=0.0)["ms"]
    assert found["dense"]["median"] == pytest.approx(statistics.median(range(1, 41)))
    assert found["dense"]["minimum"] == pytest.approx(1.0)
    # The 5th and 95th of 40 values lie 1.95 and 37.05 steps from the first.
    assert found["dense"]["p5"] == pytest.approx(2.95)
    assert found["dense"]["p95"] == pytest.approx(38.05)
    for key in ("median", "p5", "p95", "minimum"):
        assert found["compressed"][key] == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("each", "seconds", "calls"),
    [
        (1.0, 3.0, 40),  # slow networks: no fewer than 40
        (1e-6, 3.0, 500),  # fast ones: no more than 500
        (0.0125, 2.51, 70),  # 25 ms a turn, 375 ms a set: until 2.51 s have passed, to a set's end
    ],
)
def test_the_number_of_calls(
    monkeypatch: pytest.MonkeyPatch, each: float, seconds: float, calls: int
) -> None:
    stage = Stage(monkeypatch, **{name: (each for _ in count()) for name in "ab"})
    assert latency(MODELS, (1, 3), seconds=seconds)["calls"] == calls
    assert stage.calls.count("a") == stage.calls.count("b") == calls + 5 * calls // 10


def test_progress_is_told_turn_by_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener(Progress):
        turns = 0

        @contextmanager
        def task(self, title: str, total: int) -> Iterator[Step]:
            assert (title, total) == ("latency", 500)

            def advance(note: str = "") -> None:
                self.turns += 1

            yield advance

    Stage(monkeypatch, **{name: (1.0 for _ in count()) for name in "ab"})
    listener = Listener()
    latency(MODELS, (1, 3), progress=listener)
    assert listener.turns == 40


def test_real_files_are_measured() -> None:
    node = helper.make_node("Relu", ["input"], ["output"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
        for name in ("input", "output")
    ]
    graph = helper.make_graph([node], "network", [ends[0]], [ends[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    blob = model.SerializeToString()
    found = latency({"dense": blob, "compressed": blob}, (1, 3), seconds=0.0)
    assert found["runtime"] == "ONNX Runtime, CPU"
    for times in found["ms"].values():
        assert 0 < times["minimum"] <= times["p5"] <= times["median"] <= times["p95"]


def test_attention_counts_whole():
    """Projections 4 * n * d^2 and two products 2 * n^2 * d of one (n, d) sequence."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    n, d, hidden = 5, 16, 32
    expected = 4 * n * d * d + 2 * n * n * d + 2 * n * d * hidden
    assert layer_macs(layer, torch.zeros(1, n, d))[""] == expected


def test_a_parameter_may_be_the_input_of_a_layer() -> None:
    """A class token, or what a decoder asks: expanded to the batch and handed on."""

    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.head = nn.Parameter(torch.zeros(1, 4)), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.query.expand(x.shape[0], -1)) + x
            return out

    module = Asked()
    assert layer_macs(module, torch.zeros(1, 3)) == {"": 12, "head": 12}
    assert all(value.requires_grad for value in module.parameters())
