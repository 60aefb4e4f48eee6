"""Accuracy of a network of the registry with given tensors, on one thread.

CIFAR checkpoints here are akamaster/pytorch_resnet_cifar10's, trained with ImageNet's
normalisation; MNIST's networks use the data set's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compressor import checkpoint
from compressor.artifact import read
from compressor.models import registry
from compressor.training import data as datasets
from compressor.training.data_arrays import Split
from compressor.training.evaluation import evaluate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Arrays = dict[str, npt.NDArray[Any]]


class Test:
    """One architecture and the test images it is measured on.

    Args:
        arch: a name of the registry.
        data: a named data set, such as cifar10 or mnist.
        root: where named sets lie; None for the default.
        images: so many of the test images, the first; None for all.
    """

    def __init__(
        self, arch: str, data: str, root: Path | None = None, images: int | None = None
    ) -> None:
        architecture = registry.get(arch)
        mean, std = (MEAN, STD) if data == "cifar10" else (None, None)
        shape = architecture.input_shape
        self.data = datasets.load(
            data, input_shape=shape, root=root, validation=0, mean=mean, std=std
        )
        self.split: Split = self.data.test
        if images is not None:
            self.split = self.split.take(torch.arange(images))
        # Half the time of the default layout and of batches whose activations leave the caches.
        self.module = architecture.build().to(memory_format=torch.channels_last)

    def accuracy(self, tensors: Mapping[str, npt.NDArray[Any]]) -> float:
        """Top-1 accuracy in percent; tensors by their names in the state_dict, counters aside."""
        state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        missing, unexpected = self.module.load_state_dict(state, strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.endswith("_tracked"))]
        if wrong:
            raise ValueError(f"tensors of another network: {', '.join(wrong)}")
        torch.set_num_threads(1)
        return 100 * evaluate(self.module, self.data, self.split, batch_size=50)


def float_tensors(path: Path) -> Arrays:
    """The tensors of a checkpoint or of a .dcz file, without batch norm's counters.

    A .dcz holds the weights of its last stage: pruned ones where nothing was shared.
    """
    if path.suffix == ".dcz":
        return read(path).tensors()
    state = checkpoint.read(path)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path.name} holds a module, not tensors")
    return {
        name: value.numpy().astype(np.float32)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
