"""The decoder for browsers, in Node: it reads what Python reads, bit for bit, refuses what Python
refuses, and what it gives to ONNX Runtime computes what Python's model does. Needs no npm package.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.artifact import Shared, encode, read
from compressor.export import graph as graphs
from compressor.export.onnx import build
from compressor.training.data_sources import NAMED
from tests import edge_files
from tests.edge_files import GOLDEN, ROOT, TRUSTING, run, sealed

JS = ROOT / "edge" / "js"
NODE = shutil.which("node")
OPSET = 18
DIGIT = str(JS / "demo" / "digit.js")


def major() -> int:
    """Node's version; 0 without it."""
    if NODE is None:
        return 0
    done = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.removeprefix("v").split(".")[0])


pytestmark = pytest.mark.skipif(major() < 18, reason="there is no Node of version 18 or newer")
clang = pytest.mark.skipif(
    not (shutil.which("clang") and shutil.which("wasm-ld")), reason="clang or wasm-ld is missing"
)


def program(library: Path = JS / "dcz.js") -> list[str | Path]:
    return [NODE or "node", JS / "test" / "decode.mjs", library]


def test_good_files_come_out_bit_for_bit(tmp_path: Path) -> None:
    edge_files.assert_reads_good_files(program(), tmp_path)


def test_bad_files_are_refused() -> None:
    edge_files.assert_refuses_bad_files(program())


def test_damaged_files_are_refused_or_whole(tmp_path: Path) -> None:
    edge_files.assert_never_wrong(program(), tmp_path, 1500)


def built(folder: Path, *flags: str) -> Path:
    """A package whose WebAssembly is compiled now."""
    for name in ("dcz.js", "onnx.js", "errors.js", "package.json"):
        shutil.copy(JS / name, folder)
    subprocess.run(["node", JS / "build.mjs", folder / "dcz.wasm.js", *flags], check=True)
    return folder / "dcz.js"


@clang
def test_of_damaged_files_it_makes_what_python_makes(tmp_path: Path) -> None:
    library = built(tmp_path, *TRUSTING)
    assert 100 < edge_files.count_agreed(program(library), tmp_path, sealed(0, 1000)) < 900


@pytest.mark.slow
@clang
def test_so_it_does_of_many(tmp_path: Path) -> None:
    library = built(tmp_path, *TRUSTING)
    assert edge_files.count_agreed(program(library), tmp_path, sealed(1 << 40, 10_000)) > 1000


@clang
def test_the_webassembly_is_that_of_the_sources(tmp_path: Path) -> None:
    """The same compiler gives the same bytes; another one, a decoder that reads the same files."""
    library = built(tmp_path)
    texts = [(folder / "dcz.wasm.js").read_text() for folder in (JS, tmp_path)]
    versions = [re.findall(r"clang ([\d.]+)", text)[0] for text in texts]
    if versions[0] != versions[1]:
        edge_files.assert_reads_good_files(program(library), tmp_path)
        pytest.skip(f"clang {versions[1]} is here, the package was made by {versions[0]}")
    assert texts[0] == texts[1]


