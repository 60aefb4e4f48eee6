"""Training a network from nothing: where the dense checkpoints come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import loading
from compressor.determinism import deterministic
from compressor.errors import UsageError
from compressor.network import Context
from compressor.progress import Progress
from compressor.settings import FROM_NOTHING, DataSpec, Training
from compressor.training import data as datasets
from compressor.training.fit import check_fit, evaluate, fit


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
) -> Trained:
    """Train ``arch`` on a data set; the last epoch stays, whatever an earlier one scored.

    The validation images are taken from the training images and not trained on. Raises
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
        module.to(device)
        check_fit(module, torch.zeros(1, *shape, device=device), data)
        history = fit(module, training, context, f"train {arch}")
        validation = evaluate(module, data, data.validation)
        test = evaluate(module, data, data.test)
    rows = [epoch.row() for epoch in history]
    return Trained(module.cpu().eval(), validation, test, rows, len(data.test.y))
