"""Channels that weight pruning left without effect are removed, and nothing changes by that.

1. Find them on the plain weights that the network computes with (``liveness.py``). Some stay, where
   a layer would get a width that runtimes are slower at (``limits.py``).
2. Put the constants of those that are not zero where ``liveness.py`` says.
3. Cut (``cutting.py``, which proves the cut), and compare the outputs before and after, in float64.
4. Put masks and codebooks on again, without what is gone.

Where one of these cannot be done, the network stays as it was.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.allocation import Removed
from compressor.channels.constants import Constants
from compressor.channels.cost import Macs
from compressor.channels.cutting import Kept, cut, random_inputs
from compressor.channels.dependencies import Dependencies, Keep, layer_of
from compressor.channels.limits import Limits
from compressor.channels.liveness import Liveness
from compressor.channels.proof import compare, run
from compressor.channels.propagation import Axis
from compressor.errors import StageError
from compressor.examples import one_image
from compressor.layers import (
    Layer,
    bake,
    batch_norms,
    compressible_layers,
    mask_layer,
    mask_of,
    share_layer,
    shared_of,
)
from compressor.network import Network, Row

MOST = 50_000_000
"""Weights of a network that is proved without its dead channels, which takes float64 copies."""
LOSSLESS = 1e-10
"""The largest difference, relative to the largest output in float64, that passes as none."""


@dataclass(frozen=True, eq=False)
class Removal:
    """What went: ``layers`` has a row for each that lost channels, ``kept`` what is left."""

    layers: list[Row]
    kept: Kept
    difference: float

    def row(self) -> Row:
        return {
            "removed": self.layers,
            "difference": self.difference,
            "rewritten": self.kept.rewritten,
            "kept": self.kept.to_json(),
        }


def remove_dead(network: Network) -> Removal | None:
    """Remove the network's dead channels; None where it has none.

    Its module may become another one, on the CPU. Raises :class:`StageError`, and leaves the
    network as it was, where its graph cannot be followed or its outputs would change.
    """
    if not _may_have(network.module):
        return None
    size = sum(value.numel() for value in network.module.state_dict().values())
    if size > MOST:
        raise StageError(
            f"the network has {size / 1e6:.0f} million weights, and the proof, in float64, has "
            f"memory for {MOST / 1e6:.0f}"
        )
    plain = copy.deepcopy(network.module).cpu().eval()
    bake(plain)
    example = one_image(network.example).cpu()
    try:
        dependencies = Dependencies(plain, example)
        tensors = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
        found = Liveness(dependencies, Constants(plain, dependencies), tensors)
        dead = _welcome(found.dead, dependencies)
        if not len(dead):
            return None
        small, removal = _without(plain, example, found, dead)
        _put_on_again(network.module, small, dependencies.keep(dead))
    except StageError:
        raise
    except Exception as error:  # a network's own code may fail in any way on its way to a graph
        raise StageError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
    network.module = small
    return removal


def _may_have(module: nn.Module) -> bool:
    """Whether any layer makes or reads a channel with nothing but zeros: a look, not a search."""
    for layer in compressible_layers(module).values():
        used = layer.weight != 0
        if not all(used.movedim(axis, 0).flatten(1).any(1).all() for axis in (0, 1)):
            return True
    scales = (norm.weight for norm in batch_norms(module).values())
    return any(bool((scale == 0).any()) for scale in scales if scale is not None)


def _welcome(dead: Removed, dependencies: Dependencies) -> Removed:
    """Those of ``dead`` without which no convolution gets a width that runtimes are slower at."""
    if not len(dead):
        return dead
    axes = dependencies.axes.items()
    convolved = [classes for (name, _), classes in axes if dependencies.dimensions(name) > 2]
    limits = Limits.of(Macs(dependencies), keep=1, multiple=1)
    return limits.in_blocks(dead, np.concatenate([np.zeros(0, dtype=np.int64), *convolved]))


def _without(
    plain: nn.Module, example: Tensor, found: Liveness, dead: Removed
) -> tuple[nn.Module, Removal]:
    dependencies = found.dependencies
    exact = copy.deepcopy(plain).double()  # where constants are moved, nothing is rounded
    _move_constants(exact, found, dead)
    made = cut(exact, example, dependencies, dead)
    inputs = random_inputs(example).double()
    difference = compare(run(plain, inputs), run(made.module, inputs))
    if not difference <= LOSSLESS:
        raise StageError(f"the outputs would change by {difference:.1e} relative")
    keep = dependencies.keep(dead)
    rows = [
        {"layer": layer_of(axis[0]), "before": len(keep[axis]), "after": int(keep[axis].sum())}
        for axis in dependencies.graph.makers
        if axis in keep
    ]
    kept = Kept.of(dependencies, dead, rewritten=made.rewritten)
    return made.module.float(), Removal(rows, kept, difference)


def _move_constants(module: nn.Module, found: Liveness, dead: Removed) -> None:
    """Add to biases, or take off means, what the dead channels' constants come to."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    gone = found.dependencies.dead(dead)
    with torch.no_grad():
        for reader in found.readers:
            if reader.home is not None:
                shift = reader.shift(tensors[reader.weight], gone[reader.inputs])
                tensors[reader.home] += reader.sign * shift


def _put_on_again(original: nn.Module, small: nn.Module, keep: Keep) -> None:
    """Masks and codebooks of ``original`` on the layers of ``small``."""
    names: dict[tuple[int, str], list[str]] = {}
    for layer in compressible_layers(original, every_name=True).values():
        names.setdefault((id(layer.module), layer.leaf), []).append(layer.tensor)
    target = compressible_layers(small, every_name=True)
    for layer in compressible_layers(original).values():
        tensors = names[id(layer.module), layer.leaf]
        if (shared := shared_of(layer)) is not None:
            indices = _sliced(torch.from_numpy(shared[0]), tensors, keep)
            share_layer(_fitting(target[layer.name], indices), indices, torch.tensor(shared[1]))
        elif (mask := mask_of(layer)) is not None:
            mask = _sliced(mask.cpu(), tensors, keep)
            mask_layer(_fitting(target[layer.name], mask), mask)


def _sliced(values: Tensor, names: list[str], keep: Mapping[Axis, NDArray[np.bool_]]) -> Tensor:
    for (name, axis), mask in keep.items():
        if name in names:
            values = values.index_select(axis, torch.from_numpy(np.flatnonzero(mask)))
    return values


def _fitting(layer: Layer, values: Tensor) -> Layer:
    if layer.weight.shape != values.shape:
        raise StageError(f"the mask or the indices of {layer.name} do not fit what is left of it")
    return layer
