"""ONNX files compute what PyTorch computes, and hold what they should and nothing else."""

import copy
import functools
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compressor.errors import ArtifactError, ExportError
from compressor.export.graph import INPUT, OUTPUT, trace
from compressor.export.onnx import build
from compressor.export.verify import Difference, check, compare, difference, run, session
from compressor.models import get
from compressor.storage import plain_state

Array = NDArray[Any]
METADATA = {"tool": "compressor", "sparsity": "0.5", "network": "test"}


class Zoo(nn.Module):
    """Ordinary, transposed, grouped and depthwise convolutions, 2-D and 1-D batch norm.

    On (B, 2, 6, 6). Every norm but the one behind the transposed convolution can be folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2)
        self.norm2 = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 8, 3, groups=2)
        self.norm3 = nn.BatchNorm2d(8, eps=0.1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.norm4 = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(8, 12)
        self.norm5 = nn.BatchNorm1d(12)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(12, 5, bias=False)
        self.norm6 = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv(x)))
        x = functional.relu(self.norm2(self.up(x)))
        x = functional.relu(self.norm3(self.grouped(x)))
        x = functional.relu(self.norm4(self.depthwise(x)))
        x = self.dropout(functional.relu(self.norm5(self.fc1(x.mean((2, 3))))))
        logits: Tensor = self.norm6(self.fc2(x))
        return logits


class Stubborn(nn.Module):
    """Batch norms that must not be folded, on (B, 3, 6, 6); only ``free`` may be.

    ``two``: its convolution has another reader. ``shared``: its convolution runs twice.
    ``again``: the norm itself runs twice. ``before``: stands before its convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.shared_norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.again = nn.BatchNorm2d(4)
        self.before = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.free = nn.Sequential(nn.Conv2d(4, 5, 4), nn.BatchNorm2d(5))

    def forward(self, x: Tensor) -> Tensor:
        conv: Tensor = self.two[0](x)
        x = functional.relu(self.two[1](conv) + conv)
        for norm in self.shared_norms:
            x = functional.relu(norm(self.shared(x)))
        for convolution in self.convs:
            x = functional.relu(self.again(convolution(x)))
        logits: Tensor = self.free(self.before(x)).flatten(1)
        return logits


def with_a_past(module: nn.Module) -> nn.Module:
    """Batch norms with statistics and factors as after training, some small, some negative."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.05, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module.eval()


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (lambda: get("lenet5").build(), (1, 28, 28)),
    "resnet20": (lambda: get("resnet20").build(), (3, 32, 32)),
    "vgg-cifar": (lambda: get("vgg-cifar").build(), (3, 32, 32)),
    "zoo": (Zoo, (2, 6, 6)),
    "stubborn": (Stubborn, (3, 6, 6)),
}
EVERY = pytest.mark.parametrize("name", BUILDERS)


@functools.cache
def exported(name: str) -> tuple[nn.Module, bytes, bytes]:
    """A network, its skeleton and its ONNX file: traced once for all tests."""
    torch.manual_seed(1)
    make, shape = BUILDERS[name]
    module = with_a_past(make())
    skeleton = trace(module, torch.zeros(1, *shape), 18)
    return module, skeleton, build(skeleton, plain_state(module), METADATA)


def samples(name: str, count: int) -> Tensor:
    return torch.randn(count, *BUILDERS[name][1], generator=torch.Generator().manual_seed(2))


def reference(model: bytes, inputs: Mapping[str, Array]) -> list[Array]:
    """Outputs by ONNX's own reference implementation."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    return [np.asarray(output) for output in evaluator.run(None, dict(inputs))]


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


# ---- whole networks ----------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_runtime_computes_what_pytorch_computes(name: str, count: int) -> None:
    module, _, model = exported(name)
    x = samples(name, count)
    with torch.no_grad():
        expected = module(x).numpy()
    found = session(model).run(None, {INPUT: x.numpy()})[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("name", ["lenet5", "zoo", "stubborn"])
def test_the_reference_implementation_agrees(name: str) -> None:
    module, _, model = exported(name)
    x = samples(name, 3)
    with torch.no_grad():
        expected = module(x).numpy()
    (found,) = reference(model, {INPUT: x.numpy()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "left"),
    [("lenet5", 0), ("resnet20", 0), ("vgg-cifar", 0), ("zoo", 1), ("stubborn", 6)],
)
def test_norms_are_folded_where_they_can_be(name: str, left: int) -> None:
    """In Stubborn: one of two readers, two of a shared convolution, two runs of one, one before."""
    _, skeleton, model = exported(name)
    norms = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in exported(name)[0].modules())
    runs = norms + (name == "stubborn")
    assert operators(skeleton)["BatchNormalization"] == runs
    assert operators(model)["BatchNormalization"] == left
    assert operators(model) + Counter(BatchNormalization=runs - left) == operators(skeleton)


