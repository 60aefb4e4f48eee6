"""Pruned networks as files: safetensors with the widths beside, and what must not pass as one."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import compressor
from compressor import artifact, checkpoint, loading
from compressor.channels import Kept
from compressor.errors import LoadError, StageError, UsageError
from compressor.models import registry
from compressor.recipe import Recipe
from compressor.settings import Channels, Prune
from tests.conftest import Compress

RECIPE = Recipe(channels=Channels(ratio="0.5", round=8, recalibrate=0), threads=1)


@dataclass(frozen=True)
class Job:
    """One run that cut LeNet-5, and the checkpoint that it was given."""

    checkpoint: Path
    result: compressor.Result
    folder: Path

    @property
    def dcz(self) -> Path:
        return self.folder / "net.dcz"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("lenet5")
    torch.manual_seed(0)
    torch.save(registry.get("lenet5").build().state_dict(), folder / "net.pt")
    result = compressor.compress(folder / "net.pt", RECIPE, output=folder / "out")
    return Job(folder / "net.pt", result, folder / "out")


def outputs(module: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found: Tensor = module(torch.randn(4, 1, 28, 28, generator=generator))
    return found


def widths(module: nn.Module) -> list[int]:
    return [len(value) for name, value in module.state_dict().items() if name.endswith("weight")]


def test_decompress_writes_what_load_reads(job: Job, tmp_path: Path, compress: Compress) -> None:
    path = tmp_path / "net.safetensors"
    assert compress("decompress", job.dcz, "-o", path).code == 0
    with safetensors.safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about == {"network": "lenet5", "channels": artifact.read(job.dcz).metadata["channels"]}
    module = compressor.load(path)
    assert not module.training
    assert widths(module) == widths(job.result.module) < [20, 50, 500, 10]
    assert torch.equal(outputs(module), outputs(compressor.load(job.dcz)))


def test_a_networks_file_without_cuts_loads_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = registry.get("lenet-300-100").build().eval()
    path = tmp_path / "net.safetensors"
    checkpoint.write(module.state_dict(), path)
    assert torch.equal(outputs(compressor.load(path)), outputs(module))


def test_save_writes_the_module_as_it_is_now(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    state = {name: value.clone() for name, value in job.result.module.state_dict().items()}
    try:
        with torch.no_grad():
            next(job.result.module.parameters()).mul_(0.5)
        compressor.save(job.result, path)
        assert torch.equal(outputs(compressor.load(path)), outputs(job.result.module))
    finally:
        job.result.module.load_state_dict(state)
    with pytest.raises(UsageError, match="must end in"):
        compressor.save(job.result, tmp_path / "net.pt")


def test_what_was_saved_is_compressed_further(job: Job, tmp_path: Path) -> None:
    """The channels left are those of both cuts, counted in the whole network."""
    path = tmp_path / "net.safetensors"
    compressor.save(job.result, path)
    recipe = Recipe(
        channels=Channels(ratio="0.5", round=8, recalibrate=0), prune=Prune(0.5), threads=1
    )
    result = compressor.compress(path, recipe, output=tmp_path / "out")
    first, second, both = (
        Kept.from_json(text)
        for text in (
            artifact.read(job.dcz).metadata["channels"],
            result.report["stages"]["channels"]["kept"],
            artifact.decode(result.artifact).metadata["channels"],
        )
    )
    assert both.layers.keys() == first.layers.keys() | second.layers.keys()
    assert result.report["stages"]["dead"]["removed"] == []
    for axis, indices in second.layers.items():
        assert both.layers[axis].tolist() == first.layers[axis][indices].tolist()
    whole = compressor.load(tmp_path / "out" / "net.dcz")
    assert sum(widths(whole)) < sum(widths(job.result.module))
    assert torch.equal(outputs(whole), outputs(result.module))
    again = compressor.compress(path, recipe, output=tmp_path / "again")
    assert again.artifact == result.artifact


def test_the_command_line_takes_a_pruned_network(
    job: Job, tmp_path: Path, compress: Compress
) -> None:
    path = tmp_path / "net.safetensors"
    compressor.save(job.result, path)
    done = compress(path, "--quantize", "4bit", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert widths(compressor.load(tmp_path / "out" / "net.dcz")) == widths(job.result.module)
    repeated = compress(path, "--recipe", tmp_path / "out/recipe.toml", "-o", tmp_path / "again")
    assert repeated.code == 0, repeated.err
    assert (tmp_path / "again/net.dcz").read_bytes() == (tmp_path / "out/net.dcz").read_bytes()


def test_a_network_of_ones_own_needs_its_builder(job: Job, tmp_path: Path) -> None:
    """A file's word runs no code: not even that of a file which is there."""
    (tmp_path / "arch.py").write_text(
        "from compressor.models import registry\n"
        "open('ran', 'w').close()\n"
        "def build():\n    return registry.get('lenet5').build()\n"
    )
    own = f"{tmp_path / 'arch.py'}:build"
    path = tmp_path / "net.safetensors"
    kept = artifact.read(job.dcz).metadata["channels"]
    checkpoint.write(job.result.module.state_dict(), path, {"network": own, "channels": kept})
    with pytest.raises(LoadError, match="arch="):
        compressor.load(path)
    assert not Path("ran").exists()
    with pytest.raises(LoadError, match="input_shape="):
        compressor.load(path, arch=own)
    module = compressor.load(path, arch=own, input_shape=(1, 28, 28))
    assert torch.equal(outputs(module), outputs(job.result.module))
    Path("ran").unlink()


