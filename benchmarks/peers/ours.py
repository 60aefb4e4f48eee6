"""What this tool makes of the network: four runs, as the command line runs them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor import api
from compressor.benchmarks.peers.rows import NO_DATA, Made, Work
from compressor.benchmarks.peers.tasks import SEED, TRAINING
from compressor.recipe import Recipe
from compressor.settings import Calibrate, Channels, Export, Prune, Share, Training
from compressor.training.data import Data

TOOL = "compress"
STILL = Training(epochs=0)


def without_data(work: Work) -> Iterator[Made]:
    """``--quantize auto`` over images made from the network's batch norms."""
    if not any(name.endswith("running_mean") for name in work.tensors()):
        return  # without them there is nothing to make images from
    files = _run(work, Recipe(calibrate=Calibrate()), None)
    yield _artifact("--quantize auto", NO_DATA, files)


def calibrated(work: Work) -> Iterator[Made]:
    """``--quantize auto --emit int8`` over training images."""
    recipe = Recipe(calibrate=Calibrate(), export=Export(emit=("int8",)))
    files = _run(work, recipe, work.data)
    yield _artifact("--quantize auto", _looked_at(work, recipe), files)
    yield _int8("--quantize auto --emit int8", _looked_at(work, recipe), files)


def weights(work: Work) -> Iterator[Made]:
    """As many weights pruned as ``torch.nn.utils.prune`` prunes, one pass, then 5 bits."""
    prune = Prune(sparsity=work.task.sparsity, scope="global", retrain=TRAINING)
    recipe = Recipe(prune=prune, share=Share(bits=5, finetune=STILL))
    files = _run(work, recipe, work.data)
    name = f"--sparsity {work.task.sparsity:g} --global --quantize 5bit"
    yield _artifact(name, work.trained_on, files)


def channels(work: Work) -> Iterator[Made]:
    """As many multiply-adds left as Torch-Pruning leaves, one pass, then grids and INT8."""
    cut = Channels(
        target_macs=work.task.macs, criterion="obs", scope="global", round=8, retrain=TRAINING
    )
    recipe = Recipe(channels=cut, calibrate=Calibrate(), export=Export(emit=("int8",)))
    files = _run(work, recipe, work.data)
    name = f"--target-macs {work.task.macs:g} --quantize auto"
    dense = files["onnx"]
    yield Made(name, TOOL, work.trained_on, ".onnx", len(dense), dense)
    yield _artifact(name, work.trained_on, files)
    yield _int8(f"{name} --emit int8", work.trained_on, files)


def _run(work: Work, recipe: Recipe, data: Data | None) -> dict[str, bytes]:
    """The run's files by their names in the report."""
    folder = work.folder / "run"
    recipe = replace(recipe, arch=work.task.arch, threads=1, seed=SEED)
    result = api.compress(
        work.task.checkpoint, recipe, data=data, output=folder, force=True,
        progress=work.context.progress,
    )  # fmt: skip
    files: dict[str, Any] = result.report["files"]
    return {name: Path(folder, file).read_bytes() for name, file in files.items()}


def _looked_at(work: Work, recipe: Recipe) -> str:
    if recipe.calibrate is None:
        raise RuntimeError("a recipe without calibration")
    return f"{min(recipe.calibrate.images, len(work.data.train)):,} images, no labels"


def _artifact(method: str, needs: str, files: dict[str, bytes]) -> Made:
    return Made(method, TOOL, needs, ".dcz", len(files["artifact"]), files["onnx"])


def _int8(method: str, needs: str, files: dict[str, bytes]) -> Made:
    return Made(method, TOOL, needs, ".onnx", len(files["int8"]), files["int8"])
