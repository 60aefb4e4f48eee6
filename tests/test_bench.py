"""``compress bench``: what it finds, and what becomes of files, runtimes and users that fail."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.benchmarks.harness import layers, rounds
from compressor.benchmarks.harness.processes import Failed, Process
from compressor.benchmarks.harness.rounds import Cell, Limits, Participant
from compressor.benchmarks.harness.subjects import Subject, subjects
from compressor.channels.speed import exported
from compressor.cli.bench import named_shape
from compressor.errors import UsageError
from compressor.export import ort
from compressor.models import get
from compressor.network import Network

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "bench.schema.json").read_text())
LENET = {"conv1": 288_000, "conv2": 1_600_000, "fc1": 400_000, "fc2": 5_000}
"""Output size x kernel size x channels in and out."""


def model(nodes: list[Any], inputs: dict[str, list[Any]], *weights: onnx.TensorProto) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", ends, [output], list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = made.SerializeToString()
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 as .pt, .onnx and .ort; networks that fail in one way each."""
    folder = tmp_path_factory.mktemp("bench")
    torch.manual_seed(0)
    module = get("lenet5").build()
    torch.save(module.state_dict(), folder / "lenet5.pt")
    content = exported(Network(module, torch.zeros(1, 1, 28, 28), "lenet5", "lenet5"))
    (folder / "lenet5.onnx").write_bytes(content)
    (folder / "lenet5.ort").write_bytes(ort.convert(content))
    product = helper.make_node("MatMul", ["a", "b"], ["out"])
    (folder / "two.onnx").write_bytes(model([product], {"a": ["n", "m", 8], "b": ["n", 8, "k"]}))
    log = helper.make_node("Log", ["a"], ["out"])
    (folder / "nan.onnx").write_bytes(model([log], {"a": ["n", 8]}))
    (folder / "fixed.onnx").write_bytes(model([log], {"a": [1, 8]}))
    (folder / "junk.onnx").write_bytes(b"no network")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few rounds as give an interval."""
    monkeypatch.setattr(Limits, "__init__", lambda self, **_: None)
    for name, value in {"width": 0.03, "seconds": 0.0, "launches": 1, "rounds": 3}.items():
        monkeypatch.setattr(Limits, name, value)


def result_of(outcome: Any) -> Any:
    found = json.loads(outcome.out)
    assert_valid(found, SCHEMA)
    return found


def assert_valid(value: Any, schema: Any, where: str = "$") -> None:
    """The part of JSON Schema that docs/bench.schema.json uses."""
    if "$ref" in schema:
        return assert_valid(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    kinds = schema.get("type", [])
    names = {
        **{dict: "object", list: "array", str: "string", bool: "boolean"},
        **{int: "integer", float: "number", type(None): "null"},
    }
    kind = names[type(value)]
    allowed = [kinds] if isinstance(kinds, str) else kinds
    assert not allowed or kind in allowed or (kind == "integer" and "number" in allowed), where
    if kind == "object":
        assert set(schema.get("required", [])) <= set(value), where
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is False:
            assert set(value) <= set(known), (where, set(value) - set(known))
        for key, item in value.items():
            if key in known:
                assert_valid(item, known[key], f"{where}.{key}")
    if kind == "array" and "items" in schema:
        for position, item in enumerate(value):
            assert_valid(item, schema["items"], f"{where}[{position}]")
    return None


# ---- what it finds -----------------------------------------------------------------------------


def test_two_forms_of_lenet5(compress: Any, folder: Path) -> None:
    """A checkpoint, which is measured as the ONNX file that it is exported to, and .ort."""
    files = [folder / f"lenet5.{kind}" for kind in ("pt", "ort")]
    found = result_of(compress("bench", *files, "--runtime", "ort", "--per-layer", "--json"))

    for row in found["subjects"]:
        assert row["macs"] == sum(LENET.values())
        assert row["parameters"] == 431_080
        assert {each["layer"]: each["macs"] for each in row["per_layer"]["layers"]} == LENET
        assert all(each["ms"] > 0 for each in row["per_layer"]["layers"])
    assert found["subjects"][0]["bytes"] == files[0].stat().st_size
    for cell in found["cells"]:
        middle = cell["median_ms"]
        assert 0 < cell["minimum_ms"] <= cell["p5_ms"] <= middle["value"] <= cell["p95_ms"]
        assert middle["low"] <= middle["value"] <= middle["high"]
        assert cell["rounds"] == [3]
        assert len(cell["call_ms"]) == cell["calls"]
        assert cell["finite"]
    assert found["cells"][0]["faster"] is None
    assert found["cells"][1]["faster"]["low"] <= found["cells"][1]["faster"]["value"]


@pytest.mark.slow
def test_a_table_for_people(compress: Any, folder: Path) -> None:
    outcome = compress("bench", folder / "lenet5.onnx", folder / "lenet5.onnx", "--sparse")
    assert "lenet5.onnx #2" in outcome.out
    assert "x [" in outcome.out
    assert "pays: scipy-csr against torch" in outcome.out
    assert "2,293,000" in outcome.out


def test_the_layers_of_a_graph_by_formula(tmp_path: Path) -> None:
    """A strided group convolution, a transposed one and a product of 3-D activations."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["y"], group=2, strides=[2, 2]),
        helper.make_node("ConvTranspose", ["y", "b.weight"], ["z"]),
        helper.make_node("MatMul", ["z", "c.weight"], ["out"]),
    ]
    content = model(
        nodes,
        {"x": ["n", 4, 9, 9]},
        *(weight("a.weight", 6, 2, 3, 3), weight("b.weight", 6, 5, 3, 3), weight("c.weight", 6, 7)),
    )
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    rows = {row.name: row for row in layers.counted(Subject(str(file), "onnx", "net"))[1]}
    assert {name: row.macs for name, row in rows.items()} == {
        "a": 4 * 4 * 6 * 2 * 9,
        "b": 6 * 4 * 4 * 5 * 9,
        "c": 5 * 6 * 6 * 7,
    }
    assert rows["a"].bytes == 4 * (4 * 81 + 6 * 2 * 9 + 6 * 16)
    assert rows["c"].parameters == 42


