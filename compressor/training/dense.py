"""Training a network from nothing: where the dense checkpoints come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import __version__, checkpoint, distributed, loading
from compressor.determinism import deterministic
from compressor.errors import StageError, UsageError
from compressor.network import Context
from compressor.progress import Progress
from compressor.recipe import to_table
from compressor.settings import FROM_NOTHING, DataSpec, Training
from compressor.training import data as datasets
from compressor.training.checkpoints import Checkpoints
from compressor.training.evaluation import check_fit, evaluate
from compressor.training.fit import fit
from compressor.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A trained module and what was measured: accuracies of the last epoch, 0 to 1."""

    module: nn.Module
    validation: float
    test: float
    history: list[dict[str, Any]]
    test_images: int


def train(
    arch: str,
    spec: DataSpec,
    training: Training = FROM_NOTHING,
    *,
    root: Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    output: Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Trained:
    """Train ``arch`` on a data set; the last epoch stays, whatever an earlier one scored.

    The validation images are taken from the training images and not trained on. With ``output``
    the ``state_dict`` is written there; until it is, the folder ``OUTPUT.training`` beside it holds
    the last whole epoch, which ``resume`` goes on from and ``force`` discards. Raises
    :class:`CompressorError`.
    """
    torch.manual_seed(seed)
    module, shape = loading.build(arch)
    if shape is None or len(shape) != 3:
        raise UsageError(
            f"{arch} does not tell its input size: set FUNCTION.input_shape = (C, H, W)"
        )
    data = datasets.load(
        spec.spec,
        input_shape=(shape[0], shape[1], shape[2]),
        root=root,
        seed=seed,
        validation=spec.validation,
        mean=spec.mean,
        std=spec.std,
    )
    torch.manual_seed(seed)
    module, _ = loading.build(arch, classes=data.classes)
    with deterministic(threads, device) as where:
        context = Context(data, where, seed, progress or Progress())
        module.to(where)
        check_fit(module, torch.zeros(1, *shape, device=where), data)
        workspace = None
        if output is not None:
            about = {
                "network": arch,
                "data": data.fingerprint,
                "settings": {
                    **to_table(training),
                    "seed": seed,
                    "threads": torch.get_num_threads(),
                },
                "tool": __version__,
            }
            workspace = Workspace(output.with_name(f"{output.name}.training"), about)
            workspace.open(resume=resume, force=force)
            context.checkpoints = Checkpoints(workspace, "train")
        try:
            history = fit(module, training, context, f"train {arch}")
        except StageError:
            if workspace is not None:
                workspace.leave()
            raise
        except KeyboardInterrupt:
            if workspace is None:
                raise
            if not workspace.has("train.training-1"):  # there is nothing to go on from
                workspace.leave()
                raise
            raise KeyboardInterrupt(
                "interrupted: the same command with --resume goes on from the last whole epoch"
            ) from None
        validation = evaluate(module, data, data.validation)
        test = evaluate(module, data, data.test)
    if output is not None and workspace is not None and distributed.is_first():
        checkpoint.write(module.state_dict(), output)
        workspace.leave()
    rows = [epoch.row() for epoch in history]
    return Trained(module.cpu().eval(), validation, test, rows, len(data.test.y))
