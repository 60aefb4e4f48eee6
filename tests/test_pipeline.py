"""The chain: what a run leaves, and that it can be stopped anywhere and resumed."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressor import artifact, loading, pipeline, runtime_files, storage, unpacking, user_code
from compressor.errors import ExportError, LoadError, OutputError, StageError
from compressor.export import graph
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.settings import Prune, Share, Training
from compressor.storage import plain_state
from compressor.training import data as datasets
from compressor.training.data import Data
from tests.conftest import timed

ARCH = """
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10),
    )

build.input_shape = (1, 8, 8)
"""
ONCE = Training(epochs=1, batch_size=64)
RECIPE = Recipe(
    prune=Prune(0.5, retrain=ONCE),
    share=Share("conv=4bit,fc=3bit", finetune=ONCE),
    threads=1,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    (folder / "arch.py").write_text(ARCH)
    torch.manual_seed(0)
    module = user_code.function(folder / "arch.py", "build", "--arch", LoadError)()
    torch.save(module.state_dict(), folder / "net.pt")
    return folder / "net.pt"


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load("digits", input_shape=(1, 8, 8))


@pytest.fixture
def job(checkpoint: Path, digits: Data) -> Callable[..., pipeline.Run]:
    def make(folder: Path, recipe: Recipe = RECIPE, data: Data | None = digits) -> pipeline.Run:
        arch = f"{checkpoint.parent / 'arch.py'}:build"
        return pipeline.Run(loading.load(checkpoint, arch=arch), recipe, data, folder, Progress())

    return make


Job = Callable[..., pipeline.Run]


@pytest.fixture
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(models: dict[str, bytes], shape: tuple[int, ...], **_: Any) -> dict[str, Any]:
        return timed(**dict.fromkeys(models, 1.0))

    monkeypatch.setattr(runtime_files, "latency", measured)


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("net.dcz", "net.onnx", "recipe.toml")}


def test_a_run_leaves_six_files_that_agree_with_each_other(job: Job, tmp_path: Path) -> None:
    run = job(tmp_path / "out")
    report = run.execute()
    folder = tmp_path / "out"

    assert sorted(p.name for p in folder.iterdir()) == [
        "net.dcz",
        "net.onnx",
        "recipe.toml",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert json.loads((folder / "report.json").read_text()) == report
    decoded = artifact.read(folder / "net.dcz")
    for name, value in plain_state(run.network.module).items():
        if not name.endswith("num_batches_tracked"):
            assert decoded.tensor(name).tobytes() == value.tobytes(), name
    assert unpacking.onnx_bytes(decoded) == (folder / "net.onnx").read_bytes()
    assert Recipe.from_toml((folder / "recipe.toml").read_text()) == run.recipe


def test_the_report_counts_bytes_that_are_on_disk(job: Job, tmp_path: Path) -> None:
    report = job(tmp_path / "out").execute()
    stages, folder = report["stages"], tmp_path / "out"
    dcz, onnx = (folder / "net.dcz").read_bytes(), (folder / "net.onnx").read_bytes()
    parameters = 4 * 9 + 4 + 4 + 4 + 144 * 4 * 10 // 4 + 10

    assert report["network"]["fp32_bytes"] == 4 * parameters
    assert stages["encode"]["bytes"] == len(dcz)
    assert stages["encode"]["ratio"] == pytest.approx(4 * parameters / len(dcz))
    assert stages["export"]["bytes"] == len(onnx)
    assert stages["export"]["gzip_bytes"] == len(gzip.compress(onnx, 9, mtime=0))
    without = artifact.read(folder / "net.dcz").size_without_graph
    assert stages["encode"]["weights_only_bytes"] == without < len(dcz)
    assert stages["dense"]["macs"] == 36 * 4 * 9 + 144 * 10
    assert stages["dense"]["bytes"] > stages["prune"]["bytes"] > stages["share"]["bytes"]
    for row in stages["encode"]["layers"]:
        weights = artifact.read(folder / "net.dcz").tensor(f"{row['layer']}.weight")
        assert row["nonzero"] == np.count_nonzero(weights)
        assert row["sparsity"] == pytest.approx(1 - np.count_nonzero(weights) / weights.size)


def test_accuracy_is_of_the_decoded_network_on_the_test_images(
    job: Job, digits: Data, tmp_path: Path
) -> None:
    run = job(tmp_path / "out")
    report = run.execute()

    with torch.no_grad():
        x = (digits.test.x / 255 - digits.mean[0]) / digits.std[0]
        right = (run.network.module.eval()(x).argmax(1) == digits.test.y).double().mean()
    assert report["stages"]["encode"]["accuracy"] == pytest.approx(float(right))


def test_without_data_nothing_is_retrained_and_that_is_said(job: Job, tmp_path: Path) -> None:
    report = job(tmp_path / "out", data=None).execute()

    assert report["stages"]["prune"]["history"] == []
    assert report["stages"]["encode"]["accuracy"] is None
    assert any("accuracy" in item for item in report["not_measured"])


def test_two_runs_give_the_same_bytes(job: Job, tmp_path: Path, quick_latency: None) -> None:
    job(tmp_path / "a").execute()
    job(tmp_path / "b").execute()

    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


class Killed(BaseException):
    """Stands for a process that is gone: nothing may catch it and go on."""


def test_a_run_killed_before_any_write_resumes_to_the_same_bytes(
    job: Job, tmp_path: Path, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process leaves is the folder as it was at that moment."""
    whole, real, left = tmp_path / "whole", Path.replace, []

    def replace(part: Path, path: Path) -> Path:
        left.append(shutil.copytree(whole, tmp_path / f"killed-{len(left)}"))
        return real(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        job(whole).execute()
    expected = outputs(whole)
    for folder in left:
        job(folder).execute(resume=True)
        assert outputs(folder) == expected, folder.name
        assert not (folder / ".stages").exists()
    assert len(left) >= 12  # run.json, and at least one file and one mark for each of five stages


def test_stages_that_are_finished_are_not_done_again(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_latency: None
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "share", stop)
        with pytest.raises(Killed):
            job(tmp_path / "out").execute()
    monkeypatch.setattr(pipeline, "prune", stop)
    job(tmp_path / "out").execute(resume=True)


@pytest.mark.parametrize("finished", [True, False])
def test_resume_refuses_another_recipe_and_names_what_changed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_latency: None, finished: bool
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(pipeline, "share", stop)
        try:
            job(tmp_path / "out").execute()
        except Killed:
            assert not finished
    other = Recipe(prune=Prune(0.6, retrain=ONCE), threads=1)
    with pytest.raises(OutputError, match="recipe changed"):
        job(tmp_path / "out", other).execute(resume=True)
    with pytest.raises(OutputError, match="data changed"):
        job(tmp_path / "out", data=None).execute(resume=True)


def test_resuming_a_finished_run_changes_nothing(
    job: Job, tmp_path: Path, quick_latency: None
) -> None:
    report = job(tmp_path / "out").execute()
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}

    assert job(tmp_path / "out").execute(resume=True) == report
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == times


