"""The thin ResNets of the public CIFAR-10 checkpoints, and what the experiments do with them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import checkpoint
from compressor.errors import LoadError
from compressor.export import graph, onnx
from compressor.models import registry
from compressor.network import Context, Network
from compressor.settings import Training
from compressor.storage import plain_state
from compressor.training import data as datasets
from compressor.training.data import Data, Split
from compressor.training.evaluation import evaluate
from compressor.training.fit import fit

CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
"""Of akamaster/pytorch_resnet_cifar10. They were trained on all training images."""
OPSET = 18
Row = dict[str, Any]


def cifar10(root: Path | None) -> Data:
    """CIFAR-10, a tenth of the training images kept for validation."""
    return datasets.load("cifar10", input_shape=(3, 32, 32), root=root)


def limited(data: Data, images: int | None) -> Data:
    """The first so many training images, which are in random order; None for all."""
    return data if images is None else replace(data, train=data.train.take(torch.arange(images)))


def dense(arch: str, checkpoints: Path) -> Network:
    """The trained network of that name."""
    module = registry.get(arch).build()
    state = checkpoint.read(checkpoints / CHECKPOINTS[arch])
    if isinstance(state, nn.Module):
        raise LoadError(f"{CHECKPOINTS[arch]} holds a module, not a state_dict")
    module.load_state_dict(state, strict=False)  # an old file: without counters
    return Network(module.eval(), torch.zeros(1, *registry.get(arch).input_shape), arch, arch)


def accuracy(module: nn.Module, data: Data, split: Split) -> float:
    """Top-1 accuracy in percent."""
    return round(100 * evaluate(fast(module), data, split, batch_size=50), 2)


def tune(module: nn.Module, training: Training, context: Context, title: str) -> list[Row]:
    """Fine-tune in place; a row per epoch."""
    return [epoch.row() for epoch in fit(fast(module), training, context, title)]


def fast(module: nn.Module) -> nn.Module:
    """The same module, laid out as convolutions on CPUs like it: two thirds of the time."""
    return module.to(memory_format=torch.channels_last)


def onnx_file(network: Network, module: nn.Module) -> bytes:
    """The dense ONNX file of ``module``, as a run of the tool writes it."""
    module = module.to(memory_format=torch.contiguous_format)
    skeleton = graph.trace(module, network.example, OPSET)
    return onnx.build(skeleton, plain_state(module), {})


def widths(module: nn.Module) -> Sequence[int]:
    """Channels of the convolutions, in the network's order."""
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