@pytest.mark.slow
def test_accuracy_on_the_same_images(compress: Any, folder: Path, shelf: Path) -> None:
    files = folder / "lenet5.onnx", folder / "lenet5.ort"
    found = result_of(compress("bench", *files, "--data", shelf / "data.npz", "--json"))
    one, other = (row["accuracy"] for row in found["subjects"])
    assert one["low"] < one["value"] < one["high"]
    assert other["change"] == {"value": 0.0, "low": 0.0, "high": 0.0}


# ---- bad input ---------------------------------------------------------------------------------


def test_two_inputs_ask_for_their_shapes(compress: Any, folder: Path) -> None:
    outcome = compress("bench", folder / "two.onnx", "-q")
    assert outcome.code == 1
    assert "add --input-shape a:1,M,8 --input-shape b:1,8,K" in outcome.err
    shapes = "--input-shape", "a:1,4,8", "--input-shape", "b:1,8,2"
    found = result_of(compress("bench", folder / "two.onnx", *shapes, "--json"))
    assert found["subjects"][0]["macs"] == 4 * 8 * 2
    assert found["cells"][0]["failure"] is None


def test_failures_are_reported_and_others_measured(compress: Any, folder: Path) -> None:
    names = ("nan", "fixed", "junk")
    files = [folder / f"{name}.onnx" for name in names]
    found = result_of(compress("bench", *files, "--batch", "1,2", "--json"))
    cells = {(cell["subject"], cell["batch"]): cell for cell in found["cells"]}
    assert cells["nan.onnx", 2]["finite"] is False
    assert any("nan.onnx in ort gives outputs that are NaN" in text for text in found["warnings"])
    assert cells["fixed.onnx", 1]["failure"] is None
    assert "fixed at 1, not 2" in cells["fixed.onnx", 2]["failure"]
    assert "cannot load" in cells["junk.onnx", 1]["failure"]
    assert "not an ONNX file" in found["subjects"][2]["failure"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lenet5.onnx", "--runtime", "torch"), "give --runtime ort"),
        (("lenet5.onnx", "--runtime", "tvm"), "--runtime tvm: there are torch"),
        (("lenet5.onnx", "--batch", "0"), "--batch 0: give whole numbers"),
        (("lenet5.onnx", "--device", "gpu"), "--device gpu: give cpu, cuda or cuda:N"),
        (("lenet5.onnx", "--data", "nothing"), "accuracy was not measured: no data set is called"),
        (("lenet5.txt",), "the name must end in"),
        (("absent.onnx",), "does not exist"),
    ],
)
def test_one_line_for_a_mistake(
    compress: Any, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    outcome = compress("bench", folder / arguments[0], *arguments[1:], "-q")
    assert outcome.code in (1, 2)
    assert said in outcome.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(compress: Any, folder: Path) -> None:
    cuda = ("--device", "cuda", "-q", "--runtime")
    assert "finds no CUDA device" in compress("bench", folder / "lenet5.pt", *cuda, "torch").err
    assert "has no CUDA provider" in compress("bench", folder / "lenet5.onnx", *cuda, "ort").err


def test_shapes_with_names() -> None:
    assert named_shape("1,3,32,32") == ("", (1, 3, 32, 32))
    assert named_shape("left:1,8") == ("left", (1, 8))
    with pytest.raises(UsageError, match="a batch of 1 first"):
        named_shape("left:2,8")


# ---- processes ---------------------------------------------------------------------------------


def test_a_crash_stays_in_its_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker killed in the midst of its work is reported; the other one is measured."""
    good, bad = subjects([folder / "lenet5.onnx", folder / "nan.onnx"])
    pair = [Participant(one, "ort", "cpu", {(1, 1): Cell(one, "ort", 1, 1)}) for one in (good, bad)]
    send = Process.send

    def crashing(self: Process, request: dict[str, Any]) -> None:
        if request["do"] == "measure" and self is pair[1].process:
            self.process.send_signal(signal.SIGSEGV)
            self.process.wait()
        send(self, request)

    monkeypatch.setattr(Process, "send", crashing)
    monkeypatch.setattr(Limits, "launches", 2)
    outcome = rounds.measure(pair, [(1, 1)], Limits())
    assert not outcome.interrupted
    assert "crashed in its process (signal SIGSEGV)" in (pair[1].cells[1, 1].failure or "")
    assert pair[0].cells[1, 1].failure is None
    assert [len(each) for each in pair[0].cells[1, 1].rounds()] == [3, 3]


def test_a_worker_that_hangs_is_ended() -> None:
    with Process(1) as process:
        process.process.send_signal(signal.SIGSTOP)
        process.send({"do": "imports", "names": []})
        with pytest.raises(Failed, match="no answer in 0 s"):
            process.receive(0.2)


def test_an_interrupt_keeps_what_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = subjects([folder / "lenet5.onnx"])
    participant = Participant(one, "ort", "cpu", {(1, 1): Cell(one, "ort", 1, 1)})
    send, sent = Process.send, []

    def stopping(self: Process, request: dict[str, Any]) -> None:
        sent.append(request["do"])
        if sent.count("measure") == 3:
            raise KeyboardInterrupt
        send(self, request)

    monkeypatch.setattr(Process, "send", stopping)
    outcome = rounds.measure([participant], [(1, 1)], Limits())
    assert outcome.interrupted
    assert [len(each) for each in participant.cells[1, 1].rounds()] == [2]


def test_ctrl_c_prints_what_was_measured(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    words = [
        *(sys.executable, "-m", "compressor", "bench", str(folder / "lenet5.onnx")),
        *("--width", "0.0001", "--seconds", "60", "-q", "-o", str(output)),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        time.sleep(4)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "what was measured until then" in said
    found = json.loads(output.read_text())
    assert found["interrupted"] is True
    assert_valid(found, SCHEMA)


def test_importing_is_quick_and_needs_no_torch() -> None:
    code = """
import sys, time
begin = time.process_time()
import compressor.benchmarks.harness.bench
print(time.process_time() - begin, sorted({"torch", "onnx", "onnxruntime"} & set(sys.modules)))
"""
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert all("[]" in each.stdout for each in done)
    assert min(float(each.stdout.split()[0]) for each in done) < 0.3