def test_folded_weights_are_those_of_torchs_own_fusion() -> None:
    module, _, model = exported("zoo")
    assert isinstance(module, Zoo)
    weights = initializers(model)
    for conv, norm, bias in (
        ("conv", "norm1", "norm1.bias"),
        ("grouped", "norm3", "grouped.bias"),
        ("depthwise", "norm4", "norm4.bias"),
        ("fc1", "norm5", "fc1.bias"),
        ("fc2", "norm6", "norm6.bias"),
    ):
        layer: Any = copy.deepcopy(module.get_submodule(conv)).double()
        batch_norm: Any = copy.deepcopy(module.get_submodule(norm)).double()
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        fused = fuse(layer, batch_norm)
        for found, expected in (
            (weights[f"{conv}.weight"], fused.weight),
            (weights[bias], fused.bias),
        ):
            values = expected.detach().numpy()
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-7 * np.abs(values).max())


def test_weights_stand_in_the_file_as_they_are() -> None:
    module, _, model = exported("lenet5")
    weights = initializers(model)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())


def test_what_folding_leaves_unused_is_not_in_the_file() -> None:
    module, _, model = exported("resnet20")
    weights = initializers(model)
    assert not any("running" in name or "num_batches" in name for name in weights)
    # Each of the 19 norms leaves one vector, the bias of its convolution.
    assert sum("bn" in name for name in weights) == 19
    convolutions = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    vectors = 16 * 7 + 32 * 6 + 64 * 6 + 10
    values = sum(w.size for n, w in weights.items() if n in module.state_dict())
    assert values == convolutions + vectors


# ---- the file ----------------------------------------------------------------------------------


def initializers(model: bytes) -> dict[str, Array]:
    graph = onnx.load_from_string(model).graph
    return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}


@EVERY
def test_one_input_with_a_free_batch_and_one_output(name: str) -> None:
    graph = onnx.load_from_string(exported(name)[2]).graph
    assert [item.name for item in graph.input] == [INPUT]
    assert [item.name for item in graph.output] == [OUTPUT]
    batch, *sizes = graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert tuple(size.dim_value for size in sizes) == BUILDERS[name][1]


@EVERY
def test_nodes_are_named_by_operator_and_position(name: str) -> None:
    nodes = onnx.load_from_string(exported(name)[2]).graph.node
    assert [node.name for node in nodes] == [f"{node.op_type}_{i}" for i, node in enumerate(nodes)]


def test_metadata_is_in_the_file() -> None:
    model = onnx.load_from_string(exported("lenet5")[2])
    assert {item.key: item.value for item in model.metadata_props} == METADATA
    assert session(exported("lenet5")[2]).get_modelmeta().custom_metadata_map == METADATA


def test_the_order_of_metadata_and_tensors_does_not_change_the_file() -> None:
    module, skeleton, model = exported("zoo")
    tensors = dict(reversed(plain_state(module).items()))
    assert build(skeleton, tensors, dict(reversed(METADATA.items()))) == model


def test_opset_and_domain_are_what_was_asked_for() -> None:
    for name in BUILDERS:
        for content in exported(name)[1:]:
            proto = onnx.load_from_string(content)
            assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
            assert {node.domain for node in proto.graph.node} == {""}


def test_the_newest_opset_that_a_recipe_takes() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    skeleton = trace(module, torch.zeros(1, 1, 4, 4), 23)
    assert onnx.load_from_string(skeleton).opset_import[0].version == 23
    model = build(skeleton, plain_state(module), {})
    check(model, module, torch.randn(3, 1, 4, 4), 1e-5)


def test_an_opset_that_the_exporter_does_not_write_is_refused() -> None:
    with pytest.raises(ExportError, match="opset"):
        trace(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3), 99)


