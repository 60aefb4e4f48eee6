"""Random augmentation of whole batches, deterministic in the generator that is given.

Random numbers are a few per image and are drawn on the generator's own device, so a CPU
generator gives the same images on every device. They are drawn for the whole batch, also by one
who holds a ``share`` of it only: so images do not depend on how many share them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.errors import UsageError

POLICIES = ("none", "flip-crop", "affine", "elastic")

CROP_PADDING = 4  # pixels; He et al. 2016 (arXiv:1512.03385), section 4.2
MAX_ROTATION = math.radians(10)
MAX_SCALING = 0.1
MAX_SHEAR = 0.1
MAX_SHIFT = 2.0  # pixels
ELASTIC_KNOTS = 7  # a side of the coarse grid of displacements
ELASTIC_SPREAD = 0.0225  # standard deviation of a displacement, as part of the image's side


WHOLE = slice(None)


def augment(
    x: Tensor,
    policy: str,
    generator: torch.Generator,
    background: float = 0.0,
    *,
    batch: int | None = None,
    share: slice = WHOLE,
) -> Tensor:
    """Apply ``policy`` to float images (B, C, H, W); what comes in from outside is background.

    ``x`` is ``share`` of a batch of ``batch`` images (None: it is the batch). Raises UsageError
    for an unknown policy.
    """
    check_policy(policy)
    if policy == "flip-crop":
        return flip_crop(x, generator, background, batch=batch, share=share)
    if policy == "affine":
        return affine(x, generator, background, batch=batch, share=share)
    if policy == "elastic":
        return elastic(x, generator, background, batch=batch, share=share)
    return x


def check_policy(policy: str) -> None:
    """Raise UsageError unless ``policy`` is one of POLICIES."""
    if policy not in POLICIES:
        raise UsageError(f"no augmentation is called {policy!r}; choose {', '.join(POLICIES)}")


def flip_crop(
    x: Tensor,
    generator: torch.Generator,
    background: float = 0.0,
    *,
    batch: int | None = None,
    share: slice = WHOLE,
) -> Tensor:
    """Pad by 4 pixels, crop at random to the old size, mirror every second image or so."""
    _, _, height, width = x.shape
    count = len(x) if batch is None else batch
    draw = torch.randint(0, 2 * CROP_PADDING + 1, (2, count), generator=generator)
    top, left = draw[:, share].to(x.device)
    mirrored = (torch.rand(count, generator=generator) < 0.5)[share].to(x.device)
    padded = F.pad(x, (CROP_PADDING,) * 4, value=background)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 9, 9, H, W), a view
    cropped = windows[torch.arange(len(x), device=x.device), :, top, left]
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)


def affine(
    x: Tensor,
    generator: torch.Generator,
    background: float = 0.0,
    *,
    batch: int | None = None,
    share: slice = WHOLE,
) -> Tensor:
    """Rotate by up to 10 degrees, scale by 0.9..1.1, shear by 0.1, shift by 2 pixels; bilinear."""
    count = len(x) if batch is None else batch
    matrices = _matrices(count, x.shape[2], x.shape[3], generator)[share].to(x.device, x.dtype)
    if len(x) == 0:
        return x
    grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
    return _sampled(x, grid, background)


def elastic(
    x: Tensor,
    generator: torch.Generator,
    background: float = 0.0,
    *,
    batch: int | None = None,
    share: slice = WHOLE,
) -> Tensor:
    """:func:`affine`, and every place moves by a smooth random field besides; bilinear.

    Displacements are normal, of 2.25 % of the image's side, at 7 x 7 places, and bicubic between
    them: what Simard, Steinkraus and Platt 2003 (section 2) get by smoothing a field of noise.
    """
    count = len(x) if batch is None else batch
    matrices = _matrices(count, x.shape[2], x.shape[3], generator)[share].to(x.device, x.dtype)
    knots = torch.randn(count, 2, ELASTIC_KNOTS, ELASTIC_KNOTS, generator=generator)[share]
    if len(x) == 0:
        return x
    grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
    field = F.interpolate(
        # The grid measures an image's side as 2.
        (2 * ELASTIC_SPREAD * knots).to(x.device, x.dtype),
        size=x.shape[2:],
        mode="bicubic",
        align_corners=False,
    )
    return _sampled(x, grid + field.permute(0, 2, 3, 1), background)


def _sampled(x: Tensor, grid: Tensor, background: float) -> Tensor:
    """Images (B, C, H, W) at the places of ``grid`` (B, H, W, 2), each -1 to 1 inside."""
    moved = F.grid_sample(x - background, grid, padding_mode="zeros", align_corners=False)
    return moved + background


def _matrices(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random maps from output to input coordinates, float64 (B, 2, 3).

    affine_grid measures both axes from -1 to 1, so that one pixel is 2 / W or 2 / H, and a
    rotation of pixels needs its off-diagonal terms scaled by H / W and W / H.
    """
    draw = torch.rand(5, batch, generator=generator, dtype=torch.float64) * 2 - 1
    angle, scale = draw[0] * MAX_ROTATION, 1 / (1 + draw[1] * MAX_SCALING)
    shear = draw[2] * MAX_SHEAR
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = (
        (cos, (shear * cos - sin) * (height / width), draw[3] * (2 * MAX_SHIFT / width)),
        (sin * (width / height), shear * sin + cos, draw[4] * (2 * MAX_SHIFT / height)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
