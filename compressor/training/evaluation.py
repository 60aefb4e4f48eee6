"""Evaluating a network on data that lies in memory, and whether it fits the data at all."""

import math

import torch
from torch import Tensor, nn

from compressor import distributed
from compressor.errors import StageError
from compressor.training.augment import WHOLE
from compressor.training.data import Data, Split, batches
from compressor.training.layout import layout

_IMAGES = 500
"""Images in a batch that is evaluated."""


def evaluate(
    module: nn.Module, data: Data, split: Split, batch_size: int = _IMAGES, share: slice = WHOLE
) -> float:
    """The task's metric in evaluation mode, top-1 accuracy (0 to 1); NaN for an empty split.

    With a ``share`` of each batch this rank's answers are counted together with the others'.
    """
    if len(split.y) == 0:
        return math.nan
    total = scores(module, data, split, batch_size, share).sum(dtype=torch.float64)
    return float(total if share == WHOLE else distributed.total(total)) / len(split.y)


def scores(
    module: nn.Module, data: Data, split: Split, batch_size: int = _IMAGES, share: slice = WHOLE
) -> Tensor:
    """The task's score of each sample, in evaluation mode: (N,), on the module's device.

    Of a classification, whether each image is classified rightly, bool. With a ``share`` of each
    batch, of this rank's images.
    """
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    dtype = torch.bool if data.task.labels else torch.float32
    found = [torch.zeros(0, dtype=dtype, device=device)]
    lie = None
    with torch.no_grad():
        for x, y in batches(split, data, batch_size=batch_size, device=device, share=share):
            if len(y):
                lie = lie or layout(module, x)
                found.append(data.task.score(module(x.contiguous(memory_format=lie)), y))
    module.train(was_training)
    return torch.cat(found)


def check_fit(module: nn.Module, example: Tensor, data: Data) -> None:
    """Raise :class:`StageError` unless the network has one output per class of the data.

    Of another task, loss and score are tried on two samples, and raise what they raise.
    """
    was_training = module.training
    module.eval()
    with torch.no_grad():
        if not data.task.labels:
            device = next(module.parameters()).device
            x, y = next(iter(batches(data.train.take(torch.arange(2)), data, batch_size=2)))
            output = module(x.to(device))
            data.task.loss(output, y.to(device))
            data.task.score(output, y.to(device))
            module.train(was_training)
            return
        output = module(example)
    module.train(was_training)
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < data.classes:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise StageError(
            f"the network gives {shape} for one image, but {data.name} has {data.classes} classes: "
            "give the data set that it was trained on"
        )
