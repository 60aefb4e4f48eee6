"""Batch norms: the same function with fewer numbers, and inputs made from their statistics."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import StageError

STEPS = 40
"""Steps of `synthesize`, which calls ``advance`` after each."""
_LEARNING_RATE = 0.1
_COARSE = 8  # the start of an image has detail of this many pixels, as images do


def settle(module: nn.Module) -> None:
    """Put each norm's statistics into its weight and bias: mean 0 and variance 1 take no bytes.

    In evaluation mode the network computes what it did, to a rounding. Norms without weights stay.
    """
    with torch.no_grad():
        for norm in _norms(module):
            if norm.weight is None:
                continue
            mean, variance = _statistics(norm)
            scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
            norm.bias.copy_(norm.bias.double() - mean.double() * scale)
            norm.weight.copy_(scale * (1 + norm.eps) ** 0.5)
            mean.zero_()
            variance.fill_(1.0)


def synthesize(
    module: nn.Module,
    shape: tuple[int, ...],
    batch: int,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> Tensor:
    """A batch of inputs (batch, ...) that give every norm the statistics it was trained with.

    Found by gradient descent from noise (Cai et al. 2020, "ZeroQ", arXiv:2001.00281; Yin et al.
    2020, "DeepInversion", arXiv:1912.08795). To be called before `settle`, on a network in
    evaluation mode. Raises StageError for a network without norms.
    """
    norms = _norms(module)
    if not norms:
        raise StageError("the network has no batch norm from which inputs could be made")
    device = _statistics(norms[0])[0].device
    x = _start(shape, batch, generator).to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=_LEARNING_RATE)
    distances: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(
            lambda own, inputs: distances.append(_distance(own, inputs[0]))
        )
        for norm in norms
    ]
    try:
        for _ in range(STEPS):
            distances.clear()
            module(x)
            (x.grad,) = torch.autograd.grad(torch.stack(distances).sum(), [x])
            optimizer.step()
            advance()
    finally:
        for hook in hooks:
            hook.remove()
    return x.detach()


def present(module: nn.Module) -> bool:
    """Whether `synthesize` can work."""
    return bool(_norms(module))


def _norms(module: nn.Module) -> list[_BatchNorm]:
    found = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    return [norm for norm in found if norm.running_mean is not None]


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a norm that has them, themselves and no copies."""
    return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)


def _start(shape: tuple[int, ...], batch: int, generator: torch.Generator) -> Tensor:
    fine = torch.randn(batch, *shape, generator=generator)
    if len(shape) != 3 or min(shape[1:]) < 2 * _COARSE:
        return fine
    sizes = [size // _COARSE * 2 for size in shape[1:]]
    coarse = torch.randn(batch, shape[0], *sizes, generator=generator)
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bicubic")
    return smooth + 0.5 * fine


def _distance(norm: _BatchNorm, x: Tensor) -> Tensor:
    """How far the batch's means and deviations are from the norm's, relative to these."""
    axes = [d for d in range(x.ndim) if d != 1]
    mean, variance = _statistics(norm)
    spread = variance + 1e-3
    means = (x.mean(axes) - mean) ** 2 / spread
    deviations = (x.var(axes, correction=0).clamp_min(1e-8).sqrt() - variance.sqrt()) ** 2
    return means.mean() + (deviations / spread).mean()
