"""Networks that bring their graph: ONNX, torch.export and TorchScript files as input."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

import compressor
from compressor import api, artifact, graphs, loading
from compressor.errors import ArtifactError, LoadError
from compressor.examples import inputs_of, outputs_of
from compressor.graphs import onnx_file
from compressor.graphs.exported import check_safe
from compressor.graphs.onnx_shapes import with_batch
from compressor.layers import compressible_layers
from compressor.tracing import quiet

Compress = Callable[..., Any]
SMALL = ("--threads", 1, "-q")


class Convolutions(nn.Module):
    """Strides, groups, a transposed one, a norm, pooling, and a view with the batch in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Hardswish())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(functional.relu6(self.norm(self.first(x))))
        x = functional.max_pool2d(self.up(x), 2)
        logits: Tensor = self.head(x.view(x.size(0), -1))
        return logits


class Pyramid(nn.Module):
    """Resized by factors and to a size, and joined: as segmentation networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2.0)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.first(x))
        deep = functional.relu(self.deep(functional.avg_pool2d(first, 2)))
        smooth = functional.interpolate(deep, size=first.shape[2:], mode="bilinear")
        logits: Tensor = self.head(torch.cat([first, self.up(deep), smooth], 1))
        return logits


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 7, batch_first=True, bidirectional=True)
        self.one = nn.GRU(14, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.one(self.both(x)[0])[0][:, -1])
        return logits


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        logits: Tensor = self.head(self.layer(x)[:, 0])
        return logits


class Several(nn.Module):
    """Words and numbers in, two answers out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.left, self.right = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, words: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        both = self.left(self.words(words).mean(1)) + self.right(numbers)
        return {"logits": both, "chances": both.softmax(-1)}


def networks() -> dict[str, tuple[nn.Module, Any]]:
    torch.manual_seed(0)
    nets = {
        "convolutions": (Convolutions(), torch.randn(1, 3, 16, 16)),
        "pyramid": (Pyramid(), torch.randn(1, 3, 8, 8)),
        "recurrent": (Recurrent(), torch.randn(1, 9, 6)),
        "attention": (Attention(), torch.randn(1, 5, 16)),
        "several": (Several(), (torch.randint(0, 11, (1, 4)), torch.randn(1, 3))),
    }
    for module, _ in nets.values():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
                nn.init.normal_(layer.weight)
        module.eval()
    return nets


NETWORKS = networks()
FORMS = ("script", "script-free", "dynamo", "pt2", "jit")


def saved(form: str, name: str, folder: Path) -> Path:
    """The network in one form, recorded for a batch of one except by ``script-free``."""
    module, example = NETWORKS[name]
    inputs = inputs_of(example)
    path = folder / f"{name}.{'pt2' if form == 'pt2' else 'pt' if form == 'jit' else 'onnx'}"
    with quiet():
        if form == "pt2":
            torch.export.save(torch.export.export(module, inputs), path)
        elif form == "jit":
            torch.jit.save(torch.jit.trace(module, inputs, check_trace=False, strict=False), path)  # type: ignore[no-untyped-call]
        elif form == "dynamo":
            program = torch.onnx.export(module, inputs, dynamo=True, opset_version=18)
            assert program is not None
            program.save(path)
        else:
            names = [f"in{at}" for at in range(len(inputs))]
            free = {each: {0: "n"} for each in names} if form == "script-free" else None
            torch.onnx.export(
                module,
                inputs,
                path,
                dynamo=False,
                opset_version=14,
                input_names=names,
                dynamic_axes=free,
            )
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_becomes_the_same_network_for_any_batch(
    name: str, form: str, tmp_path: Path
) -> None:
    module, example = NETWORKS[name]
    path = saved(form, name, tmp_path)
    kind = {"pt2": "pt2", "jit": "torchscript"}.get(form, "onnx")
    if (name, form) == ("attention", "jit"):  # its script asks which kernel to take
        with pytest.raises(LoadError, match=r"cannot be recorded .* or save it with torch.export"):
            graphs.read(path, kind, example=example)
        return
    found = graphs.read(path, kind, example=example)
    three = tuple(torch.cat([x, x.flip(-1), x]) for x in inputs_of(example))
    with torch.no_grad():
        expected, got = (outputs_of(each(*three)) for each in (module, found.module))
    for want, have in zip(expected, got, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    own, theirs = (compressible_layers(each).values() for each in (module, found.module))
    shapes = {(layer.kind, tuple(layer.weight.shape)) for layer in theirs}
    assert shapes >= {(layer.kind, tuple(layer.weight.shape)) for layer in own}


@pytest.mark.parametrize("form", ["script", "pt2", "jit"])
def test_layers_keep_the_names_of_their_weights(form: str, tmp_path: Path) -> None:
    module, example = NETWORKS["convolutions"]
    kind = {"pt2": "pt2", "jit": "torchscript"}.get(form, "onnx")
    found = graphs.read(saved(form, "convolutions", tmp_path), kind, example=example)
    assert set(compressible_layers(found.module)) == set(compressible_layers(module))


def test_a_norm_that_was_recorded_learns_again(tmp_path: Path) -> None:
    example = NETWORKS["convolutions"][1]
    found = graphs.read(saved("pt2", "convolutions", tmp_path), "pt2").module
    norm = found.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d)
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    found.train()(torch.randn(4, *example.shape[1:])).sum().backward()
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]
    assert norm.weight.grad is not None


