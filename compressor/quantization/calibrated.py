"""Stage 2, the other way: every layer on a grid of its own, as fine as the outputs need it.

1. Norms give up their statistics (`norms.settle`).
2. Some inputs tell what an error in each weight costs the outputs (`sensitivity`). They are
   training images, of which no label is looked at; without data, images made from the norms'
   statistics; without norms all layers are taken to matter alike.
3. A layer's step is inversely proportional to the root of its sensitivity, so that a bit buys the
   same everywhere (reverse water-filling; Cover and Thomas 2006, section 10.3.3).
4. Weights are rounded with their errors compensated (`compensation`), biases and norms more finely
   (`vectors`).
5. With an accuracy budget, 3 and 4 are repeated for the coarsest steps that keep within it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.layers import Layer, share_layer, single_layers
from compressor.network import Context, Network, Row, StageReport
from compressor.quantization import inputs, norms, sensitivity
from compressor.quantization.compensation import MAX_LEVEL, Compensation
from compressor.quantization.vectors import Vectors
from compressor.settings import Calibrate
from compressor.training.data import Data, batches

RATE = 0.15
"""What a bit is worth, in units of a step's square; at fine steps the slope of D(R) is 0.116 (Gish
and Pierce 1968)."""
MOST_VALIDATION = 5000
FINEST, COARSEST = -28, 0
"""Noise of the search, in quarters of an octave: 2^-7 to 1."""
_WEAKEST = 0.03  # of the mean importance: rows below it do not make a layer's step any coarser


@dataclass(frozen=True)
class Grid:
    """A layer's weights as whole multiples: ``levels`` (the weight's shape) int64 and ``step``."""

    levels: Tensor
    step: np.float32

    def shared(self) -> tuple[Tensor, Tensor]:
        """Indices (int32) and codebook (float32, ascending, without 0) of a shared layer."""
        low, high = int(self.levels.min()), int(self.levels.max())
        low, high = min(low, 0), max(high, 0)
        every = np.delete(np.arange(low, high + 1), -low).astype(np.float32) * self.step
        indices = torch.where(self.levels < 0, self.levels - low + 1, self.levels - low)
        indices = torch.where(self.levels == 0, 0, indices)
        return indices.to(torch.int32), torch.from_numpy(every)


class Quantizer:
    """Rounds what ``module`` and its ``layers`` hold now, at any noise, by sensitivities ``found``.

    Weights that are zero are pruned ones, and stay zero.
    """

    def __init__(
        self, module: nn.Module, layers: dict[str, Layer], found: sensitivity.Sensitivities
    ) -> None:
        self.layers, self.vectors = layers, Vectors(module)
        self._weights = {name: layer.weight.cpu().clone() for name, layer in layers.items()}
        self._kept = {name: weight != 0 for name, weight in self._weights.items()}
        self._importance = {
            name: s.importance
            for name, s in found.layers.items()
            if self._alive(name, s.importance).any() and float(s.moments.abs().max()) > 0
        }
        self._compensations = {
            name: self._compensation(name, found.layers[name].moments) for name in self._importance
        }
        kept = sum(int(mask.sum()) for mask in self._kept.values())
        self._unit = math.sqrt(12 * found.energy / max(kept, 1))

    def _alive(self, name: str, importance: Tensor) -> Tensor:
        """Which weights of a layer are left, in rows that reach an output; in blocks."""
        kept = sensitivity.blocks(self.layers[name], self._kept[name])
        return kept & (importance > 0).unsqueeze(2)

    def _compensation(self, name: str, moments: Tensor) -> tuple[Compensation, float]:
        """Of one layer, and the step at which it adds a unit of error for each weight."""
        importance = self._importance[name]
        found = Compensation.of(moments, self._alive(name, importance), importance)
        typical = importance.clamp_min(_WEAKEST * float(importance.mean())).log().mean().exp()
        return found, math.sqrt(found.spread / float(typical))

    def grid(self, name: str, noise: float) -> Grid:
        """Round one layer so that all layers together change the outputs by about ``noise``, the
        root of the mean squared change over the outputs' mean square."""
        weight, kept = self._weights[name], self._kept[name]
        if name not in self._importance:
            return _plain_grid(weight, kept, noise)
        layer, (found, unit) = self.layers[name], self._compensations[name]
        spacing = noise * self._unit
        step = _bounded(spacing * unit, weight)
        price = RATE * spacing**2
        levels = found.levels(sensitivity.blocks(layer, weight), float(step), price)
        return Grid(sensitivity.unblocks(layer, levels), step)


