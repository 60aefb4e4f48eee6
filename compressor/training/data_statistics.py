"""The mean and standard deviation per channel that images are normalised with."""

import math

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.training.data_arrays import Split
from compressor.training.data_sources import Source


def normalisation(
    source: Source,
    train: Split,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Those that are told, else the set's own, else those of the images ``train``.

    Raises UsageError where one is told alone, or where they do not fit the images.
    """
    if (mean is None) != (std is None):
        raise UsageError("a mean needs a standard deviation, and the reverse; give both or none")
    if mean is None or std is None:
        mean, std = source.mean, source.std
    if train.x.ndim != 4:  # no images: taken as they are
        return (0.0,), (1.0,)
    if mean is None or std is None:
        mean, std = _statistics(train.x)
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    channels = train.x.shape[1]
    if not len(mean) == len(std) == channels:
        raise UsageError(
            f"mean {mean} and std {std} must have one value for each of {channels} channels"
        )
    if not all(math.isfinite(value) for value in mean + std) or min(std) <= 0:
        raise UsageError(f"mean {mean} must be finite and std {std} finite and above 0")
    return mean, std


def _statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, rounded to six digits; a constant one gets std 1.

    The sums of uint8 images are exact integers; those of floats are float64, and the rounding
    hides the order in which threads add.
    """
    means, stds = [], []
    for channel in x.unbind(1):
        if x.dtype == torch.uint8:
            counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
            value = torch.arange(256, dtype=torch.float64) / 255
        else:
            value = channel.flatten().to(torch.float64)
            counts = torch.ones(1, dtype=torch.float64).expand_as(value)
        size = counts.sum()
        average = (counts * value).sum() / size
        variance = (counts * (value - average) ** 2).sum() / size
        means.append(float(f"{average.item():.6g}"))
        stds.append(float(f"{variance.sqrt().item():.6g}") or 1.0)
    return tuple(means), tuple(stds)
