"""One cut: a network and what is to go -> a small network that is proved to compute the same."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.allocation import Removed
from compressor.channels.dependencies import Dependencies
from compressor.channels.proof import Proof, prove
from compressor.channels.propagation import Axis
from compressor.channels.removal import remove
from compressor.channels.rewriting import rewritten
from compressor.errors import StageError

IMAGES = 2
"""Random inputs that a cut is proved on: more than one, so that a fixed batch shows."""

MOST = 1 << 22
"""More channels than all layers of a network have together: what a file may ask for at most."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A small network, its proof, and whether its ``forward`` is the rewritten graph.

    ``why`` says what the network's own class could not do.
    """

    module: nn.Module
    proof: Proof
    rewritten: bool
    why: str = ""


def cut(module: nn.Module, example: Tensor, dependencies: Dependencies, removed: Removed) -> Cut:
    """Remove classes of channels and prove it.

    The network's own class is kept where it still computes the right thing. Raises
    :class:`StageError` where neither it nor the rewritten graph does.
    """
    inputs = random_inputs(example)
    small = copy.deepcopy(module)
    remove(small, dependencies.keep(removed))
    try:
        return Cut(small, prove(module, small, dependencies, removed, inputs), False)
    except Exception as error:  # the user's own code may fail in any way
        why = str(error).strip().partition("\n")[0] or type(error).__name__
    graph = rewritten(small, dependencies, removed)
    return Cut(graph, prove(module, graph, dependencies, removed, inputs), True, why)


def random_inputs(example: Tensor) -> Tensor:
    """What cuts are proved on: a few fixed inputs (n, ...) float32."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, *example.shape[1:])
    return torch.randn(shape, generator=generator).to(example.device)


@dataclass(frozen=True)
class Kept:
    """Which channels of the original network are left: enough to repeat a cut without its reasons.

    ``layers`` has, for each axis that makes channels and lost some, the indices that are left.
    """

    layers: Mapping[Axis, NDArray[np.int64]]
    rewritten: bool

    @classmethod
    def of(cls, dependencies: Dependencies, removed: Removed, *, rewritten: bool) -> "Kept":
        keep = dependencies.keep(removed)
        made = [axis for axis in dependencies.graph.makers if axis in keep]
        return cls({axis: np.flatnonzero(keep[axis]) for axis in made}, rewritten)

    def then(self, later: "Kept") -> "Kept":
        """What is left after a second cut, whose indices count from the first one's network."""
        joined = dict(self.layers)
        for axis, indices in later.layers.items():
            joined[axis] = joined[axis][indices] if axis in joined else indices
        return replace(later, layers=joined, rewritten=self.rewritten or later.rewritten)

    def leading(self) -> "Kept":
        """As many channels of each axis, but the first ones."""
        first = {axis: np.arange(len(each)) for axis, each in self.layers.items()}
        return replace(self, layers=first)

    def to_json(self) -> str:
        """As text, each layer's indices as runs, ``[first, length, ...]``, or as one number *n* for
        the first *n*; an axis of 0 is left out. The smallest artifacts have no room for more."""
        layers = {_key(*axis): _short(_runs(each)) for axis, each in self.layers.items()}
        table = {**({"rewritten": True} if self.rewritten else {}), "kept": layers}
        return json.dumps(table, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Kept":
        """Raises :class:`StageError` for text that :meth:`to_json` did not write."""
        try:
            table = json.loads(text)
            layers, room = {}, MOST
            for key, runs in table["kept"].items():
                name, _, axis = key.rpartition(":") if ":" in key else (key, "", "0")
                layers[name, int(axis)] = _indices([0, runs] if type(runs) is int else runs, room)
                room -= len(layers[name, int(axis)])
            return cls(layers, bool(table.get("rewritten", False)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StageError(f"which channels are left cannot be read: {error}") from None

    def apply(self, module: nn.Module, example: Tensor) -> nn.Module:
        """Cut a freshly built network in the same way; its values are of no interest.

        Raises :class:`StageError` where the network is another one.
        """
        dependencies = Dependencies(module, example)
        gone = []
        for axis, indices in self.layers.items():
            classes = dependencies.axes.get(axis)
            if classes is None or (len(indices) and indices.max() >= len(classes)):
                raise StageError(f"{axis[0]} does not fit the channels that are left")
            gone.append(np.delete(classes, indices))
        removed = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *gone]))
        if (removed == 0).any():
            raise StageError("channels that cannot be removed are gone: this is another network")
        keep = dependencies.keep(removed)
        if not all(left.any() for left in keep.values()):
            raise StageError("a layer would have no channel left: this is another network")
        remove(module, keep)
        return rewritten(module, dependencies, removed) if self.rewritten else module


def _key(name: str, axis: int) -> str:
    return f"{name}:{axis}" if axis or ":" in name else name


def _short(runs: list[int]) -> list[int] | int:
    return runs[1] if len(runs) == 2 and runs[0] == 0 else runs


def _runs(indices: NDArray[np.int64]) -> list[int]:
    starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(indices))
    return [int(v) for pair in zip(indices[starts], lengths, strict=True) for v in pair]


def _indices(runs: list[int], room: int) -> NDArray[np.int64]:
    """Increasing indices, from one to ``room`` of them, from what may be any JSON."""
    if not runs or any(type(number) is not int for number in runs):
        raise ValueError("a layer's channels are not runs of whole numbers")
    pairs, end = list(zip(runs[::2], runs[1::2], strict=True)), -1
    for start, length in pairs:
        if start <= end or length < 1 or start + length > MOST:
            raise ValueError("a run of channels is out of range")
        end, room = start + length - 1, room - length
    if room < 0:
        raise ValueError("more channels than a network has")
    return np.concatenate([np.arange(start, start + length) for start, length in pairs])
