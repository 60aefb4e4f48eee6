"""The calls that most programs need: :func:`compress`, :func:`load` and :func:`save`."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import (
    architectures,
    artifact,
    checkpoint,
    distributed,
    graphs,
    loading,
    preflight,
    tasks,
    unpacking,
)
from compressor.channels import widths
from compressor.determinism import deterministic
from compressor.errors import LoadError, UsageError
from compressor.examples import inputs_of
from compressor.network import Network
from compressor.pipeline import Run
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.settings import DataSpec, Targets
from compressor.storage import load_decoded
from compressor.targets import search
from compressor.tasks import CLASSIFICATION, Task
from compressor.training import data as datasets
from compressor.training.data import Data


@dataclass(frozen=True)
class Result:
    """What a run gives: the network the artifact decodes to, both files' bytes, and the report.

    Of a network over 2 GB the weights are not in ``onnx`` but in ``output``, beside that file.
    """

    module: nn.Module
    artifact: bytes
    onnx: bytes
    report: dict[str, Any]


def compress(
    model: nn.Module | str | Path,
    recipe: Recipe,
    *,
    targets: Targets | None = None,
    data: Data | str | None = None,
    input_shape: tuple[int, ...] | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    data_root: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run ``recipe`` on a module or a checkpoint file.

    A module given is changed in place: it ends as the network that the artifact decodes to. Only
    where channels go, with ``recipe.channels`` or because pruning left them without effect, is the
    result's another one. With ``targets`` the recipe's settings of each layer are found first
    (``job``), and the report's ``missed`` says which of them the result does not meet.
    ``data`` (a spec or a loaded :class:`Data`) goes before the recipe's own. ``input_shape`` is
    one input without the batch; it is needed for a module where no data tell it. With ``output``
    the files are written to that folder, as the command line does: those that ``recipe.export``
    asks for besides are to be found nowhere else, nor are the weights of a network over 2 GB as
    ONNX has them, so that one must have an ``output``. Raises :class:`CompressorError`.
    """
    if isinstance(data, str):
        recipe = dataclasses.replace(recipe, data=DataSpec(data))
    shape = input_shape or recipe.input_shape
    loaded = data if isinstance(data, Data) else None
    if isinstance(model, nn.Module):
        if shape is None:
            loaded = loaded or load_data(recipe, None, data_root)
            shape = loaded.input_shape if loaded else None
        network = _network(model, shape, recipe)
    else:
        network = network_of(model, dataclasses.replace(recipe, input_shape=shape))
    if output is None and preflight.is_large(network):
        raise UsageError("the network is over 2 GB: give output=, a folder for its ONNX file")
    recipe = resolve(recipe, network, progress)
    loaded = loaded or load_data(recipe, network, data_root)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(output) if output is not None else Path(scratch)
        run = job(
            network,
            recipe,
            loaded,
            folder,
            progress or Progress(),
            targets,
            resume=resume,
            force=force,
        )
        report = run.execute(resume=resume, force=force)
        files = report["files"]
        blob, model_bytes = distributed.by_first(
            lambda: [(folder / files[name]).read_bytes() for name in ("artifact", "onnx")]
        )
    # Where the run was finished already, or decoded by another rank, it did not load the module.
    if resume or not distributed.is_first():
        load_decoded(network.module, artifact.decode(blob).tensors)
    return Result(network.module, blob, model_bytes, report)


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> nn.Module:
    """The network in a ``.dcz`` or ``.safetensors`` file as a torch module, in evaluation mode.

    A network that came with its graph comes back from it. ``arch`` is needed where the file names
    none that is known here (a file's word runs no code); ``input_shape``, one input without the
    batch, where channels are gone and the architecture does not tell it. Raises
    :class:`ArtifactError` for a damaged artifact and :class:`LoadError` for any other damaged file,
    and where no class fits.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return loading.load(path, arch=arch, input_shape=input_shape).module
    decoded = artifact.read(path)
    name = arch or decoded.metadata.get("network", "")
    if name in graphs.KINDS and arch in (None, name):
        with unpacking.unpacked(decoded, f"{path.stem}.onnx") as file:
            return graphs.read(file, graphs.ONNX).module
    if arch is None and not architectures.runs_no_code(name):
        what = f"of an architecture that is not known here ({name[:100]!r})" if name else "nameless"
        raise LoadError(
            f"{path}: the network is {what}: give arch=, such as arch='FILE.py:FUNCTION'; "
            "compressor.session and compressor.arrays need no class"
        )
    module = loading.module_for(
        name,
        {n: torch.from_numpy(v) for n, v in decoded.tensors().items()},
        path,
        kept=decoded.metadata.get("channels"),
        input_shape=input_shape,
    )
    load_decoded(module, decoded.tensors)
    return module.eval()


def save(result: Result, path: str | Path) -> None:
    """Write the module of a result, as it is now, for :func:`load` to read: tensors, no pickle.

    ``path`` ends in ``.safetensors``. The metadata say which architecture it is and which of its
    channels are left; so it may be trained further before, but not be changed in shape.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: the name must end in .safetensors")
    state = {name: value.clone() for name, value in result.module.state_dict().items()}
    checkpoint.write(state, path, unpacking.about(artifact.decode(result.artifact)))


