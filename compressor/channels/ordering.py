"""Hidden units in an order that codes better; what the network computes stays the same.

1. A group of channels (``dependencies.py``) may be permuted where every axis that has one of its
   classes has each of them equally often: as channels of a flattened map have, say.
2. Its classes are sorted by how many weights other than zero make them, most first, so that rows
   and columns of like density lie side by side, where context mixing learns from neighbours.
3. All groups change places in a copy, and outputs are compared before and after, in float64.
   Where they differ (a convolution in groups, a shuffle), the network stays as it was.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.cutting import random_inputs
from compressor.channels.dead import LOSSLESS
from compressor.channels.dependencies import Dependencies, Group, layer_of
from compressor.channels.proof import compare, run
from compressor.channels.propagation import Axis
from compressor.errors import StageError
from compressor.examples import one_image
from compressor.layers import (
    bake,
    compressible_layers,
    mask_layer,
    mask_of,
    share_layer,
    shared_of,
    strip,
)
from compressor.network import Network, Row

Places = dict[Axis, NDArray[np.int64]]
"""For an axis of a tensor, which of its old indices stands at each place."""


def order_channels(network: Network) -> Row:
    """Sort the hidden units of ``network`` in place; says which layers, and the difference.

    Masks and codebooks stay on. Raises :class:`StageError`, and leaves the network as it was, where
    its graph cannot be followed or its outputs would change.
    """
    plain = copy.deepcopy(network.module).cpu().eval()
    bake(plain)
    example = one_image(network.example).cpu()
    try:
        dependencies = Dependencies(plain, example)
        places, layers = _places(dependencies, plain)
        before = copy.deepcopy(plain).double()
        after = copy.deepcopy(before)
        _permute(after, places)
        inputs = random_inputs(example).double()
        difference = compare(run(before, inputs), run(after, inputs))
    except StageError:
        raise
    except Exception as error:  # a network's own code may fail in any way on its way to a graph
        raise StageError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
    if not difference <= LOSSLESS:
        raise StageError(f"the outputs would change by {difference:.1e} relative")
    _permute(network.module, places)
    return {"ordered": layers, "difference": difference}


def _places(dependencies: Dependencies, plain: nn.Module) -> tuple[Places, list[str]]:
    """Where everything goes, and the layers whose channels change places."""
    tensors = dict(plain.named_parameters(remove_duplicate=False))
    entangled = [np.unique(each.numpy()) for each in dependencies.elements.values()]
    found: Places = {}
    layers: list[str] = []
    for group in dependencies.groups:
        spots = _spots(dependencies, group)
        if spots is None or any(np.isin(group.classes, each).any() for each in entangled):
            continue
        order = np.argsort(-_sizes(group, tensors, spots), kind="stable")
        for axis, each in spots.items():
            places = found.setdefault(axis, np.arange(len(dependencies.axes[axis])))
            places[each] = each[order]
        layers += [layer_of(name) for name, _ in group.makers]
    return found, layers


def _spots(dependencies: Dependencies, group: Group) -> Places | None:
    """For each axis with classes of ``group``, the indices of each class, (classes, times)."""
    found: Places = {}
    for axis, classes in dependencies.axes.items():
        inside = np.flatnonzero(np.isin(classes, group.classes))
        if not len(inside):
            continue
        own, counts = np.unique(classes[inside], return_counts=True)
        if len(own) != len(group.classes) or (counts != counts[0]).any():
            return None
        by_class = inside[np.argsort(classes[inside], kind="stable")].reshape(len(own), -1)
        # Of group.classes, in ascending order, to the order in which they stand here.
        found[axis] = by_class
    # Places are filled in the order in which classes stand in the first layer that makes them.
    first = found[group.makers[0]][:, 0]
    stand = np.argsort(first, kind="stable")
    return {axis: each[stand] for axis, each in found.items()}


def _sizes(group: Group, tensors: Mapping[str, Tensor], spots: Places) -> NDArray[np.int64]:
    """How many weights other than zero make each class, in the order of ``spots``."""
    total = np.zeros(len(group.classes), dtype=np.int64)
    for name, axis in group.makers:
        if name in tensors and tensors[name].ndim > 1:
            used = (tensors[name].detach() != 0).movedim(axis, 0).flatten(1).sum(1).numpy()
            total += used[spots[name, axis]].sum(1)
    return total


def _permute(module: nn.Module, places: Places) -> None:
    """Every tensor's indices to their places; under masks and codebooks too."""
    wanted: dict[str, dict[int, Tensor]] = {}
    for (name, axis), each in places.items():
        wanted.setdefault(name, {})[axis] = torch.from_numpy(each)
    layers = compressible_layers(module, every_name=True)
    done: set[Any] = set()
    for name, axes in wanted.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        layer = layers.get(owner_name if leaf == "weight" else name)
        part = (id(owner), leaf)
        if layer is not None and (shared := shared_of(layer)) is not None:
            if part not in done:
                indices = _moved(torch.from_numpy(shared[0]), axes).to(layer.weight.device)
                share_layer(layer, indices, torch.from_numpy(shared[1]).to(indices.device))
                done.add(part)
            continue
        mask = None if layer is None else mask_of(layer)
        if layer is not None and mask is not None:
            if part in done:
                continue
            done.add(part)
            strip(layer)
        value: Tensor = getattr(owner, leaf)
        if id(value) in done:
            continue
        done.add(id(value))
        with torch.no_grad():
            value.copy_(_moved(value.detach(), axes))
        if layer is not None and mask is not None:
            mask_layer(layer, _moved(mask, axes))


def _moved(values: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    for axis, places in axes.items():
        values = values.index_select(axis, places.to(values.device))
    return values