@pytest.mark.parametrize(
    ("own", "sizes", "expected"),
    [
        ((0, 8, 4, 4), [1, 128], (0, 128)),  # a classifier's flatten
        ((0, 197, 768), [1, -1], (0, 197 * 768)),
        ((197, 0, 768), [197, 12, 64], (197, (0, 12), 64)),  # heads beside the batch
        ((6, 0, 4, 4), [6, 16], ((6, 0), 16)),  # rows joined
        ((0, 3), [3], None),
    ],
)
def test_sizes_written_for_one_batch(own: Any, sizes: list[int], expected: Any) -> None:
    """0 stands for the batch; the expected sizes are derived by hand from row-major order."""
    found: list[Any] = []

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            axis = own.index(0)
            moved = x.movedim(0, axis)
            found.append(with_batch(list(moved.shape), sizes, 1))
            return moved.reshape(found[-1])

    if expected is None:
        expected = ((0, 3),)
    rest = [size for size in own if size]
    batch = torch.export.Dim("n")
    program = torch.export.export(
        Net(), (torch.zeros(2, *rest),), dynamic_shapes=({0: batch},), strict=False
    )
    for count in (3, 5):
        shape = tuple(program.module()(torch.zeros(count, *rest)).shape)
        assert shape == tuple(
            int(np.prod([count if part == 0 else part for part in np.atleast_1d(each)]))
            for each in expected
        )


# ---- the whole way -----------------------------------------------------------------------------


def test_an_onnx_file_goes_the_whole_way_without_source(compress: Compress, here: Path) -> None:
    saved("script", "convolutions", here)
    cut = ("--channels", 0.25, "--round", 1, "--sparsity", 0.5, "--quantize", "4bit")
    done = compress("convolutions.onnx", *cut, *SMALL)
    assert (done.code, done.err) == (0, "")
    folder = here / "convolutions-compressed"
    report = json.loads((folder / "report.json").read_text())
    assert report["network"]["arch"] == "onnx"
    assert report["stages"]["channels"]["macs"] < report["stages"]["dense"]["macs"]
    assert report["stages"]["prune"]["sparsity"] == pytest.approx(0.5, abs=0.02)
    # The artifact gives back a module, though no class stands behind it: that of its own ONNX file.
    module = api.load(folder / "convolutions.dcz")
    x = torch.randn(3, 3, 16, 16)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "convolutions.onnx"))
    with torch.no_grad():
        np.testing.assert_allclose(
            module(x).numpy(), session.run(None, {"input": x.numpy()})[0], rtol=1e-5, atol=1e-6
        )
    # And our own file is an input like any other.
    assert (
        compress(folder / "convolutions.onnx", "--quantize", "4bit", "--dry-run", *SMALL).code == 0
    )


