"""Multiply-adds of a network as a function of the channels left; one multiply-add is one MAC."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from compressor.channels.dependencies import Dependencies
from compressor.channels.labels import varying
from compressor.channels.propagation import operator_name, shape_of
from compressor.channels.rules import given

Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Term:
    """MACs of one operator for one input, and the channels whose number they are a product of."""

    layer: str
    macs: float
    factors: tuple[Classes, ...]


class Macs:
    """The MACs of convolutions, linear layers and products of activations."""

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.terms: list[Term] = []
        for node in dependencies.graph.program.graph.nodes:
            if node.op == "call_function":
                self.terms += self._of(node)
        self.dense = sum(term.macs for term in self.terms)

    def left(self, removed: NDArray[np.int64]) -> float:
        """The fraction of the MACs that is left without these classes."""
        alive = ~self.dependencies.dead(removed)
        total = sum(
            term.macs * math.prod(float(alive[each].mean()) for each in term.factors)
            for term in self.terms
        )
        return total / self.dense if self.dense else 1.0

    def of_classes(self) -> NDArray[np.float64]:
        """For every class, the fraction of the MACs that goes if it alone is removed, nearly."""
        found = np.zeros(self.dependencies.count)
        for term in self.terms:
            for each in term.factors:
                np.add.at(found, each, term.macs / len(each))
        return found / self.dense if self.dense else found

    def _of(self, node: fx.Node) -> list[Term]:
        name, graph = operator_name(node), self.dependencies.graph
        if name == "linear" or name.startswith("conv"):
            tensor = graph.tensor(given(node)[1])
            if tensor is None:
                return []
            weight, out = shape_of(given(node)[1]), shape_of(node)
            outputs = math.prod(out[1:]) if name != "linear" else math.prod(out[1:-1]) * out[-1]
            per_output = math.prod(weight[1:])
            if "transpose" in name:
                outputs, per_output = math.prod(shape_of(given(node)[0])[1:]), math.prod(weight[1:])
            keys = [(tensor, 0), (tensor, 1)]
            factors = tuple(self.dependencies.axes[k] for k in keys if k in self.dependencies.axes)
            return [Term(tensor.rpartition(".")[0], float(outputs * per_output), factors)]
        if name == "scaled_dot_product_attention":
            query, value = given(node)[0], given(node)[2]
            pairs = math.prod(shape_of(query)[1:-1]) * shape_of(value)[-2]
            return [
                Term(name, float(pairs * shape_of(each)[-1]), self._factor(each))
                for each in (query, value)
            ]
        if name in ("matmul", "bmm") and not any(map(graph.tensor, given(node)[:2])):
            one, other = given(node)[:2]
            macs = math.prod(shape_of(node)[1:]) * shape_of(one)[-1]
            return [Term(name, float(macs), self._factor(other) or self._factor(one))]
        return []

    def _factor(self, node: fx.Node) -> tuple[Classes, ...]:
        """The channels along the one axis of an activation that has any."""
        labels = self.dependencies.graph.of(node)
        axes = varying(labels) if isinstance(labels, Tensor) else []
        if not axes:
            return ()
        along = labels.movedim(axes[-1], -1)[(0,) * (labels.ndim - 1)]
        return (self.dependencies.graph.labels.classes(along).numpy(),)
