"""Batch norms' statistics estimated anew, for a network whose channels have changed.

What a norm has stored describes the activations of the network that it was trained in. Once
channels are removed the activations are others, and until a norm knows them most of the loss in
accuracy is its own (Li et al. 2020, "EagleEye", arXiv:2007.02491, section 3.2).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.errors import StageError
from compressor.layers import batch_norms
from compressor.network import Context
from compressor.training.data import Data, batches

IMAGES = 2000
BATCH = 100
"""The most images in a batch."""


def recalibrate(
    module: nn.Module,
    data: Data,
    context: Context,
    images: int = IMAGES,
    augment: str = "auto",
) -> list[str]:
    """Set every batch norm's running mean and variance to those of its inputs; returns its names.

    Training images, as many as asked for or all (less what equal batches leave over: a norm takes
    no variance of one value), are drawn, ordered and augmented by the seed.
    ``augment`` is a training's: "auto" is the data set's own, as the weights were trained for what
    it makes of the images (black borders, say): ResNet-20 on CIFAR-10 has 91.6 % with its own
    statistics and with those of augmented images, and 88.4 % with those of plain ones.

    Norms normalise by the batch while they are measured, as they do in training; everything else,
    dropout included, is in evaluation mode. Of a norm's inputs x_1 ... x_N, per channel and over
    all images, positions and calls::

        running_mean = m = sum_i x_i / N        running_var = sum_i (x_i - m)^2 / (N - 1)

    in float64, merged from batch to batch by the formula of Chan, Golub and LeVeque (1979). This
    is the population's variance ("precise BN", Wu and Johnson 2021, arXiv:2105.07576, section 3),
    unbiased as PyTorch has it. An average over the batches' variances would lack what the means
    differ by from batch to batch, and depend on the batch size; a momentum, which a rewritten
    ``forward`` may hold as a constant, plays no part.

    Only inputs are looked at, not modules' calls: so a ``forward`` that calls
    ``torch.nn.functional.batch_norm`` with a norm's tensors is measured as well. A norm that is
    not run keeps what it has, as do all where anything raises. Weights and modes stay; a module
    without norms is not run at all. Raises :class:`StageError` for fewer than two images, and
    :class:`UsageError` for an augmentation that there is not.
    """
    norms = _tracking(module)
    if not norms:
        return []
    watch = _Watch([cast(Tensor, norm.running_mean) for norm in norms.values()])
    inputs, steps = _inputs(data, context, images, augment)
    with (
        _measuring(module, list(norms.values())),
        context.progress.task("recalibrate batch norms", steps) as advance,
        torch.no_grad(),
    ):
        for x, _ in inputs:
            with watch:
                module(x)
            advance()
    return [
        name
        for (name, norm), moments in zip(norms.items(), watch.moments, strict=True)
        if moments.store(norm)
    ]


def _inputs(
    data: Data, context: Context, images: int, augment: str
) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    """The batches to measure on, and how many they are."""
    count = min(images, len(data.train))
    if count < 2:
        raise StageError(f"batch norms cannot be recalibrated on {count} images: give two or more")
    generator = torch.Generator().manual_seed(context.seed)
    steps = math.ceil(count / BATCH)
    size = count // steps
    chosen = torch.randperm(len(data.train), generator=generator)[: steps * size]
    found = batches(
        data.train.take(chosen),
        data,
        batch_size=size,
        shuffle_generator=generator,
        augment=data.augment if augment == "auto" else augment,
        device=context.device,
    )
    return found, steps


def _tracking(module: nn.Module) -> dict[str, _BatchNorm]:
    found = batch_norms(module).items()
    return {name: norm for name, norm in found if norm.running_mean is not None}


@contextmanager
def _measuring(module: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Norms in training mode, the rest not; modes and statistics as they were afterwards."""
    modes = {child: child.training for child in module.modules()}
    statistics = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(False)]
    module.eval()
    for norm in norms:
        norm.training = True  # not train(): a subclass may hold a dropout
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode
        with torch.no_grad():
            for buffer, value in statistics:
                buffer.copy_(value)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the inputs' moments of the norms that own these running means.

    Below modules and functions there is one operator for every way to call a batch norm, named
    after the backend (native, cudnn, miopen); its first argument is the input (N, C, ...).
    """

    def __init__(self, means: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments = [_Moments() for _ in means]
        self._owners = {id(mean): own for mean, own in zip(means, self.moments, strict=True)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if "batch_norm" in func.name():
            for argument in (*args, *(kwargs or {}).values()):
                if id(argument) in self._owners:
                    self._owners[id(argument)].add(args[0])
        return func(*args, **(kwargs or {}))


class _Moments:
    """How many values each channel had, their mean (C,), and the sum of squares about it."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """Take in ``x`` (N, C, ...)."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x.double(), axes, correction=0)
        more = x.numel() // x.shape[1]
        total, away = self.count + more, mean - self.mean
        self.squares = self.squares + variance * more + away**2 * (self.count * more / total)
        self.mean = self.mean + away * (more / total)
        self.count = total

    def store(self, norm: _BatchNorm) -> bool:
        """Make them the norm's statistics; False where there are none."""
        if self.count == 0:
            return False
        with torch.no_grad():
            cast(Tensor, norm.running_mean).copy_(cast(Tensor, self.mean))
            cast(Tensor, norm.running_var).copy_(cast(Tensor, self.squares) / (self.count - 1))
        return True
