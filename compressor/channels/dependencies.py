"""Groups of channels that one decision removes, and what a decision leaves of every tensor."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compressor.channels.labels import Reason, narrowed
from compressor.channels.propagation import Axis, Propagation
from compressor.channels.rules import RULES
from compressor.tracing import traced

Keep = dict[Axis, NDArray[np.bool_]]

PART = 8
"""Classes of one layer that are used in the same places make a group of their own from this many
on."""


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that the same layers make and read: ``classes`` (n,), each removed whole or not.

    ``makers`` are the tensors' axes that make them; ``width`` is how many channels a class has in
    the widest of these (a whole group of a grouped convolution is one class).
    """

    makers: tuple[Axis, ...]
    classes: NDArray[np.int64]
    width: int

    @property
    def name(self) -> str:
        """The layer that makes these channels first."""
        return layer_of(self.makers[0][0])

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that make them."""
        return tuple(layer_of(name) for name, _ in self.makers)


class Dependencies:
    """What may be removed from a network, and what goes with it.

    ``module`` is looked at in evaluation mode on its device; ``example`` is (1, ...). Channels that
    a sum of two activations joins stay where ``freeze_residual`` is set. ``program`` is the module
    as ``compressor.tracing.traced`` gives it, where that was done already. Raises
    :class:`ExportError` for a network that cannot be traced.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        *,
        freeze_residual: bool = False,
        program: torch.export.ExportedProgram | None = None,
    ) -> None:
        self.graph = Propagation(program or traced(module, example))
        self.graph.run(RULES)
        labels = self.graph.labels
        if freeze_residual:
            for each in self.graph.residual:
                self.graph.freeze(each, Reason("add", "--freeze-residual"))
        self.axes = {axis: _classes(labels.classes(each)) for axis, each in self.graph.axes.items()}
        self.elements = {name: labels.classes(each) for name, each in self.graph.elements.items()}
        self.count = labels.count
        self.groups = self._groups()

    def _groups(self) -> list[Group]:
        makers = self.graph.makers
        edges = [np.zeros((2, 0), dtype=np.int64)]
        for axis in makers:
            free = self.axes[axis][self.axes[axis] != 0]
            edges.append(np.stack([free, np.broadcast_to(free[:1], free.shape)]))
        joined = np.concatenate(edges, axis=1)
        graph = coo_array(
            (np.ones(joined.shape[1], dtype=np.int8), tuple(joined)), (self.count,) * 2
        )
        components = connected_components(graph, directed=False)[1]
        found: dict[int, list[Axis]] = {}
        for axis in makers:
            free = self.axes[axis][self.axes[axis] != 0]
            if len(free):
                found.setdefault(int(components[free[0]]), []).append(axis)
        uses = self._uses()
        return [group for axes in found.values() for group in self._parts(axes, uses)]

    def _uses(self) -> NDArray[np.uint64]:
        """For every class a number that says in which tensors' axes it is: a sum of random ones."""
        drawn = np.random.default_rng(0)
        uses = np.zeros(self.count, dtype=np.uint64)
        for classes in self.axes.values():
            uses[np.unique(classes)] += drawn.integers(1 << 63, dtype=np.uint64)
        return uses

    def _parts(self, makers: list[Axis], uses: NDArray[np.uint64]) -> list[Group]:
        """The classes of some layers, those together that are used in the same places.

        Half of a layer whose parts go different ways (queries and values, the scales of Res2Net, a
        shortcut padded with new channels) is then half of each part. What is used in some way by
        fewer than :data:`PART` classes (after shuffles, nearly each in its own) stays together.
        """
        free = np.concatenate([self.axes[axis][self.axes[axis] != 0] for axis in makers])
        classes, first = np.unique(free, return_index=True)
        classes = classes[np.argsort(first)]
        _, first, at, counts = np.unique(
            uses[classes], return_index=True, return_inverse=True, return_counts=True
        )
        first[counts < PART] = len(classes)
        parts = [classes[first[at] == each] for each in np.unique(first)]
        return [self._group(makers, np.sort(part)) for part in parts]

    def _group(self, makers: list[Axis], classes: NDArray[np.int64]) -> Group:
        each = [self.axes[axis][np.isin(self.axes[axis], classes)] for axis in makers]
        widths = [int(np.unique(found, return_counts=True)[1].max(initial=0)) for found in each]
        own = tuple(axis for axis, width in zip(makers, widths, strict=True) if width)
        return Group(own, classes, max(widths))

    def frozen(self) -> list[dict[str, Any]]:
        """Layers whose channels stay, all or some, and the operator that froze each."""
        rows = []
        for axis in self.graph.makers:
            stuck = self.axes[axis] == 0
            if not stuck.any():
                continue
            label = int(self.graph.axes[axis][int(np.argmax(stuck))])
            rows.append(
                {
                    "layer": layer_of(axis[0]),
                    "channels": int(stuck.sum()),
                    "of": len(stuck),
                    "reason": str(self.graph.labels.reason(label)),
                }
            )
        return rows

    def dimensions(self, tensor: str) -> int:
        """How many axes a parameter or buffer has."""
        return int(self.graph.program.state_dict[tensor].ndim)

    def dead(self, removed: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For every class, whether it is removed."""
        found = np.zeros(self.count, dtype=bool)
        found[removed] = True
        return found

    def keep(self, removed: NDArray[np.int64]) -> Keep:
        """What stays of every axis that loses something, where these classes are removed."""
        dead = self.dead(removed)
        found: Keep = {}
        for axis, classes in self.axes.items():
            if dead[classes].any():
                found[axis] = ~dead[classes]
        for name, each in self.elements.items():
            for at, kept in enumerate(box(each, dead)):
                if not kept.all():
                    found[name, at] = kept
        return found


def box(classes: Tensor, dead: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Which indices of every axis are left; the entries left always form a box."""
    alive = torch.from_numpy(~dead)[narrowed(classes)[0]]
    found = []
    for axis, size in enumerate(classes.shape):
        others = [at for at in range(classes.ndim) if at != axis]
        kept = alive.amax(others) if others else alive
        found.append(np.broadcast_to(kept.numpy(), (size,)) if len(kept) == 1 else kept.numpy())
    return found


def layer_of(tensor: str) -> str:
    """The layer that a tensor belongs to."""
    return tensor.rpartition(".")[0]


def _classes(labels: Tensor) -> NDArray[np.int64]:
    return np.ascontiguousarray(labels.numpy())
