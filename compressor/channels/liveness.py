"""Which channels a network's outputs depend on, and where the constants of all others go.

A class of channels is live where something that is live, or that is not understood, reads it with
a weight other than zero, and could not take the class as a constant. What is left is dead:

1. *backward*: all that reads it reads it with weights of zero, or is dead itself;
2. *forward*: it is the same for every input, and each layer that reads it has a place for that
   constant: none is needed for zeros; else a bias, or the mean of the batch norm that follows.
   A layer with padding has no such place, since its outermost outputs see less of the constant.

Shared tensors are no place for constants, and at least one channel of every axis stays.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from torch import Tensor, fx

from compressor.channels.constants import LAYERS, LOCAL, Constants, Seen, padded
from compressor.channels.dependencies import Dependencies
from compressor.channels.propagation import leaves, operator_name
from compressor.channels.rules import WHOLE_GROUPS, arguments_of, given

Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that mixes channels. ``needs`` (out, in) bool: which outputs need which inputs.

    ``inputs`` (in,) and ``outputs`` (out,) are the channels' classes, ``constant`` (in,) their
    values or NaN; ``home`` is the tensor that constants go to, ``sign`` with which sign.
    """

    weight: str
    groups: int
    transposed: bool
    inputs: Classes
    outputs: Classes
    needs: NDArray[np.bool_]
    constant: Tensor
    home: str | None
    sign: float

    def shift(self, weights: Tensor, gone: NDArray[np.bool_]) -> Tensor:
        """What constants of the inputs ``gone`` (in,) add to each output, (out,) float64."""
        values = torch.where(torch.from_numpy(gone), self.constant, 0.0).nan_to_num(0.0)
        dense = _dense(weights.double(), self.groups, self.transposed).sum(-1)  # (groups, out, in)
        return (dense @ values.reshape(self.groups, -1, 1)).flatten()


class Liveness:
    """``dead`` (m,) are the classes that can go; ``readers`` know what to do with constants.

    ``tensors`` are the network's own, plain and on the CPU.
    """

    def __init__(
        self, dependencies: Dependencies, constants: Constants, tensors: dict[str, Tensor]
    ) -> None:
        self.dependencies = dependencies
        self.uses = _uses(dependencies)
        seen = [each for each in constants.seen if self._mixes(each.node)]
        self.readers = [self._reader(each, tensors) for each in seen]
        groups = dependencies.groups
        candidates = [np.zeros(0, dtype=np.int64), *(group.classes for group in groups)]
        live = np.ones(dependencies.count, dtype=bool)
        live[np.concatenate(candidates)] = False
        live[self._read_otherwise({each.node for each in seen})] = True
        self._spread(live)
        while len(empty := self._without(live)):
            live[empty] = True
            self._spread(live)
        self.dead: Classes = np.flatnonzero(~live)

    def _spread(self, live: NDArray[np.bool_]) -> None:
        """What something live needs is live, until nothing changes."""
        before = -1
        while before != (before := int(live.sum())):
            for reader in reversed(self.readers):
                needed = reader.needs[live[reader.outputs]].any(0)
                live[reader.inputs[needed]] = True

    def _without(self, live: NDArray[np.bool_]) -> Classes:
        """A class for every axis that would have no channel left."""
        whole = self.dependencies
        axes = [*whole.axes.values(), *(np.unique(each) for each in whole.elements.values())]
        return np.array([a[0] for a in axes if len(a) and not live[a].any()], dtype=np.int64)

    def _mixes(self, node: fx.Node) -> bool:
        """Whether a layer joins several channels; where not, its outputs are its inputs' class."""
        groups = arguments_of(node).get("groups", 1)
        if not self._plain(node) or ("transpose" in operator_name(node) and groups > 1):
            return False
        each = given(node)[1].meta["val"].shape[1]
        return bool(groups == 1 or (each > 1 and groups < WHOLE_GROUPS))

    def _read_otherwise(self, readers: set[fx.Node]) -> Classes:
        """The classes that operators read of which nothing is known here."""
        graph, found = self.dependencies.graph, [np.zeros(1, dtype=np.int64)]
        for node in graph.program.graph.nodes:
            name = operator_name(node)
            whole = name in LAYERS and node not in readers and self._whole(node)
            if node.op != "call_function" or node in readers or name in LOCAL or whole:
                continue
            for source in node.all_input_nodes:
                if graph.tensor(source) is None:
                    found += [np.unique(self._classes(each)) for each in leaves(graph.of(source))]
        return np.concatenate(found)

    def _whole(self, node: fx.Node) -> bool:
        """Depthwise layers, and those that lose whole groups: class by class."""
        return self._plain(node) and "transpose" not in operator_name(node)

    def _plain(self, node: fx.Node) -> bool:
        """Whether a layer's weight is the network's own, and its input is not."""
        source, weight = (self.dependencies.graph.tensor(each) for each in given(node)[:2])
        return source is None and weight is not None

    def _classes(self, labels: Tensor) -> Classes:
        solved: Classes = self.dependencies.graph.labels.classes(labels).numpy()
        return solved

    def _along(self, labels: Tensor, axis: int) -> Classes:
        first = labels.movedim(axis, -1)[(0,) * (labels.ndim - 1)]
        return np.ascontiguousarray(self._classes(first))

    def _reader(self, seen: Seen, tensors: dict[str, Tensor]) -> Reader:
        graph, node = self.dependencies.graph, seen.node
        axis = -1 if operator_name(node) == "linear" else 1
        name = str(graph.tensor(given(node)[1]))
        groups = arguments_of(node).get("groups", 1)
        transposed = "transpose" in operator_name(node)
        home, sign = self._home(node)
        weight = _dense(tensors[name].detach() != 0, groups, transposed)
        needs = torch.from_numpy(block_diag(*weight.any(-1).numpy()))
        absorbed = (seen.constant == 0) | (
            ~seen.constant.isnan() & (home is not None and not padded(node))
        )
        return Reader(
            name,
            groups,
            transposed,
            self._along(graph.of(given(node)[0]), axis),
            self._along(graph.values[node], axis),
            (needs & ~absorbed).numpy(),
            seen.constant,
            home,
            sign,
        )

    def _home(self, node: fx.Node) -> tuple[str | None, float]:
        """Where a layer's constants go: its bias, or the mean that is taken off after it."""
        graph = self.dependencies.graph
        bias = graph.tensor(arguments_of(node).get("bias"))
        if self._own(given(node)[1]) and bias is not None:
            return (bias, 1.0) if self._own(arguments_of(node)["bias"]) else (None, 0.0)
        users = list(node.users)
        if len(users) == 1 and operator_name(users[0]) == "batch_norm":
            mean = given(users[0])[3]
            if self._own(mean) and self._own(given(node)[1]):
                return graph.tensor(mean), -1.0
        return None, 0.0

    def _own(self, node: fx.Node | None) -> bool:
        """Whether a tensor is used in one place only."""
        name = self.dependencies.graph.tensor(node)
        return name is not None and self.uses.get(name, 0) == 1


def _uses(dependencies: Dependencies) -> dict[str, int]:
    """In how many places each tensor of the network is used."""
    program, found = dependencies.graph.program, dict[str, int]()
    for node in program.graph.nodes:
        if (name := dependencies.graph.tensor(node)) is not None:
            found[name] = found.get(name, 0) + len(node.users)
    return found


def _dense(weights: Tensor, groups: int, transposed: bool) -> Tensor:
    """(groups, out, in, everything else) of a layer's weights."""
    weights = weights.transpose(0, 1) if transposed else weights
    return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