@pytest.mark.parametrize("form", ["script", "pt2"])
def test_a_recurrent_network_comes_back_from_its_artifact(
    form: str, compress: Compress, here: Path
) -> None:
    """torch's exporter cuts the weights into gates and joins them anew; they are layers again."""
    source = saved(form, "recurrent", here)
    done = compress(source.name, "--sparsity", 0.5, "--quantize", "4bit", *SMALL)
    assert (done.code, done.err) == (0, "")
    dcz = here / "recurrent-compressed" / "recurrent.dcz"
    module = api.load(dcz)
    names = {name for name, _ in module.named_parameters()}
    assert {"both.weight_ih_l0", "both.weight_hh_l0_reverse", "one.bias_hh_l0"} <= names
    x = torch.randn(3, 9, 6)
    session = compressor.session(dcz)
    with torch.no_grad():
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.testing.assert_allclose(module(x).numpy(), found, rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs_go_the_whole_way(compress: Compress, here: Path) -> None:
    saved("pt2", "several", here)
    done = compress("several.pt2", "--sparsity", 0.5, "--quantize", "3bit", *SMALL)
    assert (done.code, done.err) == (0, "")
    model = onnx.load(here / "several-compressed" / "several.onnx")
    assert [item.name for item in model.graph.input] == ["words", "numbers"]
    assert [item.name for item in model.graph.output] == ["logits", "chances"]


def test_an_onnx_file_retrains(compress: Compress, shelf: Path, here: Path) -> None:
    module = loading.load(shelf / "net.pt").module
    with quiet():
        torch.onnx.export(
            module, (torch.zeros(1, 1, 28, 28),), here / "net.onnx", dynamo=False, opset_version=17
        )
    data = ("--data", shelf / "data.npz", "--epochs", 1, "--sparsity", 0.5)
    done = compress("net.onnx", *data, *SMALL)
    assert (done.code, done.err) == (0, "")
    report = json.loads((here / "net-compressed" / "report.json").read_text())
    assert len(report["stages"]["prune"]["history"]) == 1


# ---- what a file tells ---------------------------------------------------------------------------


def test_the_content_tells_what_a_file_is(here: Path) -> None:
    example = NETWORKS["convolutions"][1]
    for form, kind in (("script", "onnx"), ("pt2", "pt2"), ("jit", "torchscript")):
        path = saved(form, "convolutions", here).rename(here / "lies.safetensors")
        arch = loading.load(path, input_shape=tuple(example.shape[1:])).arch
        assert arch == kind
    torch.save(NETWORKS["convolutions"][0].state_dict(), here / "state.onnx")
    with pytest.raises(LoadError, match="these weights"):
        loading.load(here / "state.onnx")


def test_the_input_size_is_asked_for_where_a_file_leaves_it_open(here: Path) -> None:
    path = saved("jit", "convolutions", here)
    with pytest.raises(LoadError, match="--input-shape 1,3,HEIGHT,WIDTH"):
        loading.load(path)
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"
    onnx.save(model, here / "open.onnx")
    with pytest.raises(LoadError, match=r"'x' open \(n, features\): add --input-shape 1,C"):
        loading.load(here / "open.onnx")


def test_the_class_of_a_recorded_network_may_be_named(here: Path) -> None:
    from compressor.models import registry

    module = registry.get("lenet-300-100").build().eval()
    with quiet():
        torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 28, 28),)), here / "a.pt2")
    found = loading.load(here / "a.pt2", arch="lenet-300-100")
    assert type(found.module) is type(module)
    onnx.save(network(), here / "net.onnx")
    with pytest.raises(LoadError, match="brings its own graph: leave --arch out"):
        loading.load(here / "net.onnx", arch="lenet-300-100")


# ---- what can be wrong with a file ---------------------------------------------------------------


