"""The blocks of the empirical Fisher that `second_order` goes by, from one image after another."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.examples import answers
from compressor.layers import Layer, trained_weight
from compressor.network import Context
from compressor.pruning.second_order import cut, removal_costs
from compressor.training.data import sample

BLOCK = 50
"""Weights of a block: on ResNet-20, 16 were worse, and 144 no better in five times the time."""
IMAGES = 500
_ENTRIES = 1 << 28  # of all blocks in memory at once (float32): 1 GiB
_BUFFER = 1 << 27  # of gradients in memory at once: 0.5 GiB
_MOST = 50  # images whose gradients are added up together


def scores(module: nn.Module, layers: dict[str, Layer], context: Context) -> dict[str, Tensor]:
    """What removing each weight costs the outputs, float64 of the weight's shape, by layer.

    Costs of different layers are of the same outputs, so they are comparable. Weights that are
    zero have gone already. `IMAGES` training images are looked at, or all if they are fewer, as
    they are augmented for training; no label is. They are gone through once for every 5.4 million
    weights, whose blocks take 1 GiB. Leaves the module in evaluation mode. Raises
    :class:`StageError` without data.
    """
    module.eval()
    found: dict[str, Tensor] = {}
    groups = list(_grouped(layers))
    with context.progress.task("curvature", IMAGES * len(groups)) as advance:
        for group in groups:
            parameters = [trained_weight(layer) for layer in group.values()]
            fishers = [
                torch.zeros((*cut(p.detach().flatten(), BLOCK).shape, BLOCK)) for p in parameters
            ]
            count = 0
            for gradients in _gradients(module, parameters, context):
                for fisher, gradient in zip(fishers, gradients, strict=True):
                    _add(fisher, gradient)
                count += len(gradients[0])
                for _ in range(len(gradients[0])):
                    advance()
            for (name, layer), fisher in zip(group.items(), fishers, strict=True):
                weight = layer.weight.cpu()
                flat = weight.flatten()
                costs = removal_costs(fisher.div_(count), flat, flat != 0)
                found[name] = costs.reshape(weight.shape)
    return found


def _grouped(layers: dict[str, Layer]) -> Iterator[dict[str, Layer]]:
    """Layers in turn, as many at once as there is memory for."""
    group: dict[str, Layer] = {}
    size = 0
    for name, layer in layers.items():
        own = layer.weight.numel() * BLOCK
        if group and size + own > _ENTRIES:
            yield group
            group, size = {}, 0
        group[name], size = layer, size + own
    if group:
        yield group


def _gradients(
    module: nn.Module, parameters: list[Tensor], context: Context
) -> Iterator[list[Tensor]]:
    """For some images at a time, each parameter's gradients (images, weights)."""
    signs = torch.Generator().manual_seed(context.seed)
    room = max(1, min(_MOST, _BUFFER // sum(p.numel() for p in parameters)))
    waiting: list[list[Tensor]] = [[] for _ in parameters]
    for x in images(context, IMAGES, 1):
        outputs = answers(module(x))
        sign = torch.randint(0, 2, outputs.shape, generator=signs).to(outputs) * 2 - 1
        centred = outputs - outputs.mean(1, keepdim=True) if outputs.ndim == 2 else outputs
        found = torch.autograd.grad(
            (centred * sign).sum(), parameters, allow_unused=True, materialize_grads=True
        )
        for each, gradient in zip(waiting, found, strict=True):
            each.append(gradient.flatten().cpu())
        if len(waiting[0]) == room:
            yield [torch.stack(each) for each in waiting]
            for each in waiting:
                each.clear()
    if waiting[0]:
        yield [torch.stack(each) for each in waiting]


def images(context: Context, count: int, batch: int) -> Iterator[Tensor]:
    """So many training images, or all, chosen and augmented by the seed; (batch, ...) each."""
    data = context.data
    if data is None:
        raise StageError("the criterion obs needs data: give --data")
    pairs = sample(data, count, seed=context.seed, batch_size=batch, device=context.device)
    return (x for x, _ in pairs)


def _add(fisher: Tensor, gradients: Tensor) -> None:
    """Add the outer products of ``gradients`` (images, n) with themselves, block by block."""
    blocks, size, _ = fisher.shape
    padded = torch.nn.functional.pad(gradients, (0, blocks * size - gradients.shape[1]))
    each = padded.reshape(len(gradients), blocks, size).transpose(0, 1)  # (b, images, size)
    fisher.baddbmm_(each.transpose(1, 2), each)
