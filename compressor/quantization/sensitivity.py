"""What an error in a weight costs the network's outputs, from a few batches of inputs.

For small errors E in a layer's weights, rows i (output channels) and columns j (inputs of one
output), the mean squared change of the outputs is close to

    sum over rows i of  importance[i] * E[i] @ moments @ E[i]

``importance`` is the energy of the outputs' gradient at row i, summed over positions; ``moments``
are the second moments of what the row reads (K-FAC's two factors: Martens and Grosse 2015,
arXiv:1503.05671, of which the first is taken as diagonal). The gradient is that of random signed
sums of the outputs, whose mean square is the Gauss-Newton matrix (Hutchinson's estimator); it needs
no labels. One pass over the inputs measures all layers.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.examples import answers
from compressor.layers import Layer
from compressor.network import Context
from compressor.quantization.inputs import Inputs

BLOCK = 1152
"""Most columns whose moments are taken together; a layer with more has several blocks of them."""
POSITIONS = 128
"""Most positions of an image that a batch's moments are taken from; drawn anew for each batch."""


@dataclass(frozen=True)
class Sensitivity:
    """Of one layer, whose weights are cut into ``b`` blocks, (b, rows, columns), by `blocks`.

    Attributes:
        moments: (b, columns, columns) float32, mean products of what each position reads.
        importance: (b, rows) float64; 0 where nothing that a row does reaches an output.
    """

    moments: Tensor
    importance: Tensor

    def of_weights(self, layer: Layer) -> Tensor:
        """What an error in each weight alone costs, float64 of the weight's shape."""
        energy = torch.diagonal(self.moments, dim1=1, dim2=2).double()  # (b, columns)
        return unblocks(layer, self.importance.unsqueeze(2) * energy.unsqueeze(1))


@dataclass(frozen=True)
class Sensitivities:
    """Of all layers that were run, by name; ``energy`` is the outputs' mean square."""

    layers: dict[str, Sensitivity]
    energy: float


def blocks(layer: Layer, weight: Tensor) -> Tensor:
    """Cut a tensor of the layer's shape into blocks (b, rows, columns) that no input is shared by.

    Groups of a convolution have inputs of their own; columns beyond `BLOCK` are cut evenly.
    """
    groups = _groups(layer.module)
    rows = len(weight) // groups
    width = _width(weight[0].numel())
    cut = weight.reshape(groups, rows, -1, width).transpose(1, 2)
    return cut.reshape(-1, rows, width)


def unblocks(layer: Layer, cut: Tensor) -> Tensor:
    """Undo `blocks`: (b, rows, columns) to the shape of the layer's weight."""
    _, rows, width = cut.shape
    whole = cut.reshape(_groups(layer.module), -1, rows, width).transpose(1, 2)
    return whole.reshape(layer.weight.shape)


def measured(layer: Layer) -> bool:
    """Whether the inputs of this kind of layer can be laid out in columns."""
    return isinstance(layer.module, nn.Linear | nn.Conv1d | nn.Conv2d)


def measure(
    module: nn.Module, layers: dict[str, Layer], inputs: Inputs, context: Context
) -> Sensitivities:
    """Run ``inputs`` through ``module``, in evaluation mode, once forwards and backwards.

    Layers that `measured` says no of are left out. Leaves the module as it was.
    """
    module.eval()
    generator = torch.Generator().manual_seed(context.seed)
    watches = {name: _Watch(layer, generator) for name, layer in layers.items() if measured(layer)}
    hooks = [hook for watch in watches.values() for hook in watch.hooks()]
    energy, images = 0.0, 0
    try:
        with context.progress.task("sensitivities", inputs.count) as advance:
            for x in inputs.batches:
                outputs = answers(module(x))
                signs = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) * 2 - 1
                (_centred(outputs) * signs).sum().backward()  # type: ignore[no-untyped-call]
                module.zero_grad(set_to_none=True)
                energy += float(_centred(outputs.detach()).double().square().sum())
                images += len(x)
                advance()
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: watch.result(images) for name, watch in watches.items() if watch.count}
    return Sensitivities(found, energy / max(images, 1))


def _centred(outputs: Tensor) -> Tensor:
    """Logits less their mean, for what all classes have in common changes no answer."""
    return outputs - outputs.mean(1, keepdim=True) if outputs.ndim == 2 else outputs


class _Watch:
    """Adds up what passes through one layer."""

    def __init__(self, layer: Layer, generator: torch.Generator) -> None:
        self.layer, self.generator = layer, generator
        self.count = 0
        cut = blocks(layer, layer.weight)
        self.moments = torch.zeros(len(cut), cut.shape[2], cut.shape[2])
        self.gradient = torch.zeros(len(layer.weight), dtype=torch.float64)

    def hooks(self) -> list[Any]:
        return [
            self.layer.module.register_forward_pre_hook(self._read),
            self.layer.module.register_forward_hook(self._wait),
        ]

    def _read(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read = layout(self.layer.module, inputs[0].detach(), self.generator)
        self.moments += (read.transpose(1, 2) @ read).cpu()
        self.count += read.shape[1]

    def _wait(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(self._learn)  # type: ignore[no-untyped-call]

    def _learn(self, gradient: Tensor) -> None:
        squares = gradient.detach().double().square()
        rows = 1 if isinstance(self.layer.module, nn.Conv1d | nn.Conv2d) else squares.ndim - 1
        self.gradient += squares.sum([d for d in range(squares.ndim) if d != rows]).cpu()

    def result(self, images: int) -> Sensitivity:
        groups = _groups(self.layer.module)
        importance = (self.gradient / images).reshape(groups, 1, -1)
        importance = importance.expand(-1, len(self.moments) // groups, -1).flatten(0, 1)
        return Sensitivity(self.moments / self.count, importance)


def _groups(module: nn.Module) -> int:
    return int(getattr(module, "groups", 1))


def _width(columns: int) -> int:
    """The largest divisor of ``columns`` that is at most `BLOCK`."""
    fewest = math.ceil(columns / BLOCK)
    return next(columns // parts for parts in range(fewest, columns + 1) if columns % parts == 0)


def layout(module: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """What some positions read, (b, positions, columns); drawn where there are very many."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        positions = unfold(module, x).transpose(1, 2)  # (B, positions, inputs)
    else:
        positions = x.reshape(len(x), -1, x.shape[-1])
    if positions.shape[1] > POSITIONS:
        chosen = torch.randperm(positions.shape[1], generator=generator)[:POSITIONS].sort().values
        positions = positions[:, chosen.to(x.device)]
    flat = positions.flatten(0, 1)
    width = _width(flat.shape[1] // _groups(module))
    return flat.reshape(len(flat), -1, width).transpose(0, 1)


def unfold(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """The inputs of each position, (B, C * kernel, positions); one dimension is a flat image."""
    kernel, stride, dilation = (
        _pair(sizes) for sizes in (module.kernel_size, module.stride, module.dilation)
    )
    if isinstance(module.padding, str):
        same = module.padding == "same"
        totals = [d * (k - 1) * same for d, k in zip(dilation, kernel, strict=True)]
        sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    else:
        height, width = _pair(module.padding, 0)
        sides = [width, width, height, height]
    image = x.unsqueeze(2) if x.ndim == 3 else x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(image, sides, mode=mode) if any(sides) else image
    return functional.unfold(padded, kernel, dilation, 0, stride)


def _pair(sizes: tuple[int, ...], alone: int = 1) -> tuple[int, int]:
    """(height, width); with one dimension the height is ``alone``."""
    return (alone, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