def largest_constant(model: bytes) -> int:
    """Elements of the largest tensor in a graph, among initializers and attributes."""
    graph = onnx.load_from_string(model).graph
    tensors = list(graph.initializer)
    tensors += [a.t for n in graph.node for a in n.attribute if a.type == a.TENSOR]
    return max((onnx.numpy_helper.to_array(tensor).size for tensor in tensors), default=0)


@EVERY
def test_the_skeleton_holds_no_weight(name: str) -> None:
    module, skeleton, _ = exported(name)
    graph = onnx.load_from_string(skeleton).graph
    state = module.state_dict()
    # What is left are sizes of reshapes, slices and pads: a few numbers each.
    assert largest_constant(skeleton) <= 8
    assert len(skeleton) < 400 * (1 + len(graph.node))
    assert not any(node.name or node.doc_string for node in graph.node)
    weights = [item for item in graph.input if item.name != INPUT]
    assert {item.name for item in weights} == {n for n in state if "num_batches" not in n}
    for item in weights:
        sizes = tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
        assert sizes == tuple(state[item.name].shape)


def texts(message: Any) -> Iterator[str]:
    """Every string and byte string in a protobuf message."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if field.message_type is not None:
                yield from texts(item)
            elif isinstance(item, str):
                yield item
            elif isinstance(item, bytes) and field.name != "raw_data":
                yield item.decode()


@EVERY
def test_nothing_of_the_machine_is_in_the_file(name: str) -> None:
    module, skeleton, model = exported(name)
    allowed = {INPUT, OUTPUT, "batch", "compressor", "network", *module.state_dict()}
    for text in texts(onnx.load_from_string(skeleton)):
        assert "/" not in text
        assert "\\" not in text
        assert ".py" not in text
        assert text in allowed or len(text) < 24, text
    for secret in (str(Path.cwd()), str(Path(torch.__file__).parent), str(Path(__file__).parent)):
        assert secret.encode() not in skeleton
        assert secret.encode() not in model


# ---- the same bytes ----------------------------------------------------------------------------


def test_another_call_gives_the_same_bytes_whatever_the_weights_and_the_example() -> None:
    torch.manual_seed(5)
    other = with_a_past(Zoo())
    skeleton = trace(other, torch.randn(1, *BUILDERS["zoo"][1]), 18)
    assert skeleton == exported("zoo")[1]
    check(build(skeleton, plain_state(other), {}), other, samples("zoo", 4), 1e-5)


def test_building_again_gives_the_same_bytes() -> None:
    module, skeleton, model = exported("zoo")
    assert build(skeleton, plain_state(module), METADATA) == model


@pytest.mark.slow
def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib, torch; from compressor.export.graph import trace; "
        "from compressor.models import get; torch.set_num_threads(1); "
        "skeleton = trace(get('lenet5').build(), torch.zeros(1, 1, 28, 28), 18); "
        "print(hashlib.sha256(skeleton).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == hashlib.sha256(exported("lenet5")[1]).hexdigest()
    assert done.stderr == ""


# ---- what cannot be exported -------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x) if x.sum() > 0 else -self.fc(x)
        return logits


class Several(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.fc(x))


class Unknown(nn.Module):
    """Eigenvectors have no ONNX operator."""

    def forward(self, x: Tensor) -> Tensor:
        vectors: Tensor = torch.linalg.eigh(x.unsqueeze(1) * x.unsqueeze(2)).eigenvectors
        return vectors


class Counted(nn.Module):
    """A network that knows its batch only as a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).reshape(len(x), -1))
        return logits


class Looping(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fc(self.conv(each).flatten()) for each in x])


class Fixed(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1)) + torch.zeros(2, 3)  # type: ignore[no-any-return]