def resolve(recipe: Recipe, network: Network, progress: Progress | None = None) -> Recipe:
    """The recipe with what it left open found out, so that it repeats the run on its own."""
    channels = recipe.channels
    if channels is not None and not isinstance(channels.round, int):
        named = channels.round
        step = distributed.by_first(lambda: widths.step_named(named, progress))
        recipe = recipe.with_settings({"channels.round": step})
    return dataclasses.replace(
        recipe,
        arch=network.arch,
        input_shape=shape_of(network),
        threads=recipe.threads or torch.get_num_threads(),
    )


def job(
    network: Network,
    recipe: Recipe,
    data: Data | None,
    folder: Path,
    progress: Progress,
    targets: Targets | None = None,
    *,
    resume: bool = False,
    force: bool = False,
) -> Run:
    """The run of a resolved recipe, checked; with ``targets`` its settings are searched for first.

    The recipe of the run that is given back is plain: it says what was found, and repeats the run
    without a search. A search begins only where the recipe and the folder pass the run's checks.
    """
    run = Run(network, recipe, data, folder, progress)
    if targets is None:
        return run
    if data is not None and not data.task.higher_is_better:
        raise UsageError(
            f"targets weigh bytes against a metric that is better higher, and {data.task.metric} "
            "is not: give its negative, or a fraction of 1"
        )
    run.workspace.check(resume=resume, force=force)
    with deterministic(recipe.threads, recipe.device):
        network.module.to(run.context.device)
        found = search(network, recipe, targets, run.figures.fp32_bytes, run.context)
    return Run(network, found.recipe, data, folder, progress, found)


def load_data(
    recipe: Recipe, network: Network | None, root: str | Path | None = None
) -> Data | None:
    """The recipe's data set, or None where it has none.

    Its images have the network's input size; without a network, their own.
    """
    if recipe.data is None:
        return None
    shape, task = None if network is None else shape_of(network), task_of(recipe)
    if network is not None and shape is None:
        raise UsageError("--data needs a network of one input; this one takes several")
    if task.labels and shape is not None and len(shape) != 3:
        raise UsageError(f"--data needs a network for images (C, H, W), not for input {shape}")
    spec = recipe.data
    return datasets.load(
        spec.spec,
        input_shape=shape,
        root=Path(root) if root is not None else None,
        seed=recipe.seed,
        validation=spec.validation,
        mean=spec.mean,
        std=spec.std,
        task=task,
    )


def network_of(path: str | Path, recipe: Recipe, *, trust_pickle: bool = False) -> Network:
    """The network in a file, as a recipe says: its class, its input's size, what it is for."""
    return loading.load(
        path,
        arch=recipe.arch,
        input_shape=recipe.input_shape,
        trust_pickle=trust_pickle,
        example=task_of(recipe).example(),
    )


def task_of(recipe: Recipe) -> Task:
    """What the recipe's network is for. Raises :class:`UsageError` where its file does not tell."""
    return CLASSIFICATION if recipe.task is None else tasks.load(recipe.task)


def shape_of(network: Network) -> tuple[int, ...] | None:
    """The only input's shape without the batch; None where there are several."""
    one = isinstance(network.example, torch.Tensor)
    return tuple(inputs_of(network.example)[0].shape[1:]) if one else None


def _network(module: nn.Module, shape: tuple[int, ...] | None, recipe: Recipe) -> Network:
    if shape is None:
        raise UsageError(
            "a module does not tell its input size: give input_shape=(C, H, W), or data="
        )
    name = type(module).__name__
    return Network(module.float().eval(), torch.zeros(1, *shape), name.lower(), recipe.arch or name)
