"""The two calls of the library: what compress() gives, and that load() gives it back."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import DataSpec, Encode, Prune, Recipe, Result, Share, Training, api, artifact
from compressor.errors import ArtifactError, LoadError, OutputError, StageError, UsageError
from compressor.export.verify import session
from compressor.files import PAGES
from compressor.models import get
from compressor.network import Network
from compressor.training import data as datasets
from compressor.unpacking import onnx_bytes

ONCE = Training(epochs=1, lr=0.01, batch_size=32, warmup=0.0)
RECIPE = Recipe(
    prune=Prune("conv=0.3,fc=0.8", retrain=ONCE),
    share=Share("conv=5bit,fc=3bit", finetune=ONCE),
    arch="lenet5-small",
    threads=1,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_all() -> Iterator[None]:
    """One thread for what the module's tests share, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 images of 1 x 28 x 28 in ten classes, as a .npz file."""
    generator = np.random.default_rng(0)
    y = np.arange(200) % 10
    x = generator.integers(0, 200, (200, 1, 28, 28), dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x, y=y)
    return str(path)


@dataclass
class Job:
    """One whole run, done once: the module before, the one given, the result, the folder."""

    before: nn.Module
    given: nn.Module
    result: Result
    folder: Path
    data: str


@pytest.fixture(scope="module")
def job(images: str, tmp_path_factory: pytest.TempPathFactory) -> Job:
    torch.manual_seed(0)
    module = get("lenet5-small").build()
    before = copy.deepcopy(module)
    folder = tmp_path_factory.mktemp("run") / "out"
    result = compressor.compress(module, RECIPE, data=images, output=folder)
    return Job(before, module, result, folder, images)


def inputs(*shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(x)
    return found


# ---- what compress gives -----------------------------------------------------------------------


def test_the_module_is_what_the_artifact_decodes_to(job: Job) -> None:
    decoded = artifact.decode(job.result.artifact).tensors()
    assert list(decoded) == list(job.before.state_dict())
    state = job.result.module.state_dict()
    assert list(state) == list(decoded), "no parametrization is left"
    for name, value in state.items():
        assert value.numpy().tobytes() == decoded[name].tobytes()


def test_the_module_given_is_the_one_that_comes_back(job: Job) -> None:
    assert job.result.module is job.given
    assert not job.given.training
    x = inputs(1, 28, 28)
    assert not torch.equal(outputs(job.given, x), outputs(job.before, x))


def test_the_network_is_pruned_and_shared_as_the_recipe_says(job: Job) -> None:
    for name, bits in {"conv1": 5, "conv2": 5, "fc1": 3, "fc2": 3, "fc3": 3}.items():
        weight = job.result.module.get_parameter(f"{name}.weight").detach()
        dense = job.before.get_parameter(f"{name}.weight").detach().double()
        sensitivity = 0.3 if name.startswith("conv") else 0.8
        pruned = dense.abs() < sensitivity * dense.std(correction=0)
        assert (weight[pruned] == 0).all()
        assert (weight[~pruned] != 0).all()
        assert len(torch.unique(weight[weight != 0])) <= 2**bits


def test_the_onnx_file_is_the_artifacts_own(job: Job) -> None:
    assert onnx_bytes(artifact.decode(job.result.artifact)) == job.result.onnx
    x = inputs(1, 28, 28)
    (found,) = session(job.result.onnx).run(None, {"input": x.numpy()})
    expected = outputs(job.result.module, x).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_report_tells_every_stage(job: Job) -> None:
    report = job.result.report
    assert list(report["stages"]) == ["dense", "prune", "share", "dead", "encode", "export"]
    assert report["stages"]["encode"]["bytes"] == len(job.result.artifact)
    assert report["stages"]["export"]["bytes"] == len(job.result.onnx)
    assert report["network"]["arch"] == "lenet5-small"
    assert report["network"]["input_shape"] == [1, 1, 28, 28]
    assert not any("accuracy" in item for item in report["not_measured"])
    zeros = sum(int((p == 0).sum()) for p in job.result.module.parameters() if p.ndim > 1)
    weights = sum(p.numel() for p in job.result.module.parameters() if p.ndim > 1)
    assert report["stages"]["encode"]["sparsity"] == pytest.approx(zeros / weights)


def test_the_files_are_what_the_result_holds(job: Job) -> None:
    name = job.given.__class__.__name__.lower()
    found = {path.name for path in job.folder.iterdir()}
    assert found == {f"{name}.dcz", f"{name}.onnx", "report.json", "recipe.toml", *PAGES}
    assert (job.folder / f"{name}.dcz").read_bytes() == job.result.artifact
    assert (job.folder / f"{name}.onnx").read_bytes() == job.result.onnx


def test_the_same_call_gives_the_same_bytes(job: Job) -> None:
    again = compressor.compress(copy.deepcopy(job.before), RECIPE, data=job.data)
    assert again.artifact == job.result.artifact
    assert again.onnx == job.result.onnx


def test_an_output_that_exists_is_kept(job: Job) -> None:
    with pytest.raises(OutputError, match="exists and is not empty"):
        compressor.compress(job.before, RECIPE, data=job.data, output=job.folder)


def test_resuming_a_finished_run_gives_its_result(job: Job) -> None:
    """The module as well, which the run itself no longer touches."""
    module = copy.deepcopy(job.before)
    again = compressor.compress(module, RECIPE, data=job.data, output=job.folder, resume=True)
    assert again.artifact == job.result.artifact
    assert again.report["stages"] == job.result.report["stages"]
    for name, value in job.result.module.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)