def test_a_batch_that_is_counted_stays_free(capfd: pytest.CaptureFixture[str]) -> None:
    module = Counted().eval()
    model = build(trace(module, torch.zeros(1, 1, 3, 3), 18), plain_state(module), {})
    assert check(model, module, torch.randn(5, 1, 3, 3), 1e-6).samples == 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Looping, r"traced: its forward fixes the batch, by a loop over it, .* by x\.shape\[0\]"),
        (Fixed, r"traced: its forward fixes the batch, at test_export\.py:\d+ \(return self"),
        (Branching, r"traced: its forward depends on .* at test_export.py:\d+ \(logits: Tensor = "),
        (Unknown, "exported to ONNX: .*_linalg_eigh"),
    ],
)
def test_what_onnx_cannot_say_is_refused_with_the_reason(
    make: type[nn.Module], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """On one line, and nothing of what the exporter prints for its developers."""
    with pytest.raises(ExportError, match=f"cannot be {reason}") as caught:
        trace(make(), torch.zeros(1, *(1, 3, 3) if issubclass(make, Counted) else (3,)), 18)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [(lambda y: (), "tuple"), (lambda y: "text", "str"), (lambda y: {"logits": None}, "dict")],
)
def test_a_network_that_gives_no_tensor_is_refused(wrap: Any, kind: str) -> None:
    with pytest.raises(ExportError, match=f"gives a {kind} without any tensor"):
        trace(Several(wrap), torch.zeros(1, 3), 18)


def test_weights_that_could_be_mistaken() -> None:
    """Parameters called like the graph's own values, a layer that has two names, and one whose
    transposed weight an optimiser would take for a constant.
    """

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v0 = nn.Parameter(torch.randn(4))
            self.v2 = nn.Parameter(torch.randn(4))
            self.first = nn.Linear(4, 4)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            x = ((x + self.v0).relu() * self.v2).relu() - self.v0
            y: Tensor = self.second(self.first(x.unsqueeze(1)).relu())  # (B, 1, 4)
            return y.squeeze(1)

    module = Named().eval()
    skeleton = trace(module, torch.zeros(1, 4), 18)
    assert operators(skeleton)["MatMul"] == 2
    assert largest_constant(skeleton) < 4
    model = build(skeleton, plain_state(module), {})
    check(model, module, torch.randn(3, 4), 1e-6)


# ---- building from a graph made by hand --------------------------------------------------------

Nodes = list[onnx.NodeProto]


def value(name: str, *sizes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


def norm(source: str, target: str, prefix: str = "n", **attributes: Any) -> onnx.NodeProto:
    names = [f"{prefix}.{leaf}" for leaf in ("weight", "bias", "mean", "var")]
    return helper.make_node("BatchNormalization", [source, *names], [target], **attributes)


def vectors(count: int, prefix: str = "n") -> dict[str, Array]:
    generator = np.random.default_rng(4)
    draw = {leaf: generator.normal(size=count) for leaf in ("weight", "bias", "mean")}
    draw["var"] = generator.uniform(0.1, 2, count)
    return {f"{prefix}.{leaf}": array.astype(np.float32) for leaf, array in draw.items()}


def hand_made(
    nodes: Nodes, tensors: Mapping[str, Array], sizes: tuple[int, ...], outputs: tuple[str, ...]
) -> bytes:
    inputs = [value(INPUT, "batch", *sizes)]
    inputs += [value(name, *array.shape) for name, array in tensors.items()]
    free = [f"d{axis}" for axis in range(len(sizes))]  # all these graphs keep the rank
    found = [value(name, "batch", *free) for name in outputs]
    graph = helper.make_graph(nodes, "network", inputs, found)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def both_ways(
    nodes: Nodes,
    tensors: Mapping[str, Array],
    sizes: tuple[int, ...],
    outputs: tuple[str, ...] = (OUTPUT,),
) -> int:
    """Outputs agree with the unfolded graph in ONNX's reference; how many norms are left."""
    skeleton = hand_made(nodes, tensors, sizes, outputs)
    x = np.random.default_rng(5).standard_normal((3, *sizes)).astype(np.float32)
    expected = reference(skeleton, {INPUT: x, **tensors})
    before = {name: array.copy() for name, array in tensors.items()}
    model = build(skeleton, tensors, {})
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, before[name])  # the caller's arrays are left alone
    for found, wanted in zip(session(model).run(None, {INPUT: x}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    return operators(model)["BatchNormalization"]


def matrix(*sizes: int) -> Array:
    return np.random.default_rng(6).standard_normal(sizes).astype(np.float32)


def test_a_plain_case_is_folded() -> None:
    conv = helper.make_node("Conv", [INPUT, "w", "b"], ["y"])
    tensors = {"w": matrix(4, 2, 3, 3), "b": matrix(4), **vectors(4)}
    assert both_ways([conv, norm("y", OUTPUT)], tensors, (2, 5, 5)) == 0
    assert both_ways([conv, norm("y", OUTPUT, epsilon=0.25)], tensors, (2, 5, 5)) == 0


@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        ({"transB": 1}, 0),
        ({"transB": 1, "alpha": 1.0, "beta": 1.0}, 0),
        ({"transB": 0}, 1),
        ({"transB": 1, "alpha": 2.0}, 1),
        ({"transB": 1, "beta": 0.5}, 1),
    ],
)
def test_a_linear_layer_is_folded_only_in_the_layout_that_is_known(
    attributes: dict[str, Any], left: int
) -> None:
    gemm = helper.make_node("Gemm", [INPUT, "w", "b"], ["y"], **attributes)
    tensors = {"w": matrix(4, 4), "b": matrix(4), **vectors(4)}
    assert both_ways([gemm, norm("y", OUTPUT)], tensors, (4,)) == left


