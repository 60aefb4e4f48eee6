"""The INT8 file and the run that makes it: accuracy, ranges, bytes, what is refused."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import compressor
from compressor import pipeline, runtime_files
from compressor.errors import DataError, ExportError, UsageError
from compressor.export import fp16, graph, int8, verify
from compressor.export import onnx as exporting
from compressor.export.optional import TOLERANCES, _difference, missed
from compressor.files import PAGES, REPORT
from compressor.network import Network
from compressor.progress import Progress
from compressor.quantization.inputs import drawn
from compressor.recipe import Recipe
from compressor.reporting.tables import _notes
from compressor.settings import Export, Prune, Share, Training
from compressor.storage import plain_state
from compressor.training import data as datasets
from compressor.training.data import Data
from compressor.training.fit import fit


class Outcome(Protocol):
    """What a command did: exit code, stdout, stderr (see conftest.py)."""

    code: int
    out: str
    err: str


Compress = Callable[..., Outcome]
EXPORT = Export(emit=("ort", "int8", "fp16", "onnx"), calibration=64)
ONCE = Training(epochs=1, batch_size=64)
RECIPE = Recipe(prune=Prune(0.3, retrain=ONCE), share=Share(5, finetune=ONCE), export=EXPORT)


def module(last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(16 * 9, 10), last or nn.Identity()),
    ).eval()


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load("digits", input_shape=(1, 8, 8))


@pytest.fixture(scope="module")
def trained(digits: Data) -> nn.Module:
    network = module()
    context = compressor.network.Context(digits)
    fit(network, Training(epochs=5, lr=0.1, batch_size=64), context, "train")
    return network.eval()


def onnx_file(network: nn.Module) -> bytes:
    return exporting.build(
        graph.trace(network, torch.zeros(1, 1, 8, 8), 18), plain_state(network), {}
    )


@pytest.fixture(scope="module")
def calibration(digits: Data) -> np.ndarray:
    images: np.ndarray = datasets.normalise(digits.train.x[:100], digits).numpy()
    return images


@pytest.fixture(scope="module")
def dense(trained: nn.Module) -> bytes:
    return onnx_file(trained)


@pytest.fixture(scope="module")
def quantized(dense: bytes, calibration: np.ndarray) -> bytes:
    return int8.quantize(dense, [calibration[:60], calibration[60:]])


def outputs(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": x})[0]
    return found


def error(expected: np.ndarray, found: np.ndarray) -> float:
    """Root of the mean square of the difference, relative to that of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def constants(content: bytes) -> dict[str, np.ndarray]:
    proto = onnx.load_from_string(content)
    return {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}


# ---- the file ----------------------------------------------------------------------------------


def test_weights_are_int8_with_a_scale_for_each_channel(dense: bytes, quantized: bytes) -> None:
    weight = constants(dense)["0.weight"]  # (16, 1, 3, 3)
    proto, values = onnx.load_from_string(quantized), constants(quantized)
    (conv,) = [node for node in proto.graph.node if node.op_type == "Conv"]
    (source,) = [node for node in proto.graph.node if conv.input[1] in node.output]
    integers, scale, zero = (values[name] for name in source.input)

    assert integers.dtype == np.int8
    assert not zero.any()
    # Symmetric: the largest weight of a channel is 127 steps, or 127.5, as releases differ.
    assert scale == pytest.approx(np.abs(weight).max((1, 2, 3)) / 127, rel=0.01)
    steps = scale.reshape(-1, 1, 1, 1)
    assert np.abs(integers * steps - weight).max() <= 0.51 * scale.max()


def test_the_range_of_the_input_is_that_of_the_images(
    quantized: bytes, calibration: np.ndarray
) -> None:
    proto, values = onnx.load_from_string(quantized), constants(quantized)
    (first,) = [node for node in proto.graph.node if "input" in node.input]
    low, high = min(calibration.min(), 0), max(calibration.max(), 0)

    assert first.op_type == "QuantizeLinear"
    assert values[first.input[2]].dtype == np.uint8
    assert float(values[first.input[1]]) == pytest.approx((high - low) / 255, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 360])
