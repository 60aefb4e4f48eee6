"""The .ort file: what it computes, that it is the same every time, and what it is made of."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor  # noqa: F401 (sets the path)
from torch import nn

from compressor.errors import ExportError
from compressor.export import graph, ort, ort_layout
from compressor.export import onnx as exporting
from compressor.storage import plain_state


@pytest.fixture(scope="module")
def model() -> bytes:
    """Convolution, residual, pooling and a linear layer, over (1, 8, 8)."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.first(x)))
            x = nn.functional.max_pool2d(x + torch.relu(self.second(x)), 2)
            out: torch.Tensor = self.last(x.flatten(1))
            return out

    torch.manual_seed(0)
    module = Small().eval()
    skeleton = graph.trace(module, torch.zeros(1, 1, 8, 8), 18)
    return exporting.build(skeleton, plain_state(module), {})


def outputs(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": x})[0]
    return found


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype(np.float32)


def as_converted(model: bytes, folder: Path) -> bytes:
    """What ONNX Runtime itself writes, before the layout is settled."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "raw.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return (folder / "raw.ort").read_bytes()


def kernels(file: bytes) -> list[Any]:
    """The table of kernels, read by ONNX Runtime's own classes."""
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    session = InferenceSession.GetRootAs(file, 0)
    resolver = session.KernelTypeStrResolver()

    def types(operator: Any) -> Iterator[object]:
        for j in range(operator.KernelTypeStrArgsLength()):
            item = operator.KernelTypeStrArgs(j)
            arguments = [item.Args(k) for k in range(item.ArgsLength())]
            yield item.KernelTypeStr(), [(a.ArgType(), a.Index()) for a in arguments]

    operators = [
        resolver.OpKernelTypeStrArgs(i) for i in range(resolver.OpKernelTypeStrArgsLength())
    ]
    return [session.OrtVersion(), *[(item.OpId(), list(types(item))) for item in operators]]


@pytest.mark.parametrize("batch", [1, 7])
def test_it_computes_what_the_onnx_file_does_for_any_batch(model: bytes, batch: int) -> None:
    x = images(batch)
    expected, found = outputs(model, x), outputs(ort.convert(model), x)

    assert found.shape == (batch, 10)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_it_is_in_the_format_of_onnx_runtime(model: bytes) -> None:
    file = ort.convert(model)

    assert flatbuffers.util.BufferHasIdentifier(file, 0, b"ORTM")
    with pytest.raises(Exception, match=r"parsing|decode|Wire"):
        onnx.load_from_string(file)


def test_only_standard_operators_are_in_it(model: bytes) -> None:
    names = [item[0] for item in kernels(ort.convert(model))[1:]]

    assert b":Conv:11" in names
    assert all(name.startswith(b":") for name in names)  # DOMAIN:OPERATOR:VERSION; no domain: ONNX


def test_the_same_network_gives_the_same_bytes_in_every_process(
    model: bytes, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(model)
    code = (
        "import sys, hashlib, pathlib; from compressor.export import ort; "
        "model = pathlib.Path(sys.argv[1]).read_bytes(); "
        "print(*{hashlib.sha256(ort.convert(model)).hexdigest() for _ in range(4)})"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "net.onnx"],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        ).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1
    assert len(hashes.pop().split()) == 1


def test_the_settled_layout_holds_what_onnx_runtime_wrote(model: bytes, tmp_path: Path) -> None:
    raw = as_converted(model, tmp_path)
    file = ort_layout.settled(raw)

    assert kernels(file) == kernels(raw)
    assert file[-len(model) // 2 :] == raw[-len(model) // 2 :]
    assert ort_layout.settled(file) == file
    assert len(file) % ort_layout.ALIGNMENT == 0
    assert np.array_equal(outputs(file, images(3)), outputs(raw, images(3)))


def test_a_file_with_fields_of_a_later_version_stays_as_it_is() -> None:
    builder = flatbuffers.Builder(0)
    builder.StartObject(5)
    builder.PrependUint32Slot(4, 7, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"ORTM")
    file = bytes(builder.Output())

    assert ort_layout.settled(file) == file


def test_what_cannot_be_converted_is_one_line() -> None:
    with pytest.raises(ExportError, match="ONNX Runtime cannot load the file") as error:
        ort.convert(b"not a network")
    assert "\n" not in str(error.value)