def _plain_grid(weight: Tensor, kept: Tensor, noise: float) -> Grid:
    """A grid whose rounding errors are ``noise`` of the weights' deviation."""
    spread = float(weight.double().square().mean().sqrt())
    step = _bounded(noise * math.sqrt(12) * spread if spread > 0 else 1, weight)
    levels = (weight.double() / float(step)).round()
    return Grid(torch.where(kept, levels, 0.0).long(), step)


def _bounded(step: float, weight: Tensor) -> np.float32:
    """``step``, or as much more as leaves the largest weight `MAX_LEVEL` of them."""
    return np.float32(max(step, float(weight.abs().max()) / MAX_LEVEL))


def calibrate(network: Network, settings: Calibrate, context: Context) -> StageReport:
    """Quantize every layer; see the top of this module. The report's history are the noises tried.

    Raises :class:`StageError` for a network without layers, and for an accuracy budget without
    validation images.
    """
    module = network.module.eval()
    layers = single_layers(module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to quantize")
    found = sensitivities(network, layers, settings, context)
    quantizer = Quantizer(module, layers, found)
    noise, history = settings.noise, list[Row]()
    if settings.max_drop is not None:
        noise, history = _search(module, quantizer, settings.max_drop, context)
    rows = apply(quantizer, noise, context)
    return StageReport(rows, history)


def sensitivities(
    network: Network, layers: dict[str, Layer], settings: Calibrate, context: Context
) -> sensitivity.Sensitivities:
    """Measure the layers with the best inputs there are; settles the norms on the way."""
    module, data = network.module, context.data
    found = None
    if data is not None:
        found = inputs.drawn(data, settings.images, context)
    elif norms.present(module):
        found = inputs.made(network, settings.images, context)
    norms.settle(module)
    if found is None:
        context.progress.note("neither data nor batch norms: all layers are quantized alike")
        return sensitivity.Sensitivities({}, 1.0)
    return sensitivity.measure(module, layers, found, context)


def apply(quantizer: Quantizer, noise: float, context: Context) -> list[Row]:
    """Put what is rounded at ``noise`` into the module; a row for each layer."""
    rows = []
    quantizer.vectors.round(noise)
    with context.progress.task("quantize", len(quantizer.layers)) as advance:
        for name, layer in quantizer.layers.items():
            grid = quantizer.grid(name, noise)
            indices, codebook = grid.shared()
            device = layer.weight.device
            share_layer(layer, indices.to(device), codebook.to(device))
            rows.append(_row(name, grid, len(codebook), noise))
            advance(name)
    return rows


def _row(name: str, grid: Grid, centroids: int, noise: float) -> Row:
    counts = torch.unique(grid.levels, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return {
        "layer": name,
        "bits": max(centroids, 1).bit_length(),
        "entropy": float(-(shares * shares.log2()).sum()),
        "step": float(grid.step),
        "centroids": centroids,
        "noise": noise,
    }


def _search(
    module: nn.Module, quantizer: Quantizer, max_drop: float, context: Context
) -> tuple[float, list[Row]]:
    """The coarsest noise whose losses stay within ``max_drop`` percent, and a row for each tried.

    A loss is a validation image that was answered rightly before and no longer is. Images that
    the network was trained on hardly leave room for gains to cancel losses, and no accuracy falls
    by more than the losses, so this bounds the drop where the accuracy itself would hide it.
    """
    data = context.data
    if data is None or not len(data.validation):
        raise StageError("an accuracy budget needs data with validation images")
    right = _right(module, data, context.device)
    tried: list[Row] = []
    low, high = FINEST - 1, COARSEST + 1  # low keeps within the budget (or is finer than all)
    while high - low > 1:
        middle = (low + high) // 2
        noise = 2.0 ** (middle / 4)
        apply(quantizer, noise, context)
        lost = 100 * float((right & ~_right(module, data, context.device)).double().mean())
        tried.append({"noise": noise, "lost_percent": lost, "kept": lost <= max_drop})
        context.progress.note(f"noise {noise:.4f}: {lost:.2f} % of validation images lost")
        low, high = (middle, high) if lost <= max_drop else (low, middle)
    return 2.0 ** (max(low, FINEST) / 4), tried


def _right(module: nn.Module, data: Data, device: torch.device) -> Tensor:
    """Which validation images are answered rightly, bool, at most `MOST_VALIDATION` of them."""
    split = data.validation
    if len(split) > MOST_VALIDATION:
        split = split.take(torch.arange(MOST_VALIDATION))
    with torch.no_grad():
        found = [
            (module(x).argmax(1) == y).cpu()
            for x, y in batches(split, data, batch_size=500, device=device)
        ]
    return torch.cat(found)