def test_a_transposed_convolution_is_not_folded() -> None:
    conv = helper.make_node("ConvTranspose", [INPUT, "w"], ["y"])
    tensors = {"w": matrix(4, 4, 3, 3), **vectors(4)}
    assert both_ways([conv, norm("y", OUTPUT)], tensors, (4, 5, 5)) == 1


def test_a_convolution_whose_output_is_read_twice_is_not_folded() -> None:
    conv = helper.make_node("Conv", [INPUT, "w"], ["y"])
    add = helper.make_node("Add", ["y", "z"], [OUTPUT])
    tensors = {"w": matrix(4, 2, 3, 3), **vectors(4)}
    assert both_ways([conv, norm("y", "z"), add], tensors, (2, 5, 5)) == 1


def test_a_convolution_whose_output_the_network_gives_is_not_folded() -> None:
    conv = helper.make_node("Conv", [INPUT, "w"], ["y"])
    tensors = {"w": matrix(4, 2, 3, 3), **vectors(4)}
    assert both_ways([conv, norm("y", OUTPUT)], tensors, (2, 5, 5), (OUTPUT, "y")) == 1


@pytest.mark.parametrize("tied", ["w", "b", "n.bias"])
def test_a_tensor_with_another_use_is_not_changed(tied: str) -> None:
    conv = helper.make_node("Conv", [INPUT, "w", "b"], ["y"])
    use = helper.make_node("ReduceSum", [tied], ["total"], keepdims=0)
    add = helper.make_node("Add", ["z", "total"], [OUTPUT])
    tensors = {"w": matrix(4, 2, 3, 3), "b": matrix(4), **vectors(4)}
    assert both_ways([conv, norm("y", "z"), use, add], tensors, (2, 5, 5)) == 1


def test_weights_that_are_computed_are_not_folded() -> None:
    square = helper.make_node("Mul", ["w", "w"], ["w2"])
    conv = helper.make_node("Conv", [INPUT, "w2"], ["y"])
    tensors = {"w": matrix(4, 2, 3, 3), **vectors(4)}
    assert both_ways([square, conv, norm("y", OUTPUT)], tensors, (2, 5, 5)) == 1


def test_of_two_norms_in_a_row_the_first_is_folded() -> None:
    conv = helper.make_node("Conv", [INPUT, "w"], ["y"])
    tensors = {"w": matrix(4, 2, 3, 3), **vectors(4), **vectors(4, "m")}
    nodes = [conv, norm("y", "z"), norm("z", OUTPUT, "m")]
    assert both_ways(nodes, tensors, (2, 5, 5)) <= 1


# ---- graphs and tensors that do not belong together --------------------------------------------

CONV = hand_made(
    [helper.make_node("Conv", [INPUT, "w"], [OUTPUT])],
    {"w": matrix(4, 2, 3, 3)},
    (2, 5, 5),
    (OUTPUT,),
)


@pytest.mark.parametrize("sizes", [(4, 2, 3), (4, 2, 3, 4), (2, 4, 3, 3), (72,), ()])
def test_a_tensor_of_another_shape_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"w has shape .*graph expects \(4, 2, 3, 3\)"):
        build(CONV, {"w": np.zeros(sizes, np.float32)}, {})


def test_a_tensor_that_is_missing_is_named() -> None:
    with pytest.raises(ArtifactError, match="graph takes w, which no"):
        build(CONV, {"v": matrix(4, 2, 3, 3)}, {})


