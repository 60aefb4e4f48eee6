"""What layers read and what their outputs are worth, measured in one pass over some images.

A layer that computes y = W x at every position loses some of x when channels are removed. Of all
layers that read removable channels this measures the covariance of x over images and positions, and
for each row of W what an error in it costs the network's outputs.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.dependencies import Dependencies, layer_of
from compressor.channels.propagation import operator_name
from compressor.channels.rules import given
from compressor.quantization.sensitivity import unfold

BLOCK = 1152
"""Most columns whose covariance is taken together: those of 128 channels under a 3 x 3 kernel."""
POSITIONS = 128
"""Most positions of an image that are looked at; drawn anew for each batch."""
DAMPING = 0.01
"""Of the mean variance, added to each: bounds what is made of inputs that hardly vary."""


@dataclass(frozen=True, eq=False)
class Reader:
    """One layer that reads channels; its weight has the shape (rows, columns).

    Attributes:
        weight: (rows, columns) float64.
        classes: (columns,) which class of channels a column reads; 0 stays whatever happens.
        mean: (columns,) float64, what is read on average.
        moments: for each block of columns, float64, their covariance, damped; of columns about 0
            where nothing behind the layer can take up a constant.
        importance: (rows,) float64, the mean squared change of the outputs for each unit of mean
            squared error in a row.
    """

    weight: Tensor
    classes: NDArray[np.int64]
    mean: Tensor
    moments: list[Tensor]
    importance: Tensor

    @property
    def spans(self) -> list[slice]:
        """The columns of each block."""
        ends = itertools.accumulate((len(each) for each in self.moments), initial=0)
        return [slice(a, b) for a, b in itertools.pairwise(ends)]


def measure(
    dependencies: Dependencies,
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    seed: int = 0,
    centred: bool = True,
) -> dict[str, Reader]:
    """Run images (no label is looked at) through ``module`` once forwards and backwards.

    Gives, by layer, every convolution without groups and every linear layer that reads removable
    channels; a layer that is not run is left out. A constant error does not count in layers with a
    bias, nor, where ``centred`` is set, before a batch norm whose mean is measured anew.
    """
    module.eval()
    generator = torch.Generator().manual_seed(seed)
    normed = _before_norms(dependencies) if centred else set()
    watches: dict[str, _Watch] = {}
    for (name, axis), classes in dependencies.axes.items():
        layer = module.get_submodule(layer_of(name)) if axis == 1 else None
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) or not classes.any():
            continue
        if name.endswith("weight") and getattr(layer, "groups", 1) == 1:
            constant = layer.bias is not None or name in normed
            watches[layer_of(name)] = _Watch(layer, classes, constant, generator)
    hooks = [hook for watch in watches.values() for hook in watch.hooks()]
    try:
        for x, _ in batches:
            outputs = module(x)
            signs = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) * 2 - 1
            centre = outputs.mean(1, keepdim=True) if outputs.ndim == 2 else 0
            ((outputs - centre) * signs).sum().backward()
            module.zero_grad(set_to_none=True)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: watch.result() for name, watch in watches.items() if watch.count}


def _before_norms(dependencies: Dependencies) -> set[str]:
    """Weights whose outputs go to batch norms alone."""
    found = set()
    for node in dependencies.graph.program.graph.nodes:
        if node.op != "call_function" or not node.users:
            continue
        if all("batch_norm" in operator_name(user) for user in node.users):
            tensors = (dependencies.graph.tensor(each) for each in given(node)[1:2])
            found |= {tensor for tensor in tensors if tensor is not None}
    return found


class _Watch:
    """Adds up what passes through one layer.

    The gradient is that of random signed sums of the outputs (Hutchinson's estimator of their
    squared change). An error is taken to spread over the positions as the output itself does: what
    positions have in common adds up in the network's outputs, and a sum of squares over positions,
    as in K-FAC, would not see it (ResNet-20's last block: 30 times too little).
    """

    def __init__(
        self,
        layer: nn.Module,
        classes: NDArray[np.int64],
        constant: bool,
        generator: torch.Generator,
    ) -> None:
        self.layer, self.constant, self.generator = layer, constant, generator
        weight: Any = layer.weight
        self.weight = weight.detach().double().cpu().flatten(1)
        self.classes = np.repeat(classes, self.weight.shape[1] // len(classes))
        columns = self.weight.shape[1]
        self.widths = [min(BLOCK, columns - at) for at in range(0, columns, BLOCK)]
        self.sums = torch.zeros(columns, dtype=torch.float64)
        self.squares = [torch.zeros(each, each) for each in self.widths]
        self.variance = torch.zeros(len(self.weight), dtype=torch.float64)
        self.effect = torch.zeros(len(self.weight), dtype=torch.float64)
        self.count = self.images = 0

    def hooks(self) -> list[Any]:
        return [
            self.layer.register_forward_pre_hook(self._read),
            self.layer.register_forward_hook(self._wait),
        ]

    def _read(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        flat = self._columns(inputs[0].detach())
        for total, part in zip(self.squares, torch.split(flat, self.widths, 1), strict=True):
            total += (part.T @ part).cpu()
        self.sums += flat.double().sum(0).cpu()
        self.count += len(flat)

    def _columns(self, x: Tensor) -> Tensor:
        """What some positions read, (positions, columns)."""
        if isinstance(self.layer, nn.Conv1d | nn.Conv2d):
            each = unfold(self.layer, x).transpose(1, 2)  # (B, positions, columns)
        else:
            each = x.reshape(len(x), -1, x.shape[-1])
        if each.shape[1] > POSITIONS:
            chosen = torch.randperm(each.shape[1], generator=self.generator)[:POSITIONS]
            each = each[:, chosen.sort().values.to(x.device)]
        return each.flatten(0, 1)

    def _wait(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        rows = 1 if isinstance(self.layer, nn.Conv1d | nn.Conv2d) else output.ndim - 1
        y = output.detach().movedim(rows, -1).reshape(len(output), -1, len(self.weight))
        y = y - y.mean((0, 1))  # (B, positions, rows)

        def learn(gradient: Tensor) -> None:
            slope = gradient.detach().movedim(rows, -1).reshape(y.shape)
            self.effect += (slope * y).sum(1).double().square().sum(0).cpu()

        self.variance += y.square().mean(1).double().sum(0).cpu()
        self.images += len(y)
        output.register_hook(learn)  # type: ignore[no-untyped-call]

    def result(self) -> Reader:
        mean = self.sums / self.count
        moments = []
        for total, own in zip(self.squares, torch.split(mean, self.widths), strict=True):
            covariance = total.double() / self.count
            if self.constant:
                covariance -= torch.outer(own, own)
            damping = DAMPING * covariance.diagonal().mean().clamp_min(1e-30)
            moments.append(covariance + damping * torch.eye(len(own), dtype=torch.float64))
        tiny = torch.finfo(torch.float64).tiny
        importance = self.effect / self.variance.clamp_min(tiny)
        return Reader(self.weight, self.classes, mean, moments, importance)