def network(**changes: Any) -> onnx.ModelProto:
    """x (n, 4) -> Gemm -> Relu -> y (n, 3)."""
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "fc.weight")
    bias = numpy_helper.from_array(np.ones(3, np.float32), "fc.bias")
    nodes = [
        helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["h"], "fc", transB=1),
        helper.make_node("Relu", ["h"], ["y"], "act"),
    ]
    graph = helper.make_graph(
        changes.get("nodes", nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        changes.get("weights", [weight, bias]),
    )
    opset = [helper.make_opsetid("", changes.get("opset", 17)), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, f"the-{kind}", **attributes)


def beside(model: onnx.ModelProto, path: Path) -> Path:
    """Saved with every weight in a file beside it, weights.bin."""
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_weights_beside_a_file_are_its_own(tmp_path: Path) -> None:
    """They are read, and they are told apart: a run is not continued with others."""
    whole = saved("script-free", "convolutions", tmp_path)
    apart = beside(onnx.load(whole), tmp_path / "apart.onnx")
    assert apart.stat().st_size < whole.stat().st_size / 2
    shape = tuple(NETWORKS["convolutions"][1].shape[1:])
    expected, found = (loading.load(path, input_shape=shape) for path in (whole, apart))
    want, have = (each.module.state_dict() for each in (expected, found))
    assert list(want) == list(have)
    assert all(torch.equal(value, have[name]) for name, value in want.items())
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1  # the last bit of a number
    (tmp_path / "weights.bin").write_bytes(weights)
    assert loading.load(apart, input_shape=shape).source != found.source


def test_functions_are_put_in_line_before_large_weights_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That makes bytes of the whole model, which cannot be more than 2 GB."""
    nodes = [
        helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["h"], "fc", transB=1),
        node("Positive", ["h"], ["y"], domain="mine"),
    ]
    model = network(nodes=nodes)
    inner, opset = [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Positive", ["a"], ["b"], inner, opset))
    real, seen = onnx_file.inliner.inline_local_functions, []

    def inline(given: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(sum(len(item.raw_data) for item in given.graph.initializer))
        return real(given)

    monkeypatch.setattr(onnx_file.inliner, "inline_local_functions", inline)
    module = loading.load(beside(model, tmp_path / "net.onnx")).module
    assert seen == [0]
    x = torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4]])
    assert module(x).tolist() == [[11.0] * 3, [0.0] * 3]


def outside() -> onnx.ModelProto:
    model = network()
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, "../weights.bin")
    weight.ClearField("raw_data")
    return model


def absent() -> onnx.ModelProto:
    model = outside()
    model.graph.initializer[0].external_data[0].value = "weights.bin"
    return model


NAN = numpy_helper.from_array(np.full((3, 4), np.nan, np.float32), "fc.weight")
BIAS = numpy_helper.from_array(np.ones(3, np.float32), "fc.bias")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (network(nodes=[node("Gelato", ["x"], ["y"])]), "node 'the-Gelato' is Gelato, an operator"),
        (
            network(nodes=[node("Fast", ["x"], ["y"], domain="mine")]),
            "is Fast of the domain 'mine', which only its own runtime knows",
        ),
        (network(nodes=[node("If", ["x"], ["y"])]), "is If: the network's course depends"),
        (
            network(nodes=[node("QuantizeLinear", ["x", "fc.bias"], ["y"])]),
            "quantized already; export the float network",
        ),
        (
            network(nodes=[node("Relu", ["z"], ["y"]), node("Relu", ["y"], ["z"])]),
            "uses 'z', which is made only later: the graph runs in a circle",
        ),
        (network(nodes=[node("Relu", ["z"], ["y"])]), "uses 'z', which is made nowhere"),
        (network(nodes=[node("Relu", ["x"], ["z"])]), "the output 'y' is made nowhere"),
        (network(nodes=[]), "holds no ONNX graph"),
        (network(opset=99), "uses version 99 of the ONNX operators; versions 7 to"),
        (outside(), "keeps weights outside its own folder, in '../weights.bin'"),
        (absent(), "keeps its weights in 'weights.bin', which is not beside it: copy both"),
        (network(weights=[NAN, BIAS]), "fc.weight contains NaN; the training that made it"),
        (
            network(
                nodes=[node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2])], weights=[BIAS]
            ),
            "is MaxPool with what is not read here: the places of the maxima",
        ),
    ],
)
def test_onnx_files_that_are_refused(
    compress: Compress, here: Path, model: onnx.ModelProto, says: str
) -> None:
    (here / "net.onnx").write_bytes(model.SerializeToString())
    done = compress("net.onnx", "--quantize", "3bit", *SMALL)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert says in done.err
    assert [path.name for path in here.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("kept", [1, 5, 40, 0.5, 0.9, -1])
def test_onnx_files_that_are_cut_short(compress: Compress, here: Path, kept: float) -> None:
    whole = network().SerializeToString()
    (here / "net.onnx").write_bytes(whole[: int(kept * len(whole)) if kept % 1 else int(kept)])
    done = compress("net.onnx", "--quantize", "3bit", *SMALL)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("error: net.onnx")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("run-by-the-pickle", "w"))


def test_a_recorded_network_runs_no_code(here: Path) -> None:
    """Pickled tensors, and sizes that ``sympify`` would evaluate, are refused beforehand."""
    path = saved("pt2", "convolutions", here)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in parts if name.endswith("weights_config.json"))
    graph = next(name for name in parts if name.endswith("models/model.json"))
    pickled = parts[config].replace(b'"use_pickle": false', b'"use_pickle": true')
    assert pickled != parts[config]
    sized = json.loads(parts[graph])
    sized["range_constraints"] = {"x": {"expr_str": "open('run-by-the-size', 'w')"}}
    for name, content, says in (
        (config, pickled, "keeps tensors as pickles, .* or pass --trust-pickle"),
        (graph, json.dumps(sized).encode(), 'a size in its graph is no formula: "open'),
        ("net/data/weights/model.pt", pickle.dumps(Payload()), "keeps weights as pickles"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for each, value in (parts | {name: content}).items():
                archive.writestr(each, value)
        with pytest.raises(LoadError, match=says):
            loading.load(path)
    assert not list(here.glob("run-by-*"))


@pytest.mark.parametrize("text", ["s0 + 1", "Max(1, s77//2)", "2*s0**2 - u3", "(s0 + 3)//4 > 1"])
def test_formulas_of_sizes_pass(text: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("a/models/model.json", json.dumps({"expr_str": text}))
    check_safe(tmp_path / "a.pt2")


def test_an_artifact_without_its_graph_says_what_it_lacks(compress: Compress, here: Path) -> None:
    onnx.save(network(), here / "net.onnx")
    weight = network().graph.initializer[0]
    assert weight.name == "fc.weight"
    done = compress("net.onnx", "--sparsity", "0.5", "--weights-only", *SMALL)
    assert (done.code, done.err) == (0, "")
    assert artifact.read(here / "net-compressed" / "net.dcz").graph is None
    with pytest.raises(ArtifactError, match="--weights-only and has no graph"):
        api.load(here / "net-compressed" / "net.dcz")