def test_it_runs_with_any_batch(dense: bytes, quantized: bytes, digits: Data, batch: int) -> None:
    x = datasets.normalise(digits.test.x[:batch], digits).numpy()
    expected, found = outputs(dense, x), outputs(quantized, x)

    assert found.shape == (batch, 10)
    assert 0 < error(expected, found) < 0.05


def test_accuracy_is_the_share_of_right_answers(quantized: bytes, digits: Data) -> None:
    x, y = datasets.normalise(digits.test.x, digits).numpy(), digits.test.y.numpy()
    expected = np.mean(outputs(quantized, x).argmax(1) == y)
    pairs = [(x[i : i + 50], y[i : i + 50]) for i in range(0, len(y), 50)]  # the last is smaller

    assert verify.accuracy(quantized, pairs) == pytest.approx(expected)
    assert expected > 0.8


def test_only_operator_sets_in_use_are_declared(quantized: bytes) -> None:
    proto = onnx.load_from_string(quantized)
    onnx.checker.check_model(proto, full_check=True)

    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]


@pytest.mark.parametrize("opset", [21, 23])
def test_later_opsets_are_quantized_too(trained: nn.Module, digits: Data, opset: int) -> None:
    x = datasets.normalise(digits.train.x[:50], digits).numpy()
    file = exporting.build(
        graph.trace(trained, torch.zeros(1, 1, 8, 8), opset), plain_state(trained), {}
    )
    assert int8.quantized_layers(int8.quantize(file, [x])) == (2, 2)


def test_the_same_input_gives_the_same_bytes_in_every_process(
    dense: bytes, quantized: bytes, calibration: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(dense)
    np.save(tmp_path / "images.npy", calibration)
    code = (
        "import sys, pathlib, numpy as np; from compressor.export import int8; "
        "folder = pathlib.Path(sys.argv[1]); images = np.load(folder / 'images.npy'); "
        "file = int8.quantize((folder / 'net.onnx').read_bytes(), [images[:60], images[60:]]); "
        "(folder / 'net.int8.onnx').write_bytes(file)"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, tmp_path],
            check=True,
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[1],
        )
        assert (tmp_path / "net.int8.onnx").read_bytes() == quantized


