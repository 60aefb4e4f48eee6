"""Images and labels from anywhere, checked and laid out as tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import DataError

Shape = tuple[int, int, int]
CHANNELS = (1, 3, 4)

# The test split of a set that brings none never depends on the run's seed: a network trained
# with one seed and compressed with another must not meet its training images in the test.
TEST_SEED = 0
TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: ``x`` uint8 or float32 (N, C, H, W), ``y`` int64 (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str) -> Split:
        """The same split on ``device``: moved once, not batch by batch."""
        return Split(self.x.to(device), self.y.to(device))

    def take(self, index: Tensor) -> Split:
        """The images and labels at ``index``, int64 (M,), in that order."""
        return Split(self.x[index], self.y[index])


def as_split(x: Any, y: Any, input_shape: Shape | None, where: str) -> Split:
    """Arrays or tensors -> Split; ``where`` names them in errors.

    ``x``: integers in 0..255 or floats, (N, H, W), (N, H, W, C) or (N, C, H, W), the last two
    told apart by ``input_shape`` (C, H, W) or, without it, by which axis is 1, 3 or 4 long.
    ``y``: integers (N,), 0 or above. Raises DataError for any other shape or type, for an
    image that holds NaN or infinity, and for no images at all.
    """
    images, labels = _tensor(x, f"{where}: the images"), _tensor(y, f"{where}: the labels")
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise DataError(f"{where}: the labels must be integers of shape (N,), not {found}")
    if images.ndim < 3 or len(images) != len(labels):
        raise DataError(
            f"{where}: images of shape {tuple(images.shape)} do not go with {len(labels)} labels; "
            "expected (N, H, W), (N, H, W, C) or (N, C, H, W) and N labels"
        )
    if not len(labels):
        raise DataError(f"{where}: holds no images")
    labels = labels.to(torch.int64)
    if int(labels.min()) < 0:
        raise DataError(f"{where}: label {int(labels.min())} is below 0")
    return Split(_values(_layout(images, input_shape, where), where), labels)


def as_pairs(x: Any, y: Any, input_shape: tuple[int, ...] | None, where: str) -> Split:
    """Inputs and targets, for a task of its own -> Split.

    ``x``: images as in :func:`as_split`, or floats (N, ...) of any other number of axes; ``y``:
    numbers (N, ...). Raises DataError where these do not belong together or are not finite.
    """
    inputs, targets = _tensor(x, f"{where}: the inputs"), _tensor(y, f"{where}: the targets")
    if not inputs.ndim or not targets.ndim or len(inputs) != len(targets) or not len(targets):
        raise DataError(
            f"{where}: inputs of shape {tuple(inputs.shape)} do not go with targets of shape "
            f"{tuple(targets.shape)}: both need one entry for each sample"
        )
    if targets.is_floating_point():
        targets = targets.float()
        if not bool(torch.isfinite(targets).all()):
            raise DataError(f"{where}: the targets hold NaN or infinity")
    if input_shape is not None and len(input_shape) == 3:
        images = (input_shape[0], input_shape[1], input_shape[2])
        return Split(_values(_layout(inputs, images, where), where), targets)
    if input_shape is not None and tuple(inputs.shape[1:]) != tuple(input_shape):
        raise DataError(
            f"{where}: the inputs are {tuple(inputs.shape[1:])}, the network takes "
            f"{tuple(input_shape)}"
        )
    values = inputs.float() if inputs.is_floating_point() else inputs
    return Split(values if inputs.ndim != 4 else _values(values, where), targets)


def _tensor(array: Any, where: str) -> Tensor:
    try:
        if isinstance(array, Tensor):
            return array.detach().cpu()
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} are no numeric array: {error}") from error


def _layout(x: Tensor, input_shape: Shape | None, where: str) -> Tensor:
    """Any accepted layout -> (N, C, H, W)."""
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.ndim == 4 and _channels_last(x, input_shape):
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or (input_shape is None and x.shape[1] not in CHANNELS):
        raise DataError(
            f"{where}: images of shape {tuple(x.shape[1:])} are neither (H, W), (H, W, C) nor "
            f"(C, H, W) with {', '.join(map(str, CHANNELS))} channels"
        )
    if input_shape is not None and tuple(x.shape[1:]) != tuple(input_shape):
        raise DataError(
            f"{where}: the images are {tuple(x.shape[1:])} (channels, height, width), the network "
            f"takes {tuple(input_shape)}; give data of that size, or a network for these "
            "(only class folders and digits are resized)"
        )
    return x.contiguous()


def _channels_last(x: Tensor, input_shape: Shape | None) -> bool:
    if input_shape is not None:
        channels, height, width = input_shape
        if tuple(x.shape[1:]) in ((channels, height, width), (height, width, channels)):
            return tuple(x.shape[1:]) != (channels, height, width)
    return x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS


def _values(x: Tensor, where: str) -> Tensor:
    """-> uint8, or float32 that is finite throughout."""
    if x.dtype == torch.uint8:
        return x
    if x.is_floating_point():
        x = x.to(torch.float32)
        finite = torch.isfinite(x).flatten(1).all(1)
        if not bool(finite.all()):
            first = int(torch.nonzero(~finite)[0])
            raise DataError(f"{where}: image {first} holds NaN or infinity")
        return x
    if x.dtype == torch.bool or x.is_complex():
        raise DataError(f"{where}: images must be integers in 0..255 or floats, not {x.dtype}")
    x = x.to(torch.int64)  # torch finds no minimum of uint16 and its like
    if int(x.min()) < 0 or int(x.max()) > 255:
        span = f"{int(x.min())}..{int(x.max())}"
        raise DataError(f"{where}: integer images must lie in 0..255, these lie in {span}")
    return x.to(torch.uint8)


def split_off(whole: Split, where: object) -> tuple[Split, Split]:
    """(training, test) of a set that brings no test split: always the same stratified fifth.

    Each class gives its share of ceil(N / 5), rounded down, and the classes with the largest
    remainders give one more; every class keeps at least one image. Raises DataError where no
    image can be given.
    """
    generator = torch.Generator().manual_seed(TEST_SEED)
    given = _shares(torch.bincount(whole.y).tolist(), math.ceil(len(whole) * TEST_FRACTION))
    out = torch.zeros(len(whole), dtype=torch.bool)
    for label, share in enumerate(given):
        members = torch.nonzero(whole.y == label).flatten()
        out[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    if not out.any():
        raise DataError(f"{where}: {len(whole)} images are too few to set a test split aside")
    return whole.take(torch.nonzero(~out).flatten()), whole.take(torch.nonzero(out).flatten())


def _shares(counts: Sequence[int], total: int) -> list[int]:
    size = sum(counts)
    given = [count * total // size for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: -(counts[i] * total % size))
    for label in by_remainder[: total - sum(given)]:
        given[label] += 1
    return [min(share, max(count - 1, 0)) for share, count in zip(given, counts, strict=True)]


def permuted(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Seeded permutation: (the rest, the first round(N * fraction) images), both shuffled.

    Raises DataError where either would be empty though ``fraction`` is above 0.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    count = round(len(split) * fraction)
    if fraction and not 0 < count < len(split):
        raise DataError(
            f"a validation fraction of {fraction} leaves {count} of {len(split)} training images "
            "for validation; give more images or another fraction"
        )
    return split.take(order[count:]), split.take(order[:count])
