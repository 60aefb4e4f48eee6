"""Labels of channels: which entries of which activations stand or fall together.

Every entry of an activation carries an integer. Two entries with labels of one *class* are kept
or removed together; label 0, and every class that meets it, stands for what cannot be removed.
A label tensor has the shape of its activation, with stride 0 along the axes on which it does not
vary, so that it takes the memory of its channels and no more.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


@dataclass(frozen=True)
class Reason:
    """Why a class cannot be removed: the operator that met it, and where it stands."""

    operator: str
    place: str

    def __str__(self) -> str:
        return f"{self.operator} in {self.place}" if self.place else self.operator


class Labels:
    """Labels and the equations between them, solved in linear time when somebody asks."""

    def __init__(self) -> None:
        self.count = 1
        self._edges: list[NDArray[np.int64]] = []  # (2, m) each
        self._frozen: list[tuple[NDArray[np.int64], Reason]] = []
        self._solved: NDArray[np.int64] | None = None
        self._reasons: dict[int, Reason] = {}

    def fresh(self, *shape: int) -> Tensor:
        """New labels, one for each entry of ``shape``."""
        size = int(np.prod(shape))
        labels = torch.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        self._solved = None
        return labels

    def unite(self, one: Tensor, other: Tensor, reason: Reason) -> None:
        """Entries at one place stand or fall together; what meets 0 is frozen by ``reason``."""
        a, b = (part.flatten().numpy() for part in narrowed(*_broadcast(one, other)))
        self.freeze(torch.from_numpy(np.concatenate([a[b == 0], b[a == 0]])), reason)
        differ = (a != b) & (a != 0) & (b != 0)
        if differ.any():
            self._edges.append(np.unique(np.stack([a[differ], b[differ]]), axis=1))
            self._solved = None

    def freeze(self, labels: Tensor, reason: Reason) -> None:
        """What has one of these labels cannot be removed."""
        (few,) = narrowed(labels)
        found = np.unique(few.numpy())
        found = found[found != 0]
        if len(found):
            self._frozen.append((found, reason))
            self._solved = None

    def classes(self, labels: Tensor) -> Tensor:
        """The class of each label, itself a label, 0 where it is frozen; strides of 0 stay."""
        solved = torch.from_numpy(self._solve())
        (few,) = narrowed(labels)
        return solved[few].reshape(_ones(labels)).expand(labels.shape)

    def reason(self, label: int) -> Reason | None:
        """What froze the class of a label first; None where it is free."""
        self._solve()
        return self._reasons.get(int(self._components[label]))

    def _solve(self) -> NDArray[np.int64]:
        if self._solved is None:
            edges = np.concatenate([np.zeros((2, 0), dtype=np.int64), *self._edges], axis=1)
            graph = coo_array(
                (np.ones(edges.shape[1], dtype=np.int8), tuple(edges)), (self.count,) * 2
            )
            self._components = connected_components(graph, directed=False)[1]
            self._reasons = {}
            for labels, reason in self._frozen:
                for component in np.unique(self._components[labels]).tolist():
                    self._reasons.setdefault(component, reason)
            first = np.unique(self._components, return_index=True)[1]
            solved = first[self._components].astype(
                np.int64
            )  # a class is called by its first label
            solved[np.isin(self._components, [self._components[0], *self._reasons])] = 0
            self._solved = solved
        return self._solved


def narrowed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape without what stride 0 repeats in all of them."""
    for axis in range(tensors[0].ndim):
        if all(each.stride(axis) == 0 for each in tensors):
            tensors = tuple(each.narrow(axis, 0, min(1, each.shape[axis])) for each in tensors)
    return tensors


def spread(labels: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """Labels (n,) along ``axis`` of a tensor of ``shape``, the same along all others."""
    return labels.reshape(
        [-1 if at == axis % len(shape) else 1 for at in range(len(shape))]
    ).expand(shape)


def varying(labels: Tensor) -> list[int]:
    """The axes along which labels differ."""
    found = []
    for axis in range(labels.ndim):
        if labels.stride(axis) == 0 or labels.shape[axis] == 1:
            continue
        (few,) = narrowed(labels)
        if (few != few.narrow(axis, 0, 1)).any():
            found.append(axis)
    return found


def compact(labels: Tensor) -> Tensor:
    """The same labels, with stride 0 along every axis on which they do not vary."""
    differ = varying(labels)
    for axis in range(labels.ndim):
        if axis not in differ and labels.stride(axis) != 0 and labels.shape[axis] > 0:
            labels = labels.narrow(axis, 0, 1).expand(labels.shape)
    return labels


def _broadcast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    shape = np.broadcast_shapes(one.shape, other.shape)
    return one.expand(shape), other.expand(shape)


def _ones(labels: Tensor) -> list[int]:
    return [1 if labels.stride(axis) == 0 else size for axis, size in enumerate(labels.shape)]
