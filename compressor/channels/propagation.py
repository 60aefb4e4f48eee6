"""Which channels of a network depend on which: labels carried through its exported graph.

The graph is what ``torch.export`` records, operator by operator, for a batch of two. Operators
that make channels (convolutions, linear layers, embeddings) give fresh labels; element-wise ones
unite what meets; those that only move data are run on the labels themselves; one that nobody
knows freezes what it touches. What each operator does is in ``rules.py``.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from compressor.channels.labels import Labels, Reason, narrowed, spread, varying

Axis = tuple[str, int]
"""An axis of a parameter or buffer, by its name in the ``state_dict``."""

MAX_ELEMENTS = 1 << 20
"""A larger tensor that enters element by element (a weight that is computed with) stays whole."""

Value = Any
"""What a node of the graph gives: a label tensor, a sequence of them, or a plain value."""


@dataclass
class Propagation:
    """A network's graph and the labels in it.

    ``axes`` has the labels along the axis of a tensor that a layer uses as input or output
    channels, ``elements`` those of tensors that enter element by element, ``makers`` the axes whose
    labels were made there, ``grouped`` the convolutions' weights and their groups, ``residual``
    the labels that sums of two activations met.
    """

    program: torch.export.ExportedProgram
    labels: Labels = field(default_factory=Labels)
    values: dict[fx.Node, Value] = field(default_factory=dict)
    axes: dict[Axis, Tensor] = field(default_factory=dict)
    elements: dict[str, Tensor] = field(default_factory=dict)
    makers: list[Axis] = field(default_factory=list)
    grouped: dict[str, int] = field(default_factory=dict)
    residual: list[Tensor] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        signature = self.program.graph_signature
        held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        first = _first_names(self.program.state_dict)
        self.tensors: dict[str, str] = {key: first.get(name, name) for key, name in held.items()}

    def run(self, rules: "dict[str, Rule]") -> None:
        """Carry labels from the inputs to the outputs, which freeze what reaches them."""
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = _constant(node.meta.get("val"))
            elif node.op == "call_function":
                self.values[node] = self._step(node, rules)
            elif node.op == "output":
                for leaf in node.all_input_nodes:
                    self.freeze(self.of(leaf), Reason("the network's output", ""))
        for (name, axis), labels in self.axes.items():
            if name in self.elements:  # used both ways: every entry must fit both
                whole = self.elements[name]
                along = labels.reshape([-1 if at == axis else 1 for at in range(whole.ndim)])
                self.labels.unite(whole, along.expand(whole.shape), Reason("two uses", name))

    def _step(self, node: fx.Node, rules: "dict[str, Rule]") -> Value:
        value = node.meta.get("val")
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
            return value  # a size that depends on the batch
        name = operator_name(node)
        rule = rules.get(name)
        reason = self.reason(node)
        if rule is not None:
            try:
                found = rule(self, node)
            except (NotImplementedError, IndexError, TypeError, ValueError, RuntimeError):
                found = None
            if found is not None:
                return found
        inputs = [self.of(each) for each in node.all_input_nodes]
        touched = [each for each in pytree.tree_leaves(inputs) if isinstance(each, Tensor)]
        if any((narrowed(each)[0] != 0).any() for each in touched):
            self.unknown[name] = self.unknown.get(name, 0) + 1
        for each in touched:
            self.freeze(each, reason)
        return _constant(node.meta.get("val"))

    def of(self, argument: Any) -> Value:
        """The labels of a node's value; a tensor of the network's own gets one for each entry."""
        if not isinstance(argument, fx.Node):
            return argument
        name = self.tensors.get(argument.name)
        if name is None:
            return self.values[argument]
        if name not in self.elements:
            shape = shape_of(argument)
            if math.prod(shape) > MAX_ELEMENTS:
                return torch.zeros((), dtype=torch.int64).expand(shape)
            self.elements[name] = self.labels.fresh(*shape)
        return self.elements[name]

    def tensor(self, argument: Any) -> str | None:
        """The network's own name of the tensor that a node is, None for computed values."""
        return self.tensors.get(argument.name) if isinstance(argument, fx.Node) else None

    def along(self, labels: Tensor, axis: int, node: fx.Node) -> Tensor:
        """The labels (n,) along one axis; at all places of the others a layer treats them alike."""
        axis %= labels.ndim
        first = labels.movedim(axis, -1)[(0,) * (labels.ndim - 1)]
        if [each for each in varying(labels) if each != axis]:
            self.unite(labels, spread(first, axis, tuple(labels.shape)), node)
        return first

    def use(self, name: str, axis: int, labels: Tensor, node: fx.Node) -> None:
        """A layer uses ``axis`` of the tensor ``name`` for channels with these labels."""
        known = self.axes.setdefault((name, axis), labels)
        if known is not labels:
            self.labels.unite(known, labels, self.reason(node))

    def make(self, name: str, axis: int, count: int) -> Tensor:
        """Labels (count,) of the channels that ``axis`` of the tensor ``name`` makes."""
        if (name, axis) not in self.axes:
            self.axes[name, axis] = self.labels.fresh(count)
            self.makers.append((name, axis))
        return self.axes[name, axis]

    def unite(self, one: Tensor, other: Tensor, node: fx.Node) -> None:
        self.labels.unite(one, other, self.reason(node))

    def tie(self, labels: Tensor, axis: int, node: fx.Node) -> None:
        """Entries along ``axis`` stand or fall together."""
        if axis in varying(labels):
            self.unite(labels, labels.narrow(axis, 0, 1).expand(labels.shape), node)

    def freeze(self, labels: Value, reason: Reason) -> None:
        for leaf in pytree.tree_leaves(labels):
            if isinstance(leaf, Tensor):
                self.labels.freeze(leaf, reason)

    def reason(self, node: fx.Node) -> Reason:
        """An operator, and the module in which it stands, for the report."""
        stack = node.meta.get("nn_module_stack") or {}
        place = next((path for path, _ in reversed(list(stack.values()))), "")
        return Reason(operator_name(node), place)


Rule = Callable[[Propagation, fx.Node], Value]


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The first name of every tensor: what a network holds under several is one tensor."""
    first: dict[Any, str] = {}
    return {
        name: first.setdefault((value.data_ptr(), value.shape, value.stride()), name)
        for name, value in state.items()
        if value.numel()
    }


def operator_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``, ``getitem`` for Python's own."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return getattr(packet, "__name__", str(packet)).rpartition(".")[2].rstrip("_")


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The sizes of a node's tensor, the batch being that of the example."""
    return sizes(node.meta["val"].shape)


def sizes(values: Any) -> tuple[int, ...]:
    """Whole numbers, symbolic ones at the value that they have for the example."""
    return tuple(concrete(value) for value in values)


def concrete(value: Any) -> int:
    """A whole number; of a node or a symbol, its value for the example."""
    if isinstance(value, fx.Node):
        value = value.meta["val"]
    found: Any = value.node.hint if isinstance(value, torch.SymInt) else value
    return int(found)


def _constant(value: Any) -> Value:
    """Labels 0 for every tensor in ``value``."""

    def zeros(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return torch.zeros((), dtype=torch.int64).expand(sizes(leaf.shape))

    return pytree.tree_map(zeros, value)


def leaves(value: Value) -> Iterator[Tensor]:
    """The label tensors in a value."""
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
