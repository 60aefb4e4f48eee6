"""What a network takes and gives: one tensor or several, batch first, floats or whole numbers."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import StageError

Example = Tensor | tuple[Tensor, ...]
"""One input of batch 1, or one of each of several."""


def inputs_of(example: Example) -> tuple[Tensor, ...]:
    """The inputs as a tuple, also where there is only one."""
    return (example,) if isinstance(example, Tensor) else tuple(example)


def outputs_of(output: Any) -> tuple[Tensor, ...]:
    """The tensors in what a network gives: a tensor, or tuples, lists and tables of them."""
    return tuple(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))


def answers(output: Any) -> Tensor:
    """What a network gives as one tensor: of several, the floats of each sample in a row."""
    if isinstance(output, Tensor):
        return output
    parts = [each.flatten(1) for each in outputs_of(output) if each.is_floating_point()]
    return torch.cat(parts, 1).unsqueeze(2)  # three axes: these are no logits


def on(example: Example, device: torch.device | str) -> Example:
    """The same inputs on ``device``."""
    moved = tuple(each.to(device) for each in inputs_of(example))
    return moved[0] if isinstance(example, Tensor) else moved


def random(example: Example, count: int, generator: torch.Generator) -> Example:
    """``count`` inputs like ``example``: normal floats; whole numbers up to the example's largest.

    What whole numbers mean (words, classes) is not known: none is drawn that could be too large.
    """
    made = []
    for each in inputs_of(example):
        shape = (count, *each.shape[1:])
        if each.is_floating_point():
            made.append(torch.randn(shape, generator=generator))
        else:
            most = int(each.max()) + 1 if each.numel() else 1
            made.append(torch.randint(0, max(most, 1), shape, generator=generator).to(each.dtype))
    return made[0] if isinstance(example, Tensor) else tuple(made)


def names_of(module: nn.Module, example: Example) -> list[str]:
    """What an exported file calls the inputs: ``input``, or by the arguments of ``forward``."""
    count = len(inputs_of(example))
    if count == 1:
        return ["input"]
    try:
        known = [
            name
            for name, each in inspect.signature(module.forward).parameters.items()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        known = []
    return known[:count] if len(known) >= count else [f"input_{at}" for at in range(count)]


def output_names(output: Any) -> list[str]:
    """``output``; of several ``output_0``, ... or, from a table, its keys."""
    tensors = outputs_of(output)
    if len(tensors) == 1:
        return ["output"]
    if isinstance(output, dict) and len(output) == len(tensors):
        return [str(key) for key in output]
    return [f"output_{at}" for at in range(len(tensors))]


def one_image(example: Example) -> Tensor:
    """The only input, floats; raises :class:`StageError` for a network that takes anything else."""
    if isinstance(example, Tensor) and example.is_floating_point():
        return example
    kind = "whole numbers" if isinstance(example, Tensor) else f"{len(example)} inputs"
    raise StageError(f"the network takes {kind}: its channels are left as they are")