# ---- what is damaged, or wants to do harm --------------------------------------------------------


def _table(**layers: Any) -> str:
    return json.dumps({"rewritten": False, "kept": layers["kept"]})


HOSTILE = {
    "no JSON": "{",
    "not a table": "[1, 2]",
    "a number": "7",
    "nested": "[" * 100_000,
    "no layers": '{"rewritten": false}',
    "layers are a list": _table(kept=[1]),
    "not an axis": _table(kept={"conv1.weight:": [0, 3]}),
    "unknown layer": _table(kept={"conv9.weight:0": [0, 3]}),
    "unknown axis": _table(kept={"conv1.weight:7": [0, 3]}),
    "nothing left": _table(kept={"conv1.weight:0": []}),
    "odd": _table(kept={"conv1.weight:0": [0, 3, 5]}),
    "text": _table(kept={"conv1.weight:0": ["0", "3"]}),
    "fractions": _table(kept={"conv1.weight:0": [0.5, 3]}),
    "not numbers": '{"rewritten": false, "kept": {"conv1.weight:0": [NaN, Infinity]}}',
    "negative": _table(kept={"conv1.weight:0": [-4, 3]}),
    "empty run": _table(kept={"conv1.weight:0": [0, 0]}),
    "backward": _table(kept={"conv1.weight:0": [5, 3, 0, 2]}),
    "overlapping": _table(kept={"conv1.weight:0": [0, 3, 2, 4]}),
    "beyond the layer": _table(kept={"conv1.weight:0": [0, 21]}),
    "far beyond": _table(kept={"conv1.weight:0": [0, 1 << 62]}),
    "beyond any number": _table(kept={"conv1.weight:0": [0, 1 << 200]}),
    "much in many": _table(kept={f"layer{i}:0": [0, 1 << 21] for i in range(5000)}),
    "the outputs": _table(kept={"fc2.weight:0": [0, 3]}),
    "other widths": _table(kept={"conv1.weight:0": [0, 3]}),
    "rewritten alone": '{"rewritten": true, "kept": {}}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_channels_give_one_clear_line(job: Job, tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.safetensors"
    about = {"network": "lenet5", "channels": text}
    checkpoint.write(job.result.module.state_dict(), path, about)
    with pytest.raises(LoadError) as caught:
        compressor.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("name", [None, "lenet6", "/etc/hosts:x", "os:abort", "x" * 10_000, ""])
def test_hostile_names_give_one_clear_line(job: Job, tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "net.safetensors"
    about = {"channels": artifact.read(job.dcz).metadata["channels"]}
    about |= {} if name is None else {"network": name}
    checkpoint.write(job.result.module.state_dict(), path, about)
    with pytest.raises(LoadError, match="arch=") as caught:
        compressor.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))
    assert torch.equal(outputs(compressor.load(path, arch="lenet5")), outputs(job.result.module))


def test_widths_of_another_network(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    kept = artifact.read(job.dcz).metadata["channels"]
    for arch in ("lenet-300-100", "resnet20"):
        checkpoint.write(job.result.module.state_dict(), path, {"network": arch, "channels": kept})
        with pytest.raises(LoadError, match="does not fit"):
            compressor.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:60],
        lambda content: struct.pack("<Q", 1 << 60) + content[8:],
        lambda content: content.replace(b'"__metadata__":{', b'"__metadata__":[', 1),
        lambda content: content.replace(b'"network":"lenet5"', b'"network":1234567 ', 1),
    ],
)
def test_damaged_files(job: Job, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "net.safetensors"
    compressor.save(job.result, path)
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    with pytest.raises(LoadError) as caught:
        loading.load(path)
    assert "\n" not in str(caught.value)


def test_what_kept_writes_it_reads() -> None:
    text = '{"rewritten":true,"kept":{"a.weight":[0,2,5,1],"b.weight:1":[3,1]}}'
    kept = Kept.from_json(text)
    assert kept.to_json() == text
    assert kept.layers["a.weight", 0].tolist() == [0, 1, 5]
    with pytest.raises(StageError):
        Kept.from_json(text.replace("[3,1]", "[3]"))