def test_a_tensor_in_place_of_the_input_is_refused() -> None:
    graph = hand_made([helper.make_node("Relu", [INPUT], [OUTPUT])], {}, (3,), (OUTPUT,))
    fixed = onnx.load_from_string(graph)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ArtifactError, match="takes nothing"):
        build(fixed.SerializeToString(), {INPUT: np.zeros((1, 3), np.float32)}, {})


def test_a_tensor_of_another_type_is_refused() -> None:
    with pytest.raises(ArtifactError, match="valid network"):
        build(CONV, {"w": matrix(4, 2, 3, 3).astype(np.float64)}, {})


@pytest.mark.parametrize("graph", [b"not a graph", b"\xff" * 64, CONV[:-7]])
def test_bytes_that_are_no_graph_are_refused(graph: bytes) -> None:
    with pytest.raises(ArtifactError):
        build(graph, {"w": matrix(4, 2, 3, 3)}, {})


def test_tensors_that_the_graph_does_not_use_are_left_out() -> None:
    tensors = {"w": matrix(4, 2, 3, 3)}
    assert build(CONV, {**tensors, "unused": matrix(3)}, {}) == build(CONV, tensors, {})


def test_more_than_one_file_can_hold_is_refused() -> None:
    """4 GB that take no memory: one number, seen 2^30 times."""
    huge = np.broadcast_to(np.float32(0), (1 << 15, 1 << 15))
    graph = hand_made(
        [helper.make_node("MatMul", [INPUT, "w"], [OUTPUT])], {"w": huge}, (1 << 15,), (OUTPUT,)
    )
    with pytest.raises(ExportError, match="2 GB"):
        build(graph, {"w": huge}, {})


# ---- verification ------------------------------------------------------------------------------


def test_a_faithful_file_passes_and_the_difference_is_told() -> None:
    module, _, model = exported("lenet5")
    x = samples("lenet5", 7)
    found = check(model, module, x, 1e-5)
    with torch.no_grad():
        expected = module(x).numpy()
    outputs = session(model).run(None, {INPUT: x.numpy()})[0]
    absolute = float(np.abs(outputs - expected).max())
    assert found == Difference(absolute, absolute / float(np.abs(expected).max()), 7)
    assert compare(model, module, x) == found


@pytest.mark.parametrize("layer", ["conv1.weight", "fc1.bias", "fc2.weight"])
def test_a_perturbed_network_is_refused(layer: str) -> None:
    module, _, model = exported("lenet5")
    parameter = module.get_parameter(layer)
    with torch.no_grad():
        before = parameter.clone()
        parameter.add_(0.01)
        try:
            with pytest.raises(ExportError, match=r"differs from PyTorch.*not written"):
                check(model, module, samples("lenet5", 5), 1e-4)
        finally:
            parameter.copy_(before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_are_refused_even_where_they_agree(bad: float) -> None:
    module = get("lenet5").build().eval()
    with torch.no_grad():
        module.get_parameter("fc2.bias")[3] = bad
    model = build(exported("lenet5")[1], plain_state(module), {})
    with pytest.raises(ExportError, match="nan relative"):
        check(model, module, samples("lenet5", 2), 1.0)


def test_the_difference_by_formula() -> None:
    expected = np.array([[1.0, -4.0], [0.0, 2.0]], dtype=np.float32)
    found = np.array([[1.5, -4.0], [0.25, 1.0]], dtype=np.float32)
    assert difference(expected, found) == Difference(1.0, 0.25, 2)
    assert difference(expected, expected) == Difference(0.0, 0.0, 2)
    zeros = np.zeros((3, 2), dtype=np.float32)
    assert difference(zeros, zeros + 0.5) == Difference(0.5, 0.5, 3)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ExportError, match=r"\(2, 3\).*\(2, 2\)"):
        difference(np.zeros((2, 2)), np.zeros((2, 3)))


def test_a_file_that_the_runtime_cannot_load_is_refused() -> None:
    with pytest.raises(ExportError, match="cannot load"):
        session(b"not a model")


def test_inputs_that_the_runtime_cannot_take_are_refused() -> None:
    with pytest.raises(ExportError, match="cannot run"):
        run(session(exported("lenet5")[2]), INPUT, np.zeros((1, 3, 28, 28), np.float32))