def test_the_package_is_small() -> None:
    done = subprocess.run(
        ["node", "-p", "require('./package.json').files.join('\\n')"],
        cwd=JS,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [*done.stdout.split(), "package.json", "README.md"]
    assert sum((JS / name).stat().st_size for name in files) < 60_000


class Small(nn.Module):
    """A batch norm that can be folded, one that cannot, and a buffer of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.after = nn.BatchNorm2d(4)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        out: torch.Tensor = self.fc(self.after(x).flatten(1))
        return out


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file with a graph, and the model that Python makes of it."""
    torch.manual_seed(1)
    module = Small().eval()
    state = module.state_dict()
    for name, value in state.items():
        if name.startswith(("norm", "after")) and value.is_floating_point():
            value.uniform_(0.5, 2)
    skeleton = graphs.trace(module, torch.zeros(1, 1, 6, 6), OPSET)
    tensors: dict[str, Any] = {name: value.numpy() for name, value in module.state_dict().items()}
    book = np.linspace(-1, 1, 8, dtype=np.float32)
    tensors["fc.weight"] = Shared(
        np.random.default_rng(0).integers(0, 9, (10, 64)).astype("u1"), book
    )
    path = tmp_path_factory.mktemp("network") / "small.dcz"
    path.write_bytes(encode(tensors, graph=skeleton, metadata={"b": "2", "a": "1"}))
    artifact = read(path)
    return path, build(artifact.graph or b"", artifact.tensors(), artifact.metadata)


def outputs(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return found


def test_its_model_computes_what_pythons_does(network: tuple[Path, bytes], tmp_path: Path) -> None:
    path, expected = network
    run(program(), [path], tmp_path)
    model = (tmp_path / "0-model").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    images = np.random.default_rng(0).normal(size=(5, 1, 6, 6)).astype(np.float32)
    found, wanted = outputs(model, images), outputs(expected, images)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    properties = {item.key: item.value for item in onnx.load_from_string(model).metadata_props}
    assert properties == {"a": "1", "b": "2"}


def test_batch_norms_are_folded_as_a_session_is_made(
    network: tuple[Path, bytes], tmp_path: Path
) -> None:
    """So the package need not fold them: those that Python folds are gone when the model runs."""
    path, expected = network
    run(program(), [path], tmp_path)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession((tmp_path / "0-model").read_bytes(), options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    left = [node.op_type for node in onnx.load_from_string(expected).graph.node]
    assert left.count("BatchNormalization") == 1
    assert kinds.count("BatchNormalization") <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("tensors.delete('fc.bias')", "it must take one input"),
        ("tensors.get('fc.bias').shape = [5, 2]", "fc.bias is not the float32 of shape 5,2"),
        ("decoded.graph = decoded.graph.slice(0, 100)", "is not an ONNX graph"),
        ("decoded.graph = null", "has no graph"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    network: tuple[Path, bytes], change: str, said: str
) -> None:
    script = f"""
        const {{ decode, toOnnx, DczError }} = await import({str(JS / "dcz.js")!r});
        const {{ readFileSync }} = await import("node:fs");
        const decoded = await decode(readFileSync({str(network[0])!r}));
        const {{ tensors }} = decoded;
        {change};
        try {{
            toOnnx(decoded);
        }} catch (error) {{
            console.log(error instanceof DczError, error.message);
        }}
    """
    command = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("true ")
    assert said in done.stdout


def test_limits_are_the_callers(tmp_path: Path) -> None:
    (tmp_path / "x.dcz").write_bytes(encode({"w": np.zeros((100, 10), dtype=np.float32)}))
    for limit, code in ((4000, 0), (3999, 8)):
        (line,) = run(program(), [tmp_path / "x.dcz"], limit=limit)
        assert line[0] == [code]


def test_what_is_no_bytes_is_refused() -> None:
    script = f"""
        const {{ decode }} = await import({str(JS / "dcz.js")!r});
        await decode("{GOLDEN.name}").catch((error) => console.log(error.message));
    """
    command = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "decode takes a Uint8Array or an ArrayBuffer\n"


def node(script: str) -> Any:
    """What a module prints as JSON."""
    command = ["node", "--input-type=module", "-e", script]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_demo_sees_drawings_as_training_saw_images() -> None:
    """A rectangle of 100 x 50 fits into 20 x 10 pixels, in the middle of 28 x 28."""
    found = node(f"""
        const {{ centred, normalised, MEAN, STD }} = await import({DIGIT!r});
        const ink = new Uint8Array(280 * 280);
        for (let y = 13; y < 63; y++) ink.fill(255, y * 280 + 151, y * 280 + 251);
        const image = centred(ink, 280, 280);
        const empty = centred(new Uint8Array(280 * 280), 280, 280);
        const scaled = [...normalised(Float32Array.of(0, MEAN, 1))];
        console.log(JSON.stringify({{ image: [...image], empty, scaled, MEAN, STD }}));
    """)
    expected = np.zeros((28, 28))
    expected[9:19, 4:24] = 1
    np.testing.assert_allclose(np.reshape(found["image"], (28, 28)), expected, atol=1e-6)
    assert found["empty"] is None
    assert ((found["MEAN"],), (found["STD"],)) == (NAMED["mnist"].mean, NAMED["mnist"].std)
    wanted = [-found["MEAN"] / found["STD"], 0, (1 - found["MEAN"]) / found["STD"]]
    np.testing.assert_allclose(found["scaled"], wanted, atol=1e-6)


def test_a_drawing_is_put_around_its_centre_of_mass() -> None:
    """Of a triangle, half of a square of 20 x 20, that is a third of the way from its corner."""
    found = node(f"""
        const {{ centred }} = await import({DIGIT!r});
        const ink = new Uint8Array(280 * 280);
        for (let y = 0; y < 200; y++) ink.fill(255, y * 280, y * 280 + 200 - y);
        console.log(JSON.stringify([...centred(ink, 280, 280)]));
    """)
    image = np.reshape(found, (28, 28))
    rows, columns = np.nonzero(image)
    assert (rows.min(), columns.min()) == (7, 7)  # 14 - 20 / 3, rounded
    assert (rows.max(), columns.max()) == (26, 26)


def test_the_demos_network_is_a_few_kilobytes_and_decodes() -> None:
    path = JS / "demo" / "lenet5.dcz"
    facts = json.loads((JS / "demo" / "model.json").read_text())
    assert path.stat().st_size == facts["bytes"] < 10_000
    assert facts["plainBytes"] > 100 * facts["bytes"]
    artifact = read(path)
    assert outputs(
        build(artifact.graph or b"", artifact.tensors(), artifact.metadata),
        np.zeros((3, 1, 28, 28), dtype=np.float32),
    ).shape == (3, 10)
