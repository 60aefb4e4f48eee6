"""Biases and norms on grids too: of a network with few weights left they are a tenth."""

import math

import torch
from torch import Tensor, nn

FINER = 4
"""How much less of themselves vectors lose than the outputs: they are few, and read everywhere."""


class Vectors:
    """The parameters of ``module`` with one dimension, as they are now."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [p for p in module.parameters() if p.ndim == 1]
        self._values = [p.detach().clone() for p in self._parameters]

    def round(self, noise: float) -> None:
        """Give the module its vectors again, rounded for this much noise of the outputs."""
        with torch.no_grad():
            for parameter, values in zip(self._parameters, self._values, strict=True):
                parameter.copy_(rounded(values, noise / FINER))


def rounded(values: Tensor, noise: float) -> Tensor:
    """``values`` as multiples of a power of two, with errors up to ``noise`` of their deviation.

    A power of two: then float16 has all multiples up to 2,048, and the artifact's PACKED mode finds
    the step in them.
    """
    size = float(values.double().square().mean().sqrt())
    if not 0 < size < math.inf:
        return values
    step = 2.0 ** math.floor(math.log2(noise * math.sqrt(12) * size))
    return ((values.double() / step).round() * step).to(values.dtype)
