"""Trained ternary quantization: each weight is -Wn, 0 or +Wp, and training finds which.

Zhu, Han, Mao and Dally 2017 (arXiv:1612.01064, sections 3 and 4). Dense weights stay behind a layer
while it trains, divided by the largest magnitude that they had. In every step those above the
threshold t x max|w| count as +Wp and those below its negative as -Wn; both scales learn as
centroids do, and the dense weights by gradients that go straight through (equations 6 to 8). What
is left in the end is a shared layer of two centroids, and stored as any other.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.layers import Layer, put_on, share_layer, step_of


class Ternary(nn.Module):
    """dense weight -> -Wn, 0 or +Wp.

    ``kept`` is bool, of the weight's shape; elsewhere the weight is 0 for good. What is trained is
    the dense weight and ``scales``, float32 (2,): Wn and Wp.
    """

    kept: Tensor

    def __init__(self, weight: Tensor, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("kept", weight != 0)
        largest = weight.abs().max()
        signs = codes(weight, self.kept, threshold)
        ends = [weight[signs == sign].abs() for sign in (-1, 1)]
        # The least squared error for these codes; where a side is empty, the other side's scale.
        scales = [
            each.mean() if each.numel() else ends[1 - i].mean() for i, each in enumerate(ends)
        ]
        self.scales = nn.Parameter(torch.stack(scales))
        self._start = weight / largest

    def forward(self, weight: Tensor) -> Tensor:
        signs = codes(weight, self.kept, self.threshold)
        return cast(Tensor, _Quantize.apply(weight, self.scales, signs))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._start.clone()


def codes(weight: Tensor, kept: Tensor, threshold: float) -> Tensor:
    """-1, 0 or 1 for every weight, int8: the sign of those over ``threshold`` x max|w|."""
    alive = torch.where(kept, weight.detach(), 0.0)
    limit = threshold * alive.abs().max()
    return (alive > limit).to(torch.int8) - (alive < -limit).to(torch.int8)


class _Quantize(torch.autograd.Function):
    """Equations 6 (forwards), 7 and 8 (backwards) of the paper."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *inputs: Tensor) -> Tensor:
        weight, scales, signs = inputs
        ctx.save_for_backward(scales, signs)
        positive = torch.where(signs > 0, scales[1], weight.new_zeros(()))
        return torch.where(signs < 0, -scales[0], positive)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grads: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        scales, signs = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grads[0]
        down = -torch.where(signs < 0, grad, 0.0).sum()
        up = torch.where(signs > 0, grad, 0.0).sum()
        factor = torch.where(signs > 0, scales[1], torch.where(signs < 0, scales[0], 1.0))
        return grad * factor, torch.stack([down, up]), None


def begin(layer: Layer, threshold: float) -> None:
    """Put a ternary weight on a layer. Raises :class:`StageError` where it has none but zeros."""
    weight = layer.weight.clone()
    if not torch.isfinite(weight).all():
        raise StageError(f"{layer.name} has weights that are NaN or infinite")
    if not weight.any():
        raise StageError(f"{layer.name} has no weight other than zero: nothing to quantize")
    put_on(layer, Ternary(weight, threshold))


def finish(layers: Mapping[str, Layer]) -> dict[str, int]:
    """Leave of every layer that has a ternary weight a shared one, with what it came to.

    Returns the number of centroids of each. Raises :class:`StageError` where all became zero.
    """
    found = {}
    for layer in layers.values():
        step = _ternary(layer)
        if step is None:
            continue
        weight = layer.weight
        codebook = torch.unique(weight[weight != 0])  # ascending; fewer than two if a side is empty
        if not codebook.numel():
            raise StageError(f"{layer.name} came to nothing but zeros: lower share.threshold")
        indices = torch.searchsorted(codebook, weight.contiguous()).to(torch.int32) + 1
        share_layer(layer, torch.where(weight == 0, 0, indices), codebook)
        found[layer.name] = codebook.numel()
    return found


def _ternary(layer: Layer) -> Ternary | None:
    step = step_of(layer)
    return step if isinstance(step, Ternary) else None