class Odd(nn.Module):
    """Operators without an integer form."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(torch.sin(x), 1)


def test_operators_without_an_integer_form_stay_float(calibration: np.ndarray) -> None:
    model = onnx_file(module(Odd()))
    content = int8.quantize(model, [calibration])
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    expected, found = outputs(model, calibration), outputs(content, calibration)

    assert {"Sin", "CumSum", "QuantizeLinear"} <= set(operators)
    assert int8.quantized_layers(content) == (2, 2)
    assert 0 < error(expected, found) < 0.05


def test_quantized_layers_counts_float_ones_as_such(dense: bytes) -> None:
    assert int8.quantized_layers(dense) == (0, 2)


@pytest.mark.parametrize(
    ("images", "says"),
    [([np.zeros((5, 1, 9, 9), np.float32)], "invalid dimensions"), ([], "No data")],
    ids=["shape", "none"],
)
def test_images_that_do_not_fit_are_one_line(
    dense: bytes, images: list[np.ndarray], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=f"ONNX Runtime cannot quantize .*{says}") as caught:
        int8.quantize(dense, images)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_fp16_halves_the_weights_and_leaves_the_interface(
    dense: bytes, calibration: np.ndarray
) -> None:
    content = fp16.convert(dense)
    assert content == fp16.convert(dense)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    weights, before = constants(content), constants(dense)
    for name, value in before.items():
        if value.dtype == np.float32:
            assert np.array_equal(weights[name], value.astype(np.float16))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    types = {item.type for item in (*session.get_inputs(), *session.get_outputs())}
    assert types == {"tensor(float)"}
    expected, found = outputs(dense, calibration), outputs(content, calibration)
    # Two layers of sums of at most 144 products: roundings to 11 bits of the largest partial sum.
    assert 0 < np.abs(found - expected).max() < 8 * 2**-11 * np.abs(expected).max()


def test_outputs_too_far_away_are_missed_not_hidden() -> None:
    finite, endless = np.ones((2, 3), np.float32), np.full((2, 3), np.inf, np.float32)
    row = _difference(finite, endless)
    assert row == {"difference_absolute": None, "difference_relative": None}
    assert missed({"fp16": row}) == ["fp16: its outputs are not all finite numbers"]
    assert missed({"fp16": _difference(finite, finite + np.float32(1 / 64))}) == []
    (line,) = missed({"ort": _difference(finite, finite + np.float32(1 / 32))})
    assert line == (
        "ort: its outputs differ by 0.031 of the largest from the ONNX file's, more than 1e-05"
    )


# ---- the run -----------------------------------------------------------------------------------


def job(folder: Path, trained: nn.Module, data: Data | None, recipe: Recipe) -> pipeline.Run:
    fresh = module()
    fresh.load_state_dict(trained.state_dict())
    network = Network(fresh, torch.zeros(1, 1, 8, 8), "net", "net")
    return pipeline.Run(network, replace(recipe, threads=1), data, folder, Progress())


@pytest.fixture(scope="module")
def finished(
    trained: nn.Module, digits: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, job(folder, trained, digits, RECIPE).execute()


def contents(folder: Path) -> dict[str, bytes]:
    """All but the report, in which there are times."""
    report = {REPORT, *PAGES}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in report}


def test_a_run_leaves_both_files_and_reports_them(
    finished: tuple[Path, dict[str, Any]], digits: Data
) -> None:
    folder, report = finished
    files = contents(folder)
    rows = report["stages"]["export"]
    x, y = datasets.normalise(digits.test.x, digits).numpy(), digits.test.y.numpy()

    assert set(files) == {
        *("net.dcz", "net.onnx", "net.int8.onnx", "net.fp16.onnx", "net.ort", "recipe.toml")
    }
    assert report["files"]["int8"] == "net.int8.onnx"
    assert report["files"]["ort"] == "net.ort"
    assert report["files"]["fp16"] == "net.fp16.onnx"
    for name in ("int8", "ort", "fp16", "onnx"):
        content = files[report["files"][name]]
        assert rows[name]["bytes"] == len(content)
        assert rows[name]["gzip_bytes"] == len(gzip.compress(content, 9, mtime=0))
        found, expected = outputs(content, x), outputs(files["net.onnx"], x)
        assert rows[name]["accuracy"] == pytest.approx(np.mean(found.argmax(1) == y))
        gap = np.abs(found[:64] - expected[:64]).max() / np.abs(expected[:64]).max()
        assert rows[name]["difference_relative"] == pytest.approx(gap)
        assert gap <= rows[name]["tolerance"] == TOLERANCES[name]
    assert rows["onnx"]["difference_relative"] == 0 < rows["ort"]["tolerance"] == 1e-5
    assert report["missed"] == []
    assert set(report["latency"]["ms"]) == {"dense", "compressed", "int8", "ort", "fp16"}
    assert set(contents(folder)) | {REPORT, *PAGES} == {path.name for path in folder.iterdir()}


def test_the_images_are_training_images_drawn_by_the_seed(
    finished: tuple[Path, dict[str, Any]], digits: Data
) -> None:
    folder, report = finished
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(0))
    x = datasets.normalise(digits.train.x[order[:64].sort().values], digits).numpy()

    assert report["stages"]["export"]["int8"]["calibration_images"] == 64
    expected = int8.quantize((folder / "net.onnx").read_bytes(), [x])
    assert (folder / "net.int8.onnx").read_bytes() == expected


def test_more_images_than_there_are_is_all_of_them(digits: Data) -> None:
    context = compressor.network.Context(digits)
    found = torch.cat(list(drawn(digits, 1 << 20, context).batches))

    assert torch.equal(found, datasets.normalise(digits.train.x, digits))


def test_a_repeated_and_a_resumed_run_give_the_same_bytes(
    finished: tuple[Path, dict[str, Any]],
    trained: nn.Module,
    digits: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Killed

    for place in ("optional.ort.convert", "latency"):  # within the export, and after it
        folder = tmp_path / place
        with monkeypatch.context() as patch:
            owner: Any = runtime_files.optional.ort if "." in place else runtime_files
            patch.setattr(owner, place.rpartition(".")[2], stop)
            with pytest.raises(Killed):
                job(folder, trained, digits, RECIPE).execute()
        assert not (folder / "net.int8.onnx").exists()
        job(folder, trained, digits, RECIPE).execute(resume=True)
        assert contents(folder) == contents(finished[0])


def test_without_the_flags_nothing_is_added(
    trained: nn.Module, digits: Data, tmp_path: Path
) -> None:
    report = job(tmp_path, trained, digits, replace(RECIPE, export=Export())).execute()

    assert set(contents(tmp_path)) == {"net.dcz", "net.onnx", "recipe.toml"}
    assert not {"int8", "ort", "fp16"} & {*report["files"], *report["stages"]["export"]}


def test_int8_without_data_is_refused_before_anything_is_written(
    trained: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"export\.emit int8 needs images .* give --data"):
        job(tmp_path / "out", trained, None, RECIPE)
    assert not (tmp_path / "out").exists()


def test_data_of_another_shape_are_refused_before_anything_is_written(
    trained: nn.Module, tmp_path: Path
) -> None:
    larger = datasets.load("digits", input_shape=(1, 10, 10))
    with pytest.raises(DataError, match=r"\(1, 10, 10\) .* the network takes \(1, 8, 8\)"):
        job(tmp_path / "out", trained, larger, RECIPE)
    assert not (tmp_path / "out").exists()


def test_the_ort_file_needs_no_data(trained: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe(prune=Prune(0.3), export=Export(emit=("ort",)))
    report = job(tmp_path, trained, None, recipe).execute()

    assert report["stages"]["export"]["ort"]["difference_relative"] <= 1e-5
    assert report["stages"]["export"]["ort"]["accuracy"] is None
    assert (tmp_path / "net.ort").read_bytes()[4:8] == b"ORTM"


@pytest.mark.parametrize(("milliseconds", "said"), [(0.5, False), (2.0, True)])
def test_int8_that_is_slower_is_said_to_be(
    finished: tuple[Path, dict[str, Any]], milliseconds: float, said: bool
) -> None:
    report = json.loads(json.dumps(finished[1]))
    report["latency"]["ms"]["compressed"]["median"] = 1.0
    report["latency"]["ms"]["int8"]["median"] = milliseconds
    notes = [note for note in _notes(report) if "no faster than fp32" in note]

    assert bool(notes) is said
    assert all("2.000 ms against 1.000 ms" in note for note in notes)


# ---- the command -------------------------------------------------------------------------------


def test_the_command_writes_them_and_shows_them(
    compress: Compress, shelf: Path, here: Path
) -> None:
    data = ("--data", shelf / "data.npz")
    done = compress(
        *(shelf / "net.pt", *data, "--quantize", "5bit", "--finetune-epochs", 1, "--threads", 1),
        *("--emit", "fp16,int8,ort", "-o", "out"),
    )
    assert done.code == 0
    report = json.loads((here / "out" / "report.json").read_text())
    images = report["stages"]["export"]["int8"]["calibration_images"]
    for word in (
        *("net.int8.onnx", "net.ort", "net.fp16.onnx", "INT8: accuracy", "fp16: accuracy"),
        *(".ort: accuracy", "3 of 3 layers", f"{images} training"),
    ):
        assert word in done.out
    size = report["stages"]["export"]["int8"]["bytes"]
    assert f"{size:,}" in done.out
    assert size == (here / "out" / "net.int8.onnx").stat().st_size
    assert size < report["stages"]["export"]["bytes"] / 3.5

    again = compress(shelf / "net.pt", "--recipe", "out/recipe.toml", "-q", "-o", "again")
    assert (again.code, again.err) == (0, "")
    for name in ("net.int8.onnx", "net.ort", "net.fp16.onnx"):
        assert (here / "again" / name).read_bytes() == (here / "out" / name).read_bytes()

    all_of_them = ("--emit", "onnx,ort,int8,fp16", "-o", "made", "--json")
    exported = compress("export", "out/net.dcz", *all_of_them, *data, "-q")
    assert (exported.code, exported.err) == (0, "")
    rows = json.loads(exported.out)
    assert list(rows) == ["onnx", "ort", "int8", "fp16"]
    for name, row in rows.items():
        assert (here / "made" / row["file"]).read_bytes() == (
            here / "out" / row["file"]
        ).read_bytes()
        assert row["bytes"] == (here / "made" / row["file"]).stat().st_size
        own = report["stages"]["export"].get(
            name, {"accuracy": report["stages"]["encode"]["accuracy"]}
        )
        assert row["accuracy"] == own["accuracy"]
    for arguments, code, line in (
        (("--emit", "int8"), 2, "error: --emit int8 needs images to calibrate with: give --data"),
        (("--emit", "onxx"), 2, "error: --emit is 'onxx': it must be one of onnx, ort, int8, fp16"),
        (("--emit", "ort", "-o", "made"), 1, "error: made/net.ort exists: add --force"),
    ):
        refused = compress("export", "out/net.dcz", *arguments)
        assert (refused.code, refused.out) == (code, "")
        assert refused.err.startswith(line), refused.err
        assert refused.err.count("\n") == 1
    shown = compress("export", "out/net.dcz", "--emit", "ort,fp16", "-q", "--force")
    assert (shown.code, shown.out) == (0, "")
    shown = compress("export", "out/net.dcz", "--emit", "ort,fp16", "-o", "made", "--force")
    for word in ("net.ort", "net.fp16.onnx", "not measured", "of the largest output (up to 0.02)"):
        assert word in " ".join(shown.out.split()), shown.out


def test_the_command_without_data_says_what_to_add(
    compress: Compress, shelf: Path, here: Path
) -> None:
    done = compress(shelf / "net.pt", "--quantize", "5bit", "--emit", "int8")

    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "give --data" in done.err
    assert list(here.iterdir()) == []


def test_a_file_that_the_runtime_crashes_on_is_not_written_and_takes_nothing_with_it(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime opens each in a process of its own first; this one dies of the float16 file."""
    half = "ten = sys.stdin.buffer.read(); import os; b'FLOAT16' in ten.upper() and os.abort()"
    monkeypatch.setattr(verify, "_LOADS", f"import sys; {half}")
    monkeypatch.setattr(fp16, "convert", lambda model: b"float16")
    settings = ("--quantize", "5bit", "--threads", 1, "-q", "-o", "out")
    done = compress(shelf / "net.pt", *settings, "--emit", "ort,fp16")
    version = onnxruntime.__version__
    why = f"fp16: not written: ONNX Runtime {version} crashes as it loads it"
    assert (done.code, done.err) == (3, f"error: {why} (everything else is there)\n")
    assert {path.name for path in (here / "out").iterdir()} == {
        *("net.dcz", "net.onnx", "net.ort", "report.json", "report.html", "report.md"),
        "recipe.toml",
    }
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["missed"] == [why]
    assert "fp16" not in report["files"] | report["stages"]["export"] | report["latency"]["ms"]
    exported = compress("export", "out/net.dcz", "--emit", "ort,fp16", "-o", "made", "-q")
    assert (exported.code, exported.err.count("\n")) == (1, 1)
    assert "crashes as it loads it" in exported.err
    assert not (here / "made").exists()