# ---- load --------------------------------------------------------------------------------------


def test_load_gives_the_very_network(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(job.result.artifact)
    module = compressor.load(path)
    assert type(module) is type(job.before)
    assert not module.training
    x = inputs(1, 28, 28)
    assert torch.equal(outputs(module, x), outputs(job.result.module, x))
    for name, value in job.result.module.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)
    outputs_by_name = outputs(compressor.load(str(path), arch="lenet5-small"), x)
    assert torch.equal(outputs_by_name, outputs(module, x))


def test_a_loaded_network_can_be_trained_on(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(job.result.artifact)
    module = compressor.load(path)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(inputs(1, 28, 28)).sum().backward()
    optimizer.step()
    weight = module.get_parameter("fc3.weight")
    assert not torch.equal(weight, job.result.module.get_parameter("fc3.weight"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_refused(job: Job, tmp_path: Path, damage: str) -> None:
    content = bytearray(job.result.artifact)
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path = tmp_path / "net.dcz"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        compressor.load(path)


def test_the_wrong_architecture_is_refused(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(job.result.artifact)
    with pytest.raises(LoadError, match=r"does not fit lenet5: conv1\.weight"):
        compressor.load(path, arch="lenet5")


def test_a_file_without_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(artifact.encode({"fc.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(LoadError, match="give arch="):
        compressor.load(path)


@pytest.mark.parametrize("name", ["ran.py:build", "os:abort", "lenet6"])
def test_a_file_cannot_name_code_to_run(here: Path, name: str) -> None:
    (here / "ran.py").write_text("open('ran', 'w').close()\n")
    blob = artifact.encode({}, metadata={"network": name})
    (here / "net.dcz").write_bytes(blob)
    with pytest.raises(LoadError, match=f"not known here .*{name}.*give arch=") as caught:
        compressor.load("net.dcz")
    assert "\n" not in str(caught.value)
    assert not (here / "ran").exists()


# ---- without torch -----------------------------------------------------------------------------


def test_arrays_are_the_networks_own(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(job.result.artifact)
    found = compressor.arrays(path)
    state = job.result.module.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert np.array_equal(found[name], value.numpy()), name


def test_a_session_computes_what_the_module_does(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    path.write_bytes(job.result.artifact)
    x = inputs(1, 28, 28)
    (found,) = compressor.session(path).run(None, {"input": x.numpy()})
    expected = outputs(job.result.module, x).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_arrays_and_sessions_import_no_torch(job: Job, tmp_path: Path) -> None:
    (tmp_path / "net.dcz").write_bytes(job.result.artifact)
    code = (
        "import sys, compressor; compressor.arrays('net.dcz'); "
        "assert not {'torch', 'onnxruntime'} & set(sys.modules); "
        "compressor.session('net.dcz'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# ---- networks of one's own ---------------------------------------------------------------------

OWN = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
"""


def own() -> nn.Module:
    scope: dict[str, Any] = {}
    exec(OWN, scope)
    torch.manual_seed(2)
    module: nn.Module = scope["build"]()
    return module


def test_a_network_of_ones_own_without_data(tmp_path: Path) -> None:
    """In float64 and training mode; nothing is retrained, accuracy is not measured."""
    recipe = Recipe(
        prune=Prune(0.5), share=Share(2), encode=Encode(width="fp32", graph=False), threads=1
    )
    module = own().double().train()
    dense = own()
    result = compressor.compress(module, recipe, input_shape=(2, 6, 6))
    assert result.module is module
    assert {value.dtype for value in module.parameters()} == {torch.float32}
    assert not module.training
    weight = module.get_parameter("3.weight").detach()
    assert len(torch.unique(weight)) == 5
    assert torch.equal(module.get_parameter("0.bias"), dense.get_parameter("0.bias"))
    assert result.report["stages"]["prune"]["accuracy"] is None
    assert "accuracy" in result.report["not_measured"][0]
    assert artifact.decode(result.artifact).graph is None

    path = tmp_path / "own.dcz"
    path.write_bytes(result.artifact)
    with pytest.raises(LoadError, match="Sequential"):
        compressor.load(path)
    file = tmp_path / "own.py"
    file.write_text(OWN)
    again = compressor.load(path, arch=f"{file}:build")
    x = inputs(2, 6, 6)
    assert torch.equal(outputs(again, x), outputs(module, x))


# ---- arguments ---------------------------------------------------------------------------------


def test_a_module_without_a_size_or_data_names_the_argument() -> None:
    with pytest.raises(UsageError, match="input_shape="):
        compressor.compress(own(), Recipe(prune=Prune()))


class Stopped(Exception):
    """Raised in place of a run, once its arguments are known."""


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What compress() hands to a run: network, recipe, data."""
    found: list[Any] = []

    def stop(network: Network, recipe: Recipe, data: Any, *_: Any) -> None:
        found.extend([network, recipe, data])
        raise Stopped

    monkeypatch.setattr(api, "Run", stop)
    return found


def test_the_size_comes_from_the_argument_the_recipe_or_the_data(
    arguments: list[Any], images: str
) -> None:
    loaded = datasets.load(images, input_shape=None)
    told = Recipe(input_shape=(1, 28, 28))
    calls: list[tuple[Recipe, dict[str, Any]]] = [
        (Recipe(), {"input_shape": (1, 28, 28)}),
        (told, {}),
        (Recipe(), {"data": images}),
        (Recipe(), {"data": loaded}),
        (Recipe(data=DataSpec(images)), {}),
    ]
    for recipe, extra in calls:
        arguments.clear()
        with pytest.raises(Stopped):
            compressor.compress(own(), recipe, **extra)
        network, resolved, data = arguments
        assert network.example.shape == (1, 1, 28, 28)
        assert resolved.input_shape == (1, 28, 28)
        expected = loaded.fingerprint if extra.get("data") or recipe.data else None
        assert (data.fingerprint if data else None) == expected


def test_the_argument_goes_before_the_recipe(arguments: list[Any], images: str) -> None:
    recipe = Recipe(data=DataSpec("no-such-set"), input_shape=(9, 9, 9))
    with pytest.raises(Stopped):
        compressor.compress(own(), recipe, data=images, input_shape=(1, 28, 28))
    assert arguments[1].data == DataSpec(images)
    assert arguments[1].input_shape == (1, 28, 28)


def test_a_checkpoint_is_recognised(arguments: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    module = get("lenet5-small").build()
    torch.save(module.state_dict(), path)
    with pytest.raises(Stopped):
        compressor.compress(path, Recipe(prune=Prune()))
    network, recipe, data = arguments
    assert recipe.arch == "lenet5-small"
    assert recipe.input_shape == (1, 28, 28)
    assert network.name == "net"
    assert data is None
    for name, value in module.state_dict().items():
        assert torch.equal(network.module.state_dict()[name], value)


def test_images_for_a_network_that_takes_none(images: str) -> None:
    with pytest.raises(UsageError, match=r"not for input \(48,\)"):
        compressor.compress(nn.Linear(48, 4), Recipe(), data=images, input_shape=(48,))


def test_data_of_more_classes_than_the_network_has(images: str, tmp_path: Path) -> None:
    module = get("lenet5-small").build(4)
    with pytest.raises(StageError, match="10 classes"):
        compressor.compress(module, RECIPE, data=images, output=tmp_path / "out")


# ---- the package -------------------------------------------------------------------------------


def test_everything_that_the_package_names_is_there() -> None:
    for name in compressor.__all__:
        assert getattr(compressor, name) is not None
    assert set(compressor.__all__) <= set(dir(compressor))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = compressor.nonsense