def test_force_keeps_the_old_outputs_until_the_new_are_ready(
    job: Job, tmp_path: Path, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(tmp_path / "out").execute()
    before = outputs(tmp_path / "out")
    other = Recipe(prune=Prune(0.9, retrain=ONCE), threads=1)

    def stop(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runtime_files.verify, "compare_outputs", stop)
        with pytest.raises(Killed):
            job(tmp_path / "out", other).execute(force=True)
    assert outputs(tmp_path / "out") == before
    job(tmp_path / "out", other).execute(resume=True)
    assert outputs(tmp_path / "out") != before


def test_what_a_killed_force_left_half_cleared_is_not_resumed(
    job: Job, tmp_path: Path, quick_latency: None
) -> None:
    stages = tmp_path / "out" / ".stages"
    stages.mkdir(parents=True)
    (stages / "dense.json").write_text('{"bytes": 1}')  # of an older run, its run.json gone
    report = job(tmp_path / "out").execute(resume=True)

    assert report["stages"]["dense"]["bytes"] > 1


def test_a_used_folder_is_refused_without_force_or_resume(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError, match="--force"):
        job(tmp_path / "out").execute()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["dense", "graph", "prune", "output"])
def test_a_network_may_be_called_like_a_stage(
    checkpoint: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = {}

    def measured(models: dict[str, Path], shape: tuple[int, ...], **_: Any) -> dict[str, Any]:
        compared.update({key: path.read_bytes() for key, path in models.items()})
        return timed(**dict.fromkeys(models, 1.0))

    monkeypatch.setattr(runtime_files, "latency", measured)
    network = loading.load(checkpoint, arch=f"{checkpoint.parent / 'arch.py'}:build")
    network.name = name
    before = plain_state(network.module)["4.weight"].copy()
    pipeline.Run(network, Recipe(prune=Prune(0.5)), None, tmp_path, Progress()).execute()

    assert compared["compressed"] == (tmp_path / f"{name}.onnx").read_bytes()
    weights = {i.name: i for i in onnx.load_from_string(compared["dense"]).graph.initializer}
    assert np.array_equal(onnx.numpy_helper.to_array(weights["4.weight"]), before)


def test_a_run_that_fails_in_its_first_stage_leaves_nothing(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise ExportError("cannot be traced")

    monkeypatch.setattr(graph, "trace", fail)
    with pytest.raises(ExportError):
        job(tmp_path / "out").execute()
    assert not (tmp_path / "out").exists()


def test_a_rule_that_cannot_be_met_is_found_before_the_folder_is_made(
    job: Job, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="0 would vanish"):
        job(tmp_path / "out", Recipe(prune=Prune(1000)))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_large_gives_its_memory_to_the_runtime_and_has_it_back(
    job: Job, tmp_path: Path, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While ONNX Runtime measures, no value is held; files and module come out the same."""
    job(tmp_path / "small").execute()
    held: list[int] = []
    monkeypatch.setattr(runtime_files, "LARGE", 0)
    monkeypatch.setattr(storage, "_LARGE", 1)
    run = job(tmp_path / "large")
    real = runtime_files.verify.compare_outputs

    def compare(*arguments: Any) -> Any:
        held.append(sum(value.numel() for value in run.network.module.parameters()))
        return real(*arguments)

    monkeypatch.setattr(runtime_files.verify, "compare_outputs", compare)
    run.execute()
    assert held == [0]
    assert outputs(tmp_path / "large") == outputs(tmp_path / "small")
    decoded = artifact.read(tmp_path / "large" / "net.dcz").tensors()
    state = run.network.module.state_dict()
    for name, value in decoded.items():
        np.testing.assert_array_equal(state[name].numpy(), value)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory it has")
def test_memory_that_was_freed_goes_back() -> None:
    """Of many arrays below the size that the C library asks the system for one by one."""
    text = (
        "import numpy as np; from compressor.memory import give_back; from pathlib import Path\n"
        "held = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "before = held(); rows = [np.ones(10_000) for _ in range(2_000)]; last = np.ones(10_000)\n"
        "full = held(); del rows; give_back(); print(before, full, held())"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    before, full, after = map(int, done.stdout.split())
    assert full - before > 150e6
    assert after - before < 20e6
