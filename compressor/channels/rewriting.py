"""A network as its own exported graph, with every size in it solved anew for the channels left.

It takes the place of the user's class where constants in its ``forward`` (sizes of views, splits
and pads) forbid that one to run with fewer channels. It stays an ordinary module: the original
tree of modules with the original names holds parameters and buffers, and only what ``forward``
does is the graph's. Batch norms and dropouts follow the ``training`` flag of the module that they
stand in.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compressor.channels.dependencies import Dependencies, box
from compressor.channels.propagation import concrete, leaves, operator_name, shape_of
from compressor.channels.rules import argument_names, arguments_of, given
from compressor.errors import StageError

CHECKS = (
    *("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "_assert_async"),
    *("sym_constrain_range_for_size", "_guards_fn"),
)
"""Operators of a graph that compute nothing."""


class GraphNetwork(nn.Module):
    """The modules of another network, computing what a graph says."""

    def __init__(self, module: nn.Module, graph: fx.Graph, constants: dict[str, Tensor]) -> None:
        super().__init__()
        self._modules.update(module._modules)
        self._parameters.update(module._parameters)
        self._buffers.update(module._buffers)
        self._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.training = module.training
        code = graph.python_code("self")
        scope = dict(code.globals)
        exec(compile(code.src, "<rewritten network>", "exec"), scope)
        self._compute: Callable[..., Any] = scope["forward"]

    def forward(self, x: Tensor) -> Any:
        return self._compute(self, x)


def rewritten(module: nn.Module, dependencies: Dependencies, removed: Any) -> GraphNetwork:
    """``module``, whose tensors are cut already, computing the graph of ``dependencies``.

    Raises :class:`StageError` for an operator whose sizes cannot be solved.
    """
    dead = dependencies.dead(removed)
    solver = _Solver(dependencies, dead)
    graph = unlifted(dependencies, solver)
    return GraphNetwork(module, graph, constants(dependencies))


def constants(dependencies: Dependencies) -> dict[str, Tensor]:
    """Tensors that the graph holds itself."""
    program = dependencies.graph.program
    names = program.graph_signature.inputs_to_lifted_tensor_constants
    known = {**program.constants, **program.tensor_constants}
    return {_constant(name): known[name].clone() for name in names.values()}


def _constant(name: str) -> str:
    return "constant_" + name.replace(".", "_")


Edit = Callable[[fx.Node, fx.Node], None]


def unlifted(dependencies: Dependencies, edit: Edit | None = None) -> fx.Graph:
    """The graph with parameters as attributes and one output; ``edit`` sees (old, new) nodes."""
    program = dependencies.graph.program
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    tensors = dependencies.graph.tensors
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if operator_name(node) in CHECKS:
            continue
        if node.op == "placeholder" and node.name in tensors:
            copies[node] = graph.create_node("get_attr", tensors[node.name])
        elif node.op == "placeholder" and node.name in lifted:
            copies[node] = graph.create_node("get_attr", _constant(lifted[node.name]))
        elif node.op == "output":
            results = fx.node.map_arg(node.args[0], copies.__getitem__)
            graph.output(results[0] if len(results) == 1 else results)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}
            if edit is not None:
                edit(node, copies[node])
    return graph


class _Solver:
    """Gives each operator the sizes that it has where ``dead`` classes are gone."""

    def __init__(self, dependencies: Dependencies, dead: Any) -> None:
        self.dependencies = dependencies
        self.graph = dependencies.graph
        self.dead = dead

    def __call__(self, old: fx.Node, new: fx.Node) -> None:
        rule = getattr(self, f"_{operator_name(old)}", None)
        if rule is not None and old.op == "call_function":
            rule(old, new)

    def _left(self, labels: Tensor) -> list[Any]:
        """What is left of each axis, as masks."""
        return box(self.graph.labels.classes(labels), self.dead)

    def _sizes(self, labels: Tensor) -> list[int]:
        return [int(kept.sum()) for kept in self._left(labels)]

    def _loses(self, labels: Tensor) -> bool:
        return self._sizes(labels) != list(labels.shape)

    # Sizes of views.

    def _view(self, old: fx.Node, new: fx.Node) -> None:
        labels, numbers = self.graph.values[old], list(given(new)[1])
        sizes = self._sizes(labels)
        for axis, size in enumerate(sizes):
            if size == labels.shape[axis] or numbers[axis] == -1:
                continue
            free = isinstance(numbers[axis], fx.Node)
            if free and -1 in numbers:
                raise StageError(f"{self.graph.reason(old)}: two sizes depend on the batch")
            numbers[axis] = -1 if free else size
        new.args = (new.args[0], numbers, *new.args[2:])

    _reshape = __unsafe_view = _view

    def _expand(self, old: fx.Node, new: fx.Node) -> None:
        labels, numbers = self.graph.values[old], list(given(new)[1])
        for axis, size in enumerate(self._sizes(labels)):
            if size != labels.shape[axis] and numbers[axis] != -1:
                numbers[axis] = size
        new.args = (new.args[0], numbers, *new.args[2:])

    def _unflatten(self, old: fx.Node, new: fx.Node) -> None:
        labels, numbers = self.graph.values[old], list(given(new)[2])
        axis = int(given(old)[1])
        axis += labels.ndim - len(numbers) + 1 if axis < 0 else 0
        sizes = self._sizes(labels)
        for at, size in enumerate(sizes[axis : axis + len(numbers)]):
            if size != labels.shape[axis + at] and numbers[at] != -1:
                numbers[at] = size
        new.args = (new.args[0], new.args[1], numbers)

    # Parts of an axis.

    def _split(self, old: fx.Node, new: fx.Node) -> None:
        parts = list(leaves(self.graph.values[old]))
        if not any(map(self._loses, parts)):
            return
        axis = arguments_of(old)["dim"]
        new.target = torch.ops.aten.split_with_sizes.default
        new.args = (new.args[0], [self._sizes(part)[axis] for part in parts], axis)
        new.kwargs = {}

    _chunk = _split_with_sizes = _tensor_split = _split

    def _slice(self, old: fx.Node, new: fx.Node) -> None:
        named = arguments_of(old)
        axis, source = named["dim"], self.graph.of(given(old)[0])
        if not isinstance(source, Tensor):
            return
        kept = self._left(source)[axis]
        if kept.all():
            return
        if named["step"] != 1:
            raise StageError(f"{self.graph.reason(old)}: channels are taken in steps")
        start = 0 if named["start"] is None else concrete(named["start"])
        end = len(kept) if named["end"] is None else concrete(named["end"])
        new.args = (new.args[0], axis, int(kept[:start].sum()), int(kept[:end].sum()))
        new.kwargs = {}

    def _narrow(self, old: fx.Node, new: fx.Node) -> None:
        axis, start, length = (concrete(each) for each in given(old)[1:4])
        kept = self._left(self.graph.of(given(old)[0]))[axis]
        if not kept.all():
            left = int(kept[start : start + length].sum())
            new.args = (new.args[0], axis, int(kept[:start].sum()), left)

    def _select(self, old: fx.Node, new: fx.Node) -> None:
        axis, index = (concrete(each) for each in given(old)[1:3])
        kept = self._left(self.graph.of(given(old)[0]))[axis]
        if not kept.all():
            new.args = (new.args[0], axis, int(kept[: index % len(kept)].sum()))

    def _pad(self, old: fx.Node, new: fx.Node) -> None:
        labels, numbers = self.graph.values[old], list(given(new)[1])
        for axis, kept in enumerate(self._left(labels)):
            at = 2 * (labels.ndim - 1 - axis)
            if kept.all() or at + 1 >= len(numbers):
                continue
            before, after = numbers[at], numbers[at + 1]
            numbers[at : at + 2] = [int(kept[:before].sum()), int(kept[len(kept) - after :].sum())]
        new.args = (new.args[0], numbers, *new.args[2:])

    _constant_pad_nd = _pad

    # Layers whose arguments repeat the sizes of their tensors.

    def _layer_norm(self, old: fx.Node, new: fx.Node) -> None:
        size = self._sizes(self.graph.of(given(old)[0]))[-1]
        new.args = (new.args[0], [size], *new.args[2:])

    def _conv2d(self, old: fx.Node, new: fx.Node) -> None:
        name = self.graph.tensor(given(old)[1])
        if name not in self.graph.grouped:
            return
        kept = self._left(self.graph.axes[name, 0])[0]
        groups = self.graph.grouped[name] * int(kept.sum()) // len(kept)
        names = argument_names(old)
        at = names.index("groups")
        if len(new.args) > at:
            new.args = (*new.args[:at], groups, *new.args[at + 1 :])
        else:
            new.kwargs = {**new.kwargs, "groups": groups}

    _conv1d = _conv3d = _convolution = _conv2d

    def _scaled_dot_product_attention(self, old: fx.Node, new: fx.Node) -> None:
        if new.kwargs.get("scale") is None:  # by the width that the network was trained with
            scale = shape_of(given(old)[0])[-1] ** -0.5
            new.kwargs = {**new.kwargs, "scale": scale}

    # Layers that behave differently in training.

    def _batch_norm(self, old: fx.Node, new: fx.Node) -> None:
        source, weight, bias, mean, variance, _, momentum, eps = new.args[:8]
        owner = str((self.graph.tensor(given(old)[3]) or "").rpartition(".")[0])
        training = _flag(new, owner)
        new.target = functional.batch_norm
        new.args = (source, mean, variance, weight, bias, training, momentum, eps)

    def _dropout(self, old: fx.Node, new: fx.Node) -> None:
        new.target = functional.dropout
        new.args = (new.args[0], new.args[1], _flag(new, self.graph.reason(old).place))

    _dropout_ = _dropout


def _flag(node: fx.Node, path: str) -> fx.Node:
    """The training flag of the module at ``path``, read each time that ``node`` runs."""
    with node.graph.inserting_before(node):
        return node.graph.create_node("get_attr", f"{path}.training" if path else "training")
