"""Inputs to measure sensitivities with: drawn from the data, or made from a network's norms."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.examples import one_image
from compressor.network import Context, Network
from compressor.quantization import norms
from compressor.training.data import Data, batches

BATCH = 50
MOST_MADE = 250


@dataclass(frozen=True)
class Inputs:
    """``count`` batches (B, ...) float32, to be gone through once."""

    batches: Iterable[Tensor]
    count: int


def drawn(data: Data, images: int, context: Context) -> Inputs:
    """So many training images, or all; the seed chooses them. No label is looked at."""
    generator = torch.Generator().manual_seed(context.seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:images].sort().values
    pairs = batches(data.train.take(chosen), data, batch_size=BATCH, device=context.device)
    return Inputs((x for x, _ in pairs), math.ceil(len(chosen) / BATCH))


def made(network: Network, images: int, context: Context) -> Inputs:
    """So many images, at most `MOST_MADE`, that give each norm of the network its statistics."""
    generator = torch.Generator().manual_seed(context.seed)
    shape, count = (
        tuple(one_image(network.example).shape[1:]),
        math.ceil(min(images, MOST_MADE) / BATCH),
    )
    with context.progress.task("inputs from norms", count * norms.STEPS) as advance:
        found = [
            norms.synthesize(network.module, shape, BATCH, generator, advance) for _ in range(count)
        ]
    return Inputs(found, count)
