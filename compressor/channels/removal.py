"""Channels really taken out of a module: tensors sliced, and what layers say of their sizes."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.propagation import Axis
from compressor.channels.rules import WHOLE_GROUPS


def remove(module: nn.Module, keep: Mapping[Axis, NDArray[np.bool_]]) -> None:
    """Leave of each tensor's axis what ``keep`` says; names, devices and dtypes stay.

    A tensor with several names is sliced once and stays one tensor.
    """
    wanted: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for (name, axis), mask in keep.items():
        wanted.setdefault(name, {})[axis] = mask
    held = _holders(module)
    for name, axes in wanted.items():
        owner, leaf = held[name][0]
        value: Tensor = getattr(owner, leaf)
        small = value.detach()
        for axis, mask in axes.items():
            small = small.index_select(
                axis, torch.from_numpy(np.flatnonzero(mask)).to(small.device)
            )
        put(held[name], value, small)
    fit_attributes(module)


def put(holders: list[tuple[nn.Module, str]], old: Tensor, new: Tensor) -> None:
    """Replace a parameter or buffer wherever the network holds it."""
    value: Tensor = new.clone(memory_format=torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    for owner, leaf in holders:
        setattr(owner, leaf, value)


def _holders(module: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """By each name of a tensor, all places that hold that tensor."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    names: dict[str, int] = {}
    for path, child in module.named_modules(remove_duplicate=False):
        for leaf, value in (*child._parameters.items(), *child._buffers.items()):
            if value is not None:
                places.setdefault(id(value), []).append((child, leaf))
                names[f"{path}.{leaf}" if path else leaf] = id(value)
    return {name: places[key] for name, key in names.items()}


def resize(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give a freshly built network the shapes that removal left; values are not of interest.

    Raises ``KeyError`` for a tensor that the network does not have.
    """
    held = _holders(module)
    for name, shape in shapes.items():
        owner, leaf = held[name][0]
        value: Tensor = getattr(owner, leaf)
        if tuple(value.shape) != tuple(shape):
            put(held[name], value, value.detach().new_zeros(shape))
    fit_attributes(module)


def fit_attributes(module: nn.Module) -> None:
    """Make the attributes of standard layers say what their tensors are."""
    for child in module.modules():
        if isinstance(child, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            _fit_convolution(child)
        elif isinstance(child, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            child.in_channels, child.out_channels = child.weight.shape[0], child.weight.shape[1]
        elif isinstance(child, nn.Linear):
            child.out_features, child.in_features = child.weight.shape
        elif isinstance(child, nn.Embedding):
            child.num_embeddings, child.embedding_dim = child.weight.shape
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            held = child.weight if child.weight is not None else child.running_mean
            child.num_features = child.num_features if held is None else len(held)
        elif isinstance(child, nn.LayerNorm) and child.weight is not None:
            child.normalized_shape = tuple(child.weight.shape)
        elif isinstance(child, nn.GroupNorm) and child.weight is not None:
            child.num_channels = len(child.weight)
        elif isinstance(child, nn.PReLU):
            child.num_parameters = len(child.weight)


def _fit_convolution(child: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    """Fewer groups where whole groups are gone, which ``rules.py`` decides in the same words."""
    out, each = child.weight.shape[:2]
    if child.groups > 1 and (each == 1 or child.groups >= WHOLE_GROUPS):
        child.groups = out // (child.out_channels // child.groups)
    child.out_channels, child.in_channels = out, each * child.groups
