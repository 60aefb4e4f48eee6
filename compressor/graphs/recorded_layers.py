"""Layers that are put into a recorded graph, where functions of torch were."""

from typing import Any

from torch import Tensor, fx, nn

Tensors = dict[str, Tensor]


class Layers:
    """Puts layers into a graph. ``names``: the tensor that each ``get_attr`` node reads."""

    def __init__(self, graph: fx.Graph, names: dict[fx.Node, str], tensors: Tensors) -> None:
        self.graph, self.names, self.tensors = graph, names, tensors
        self.layers: dict[str, nn.Module] = {}
        self.keys: dict[str, Any] = {}

    def tree(self) -> nn.Module:
        """The modules that hold layers and whatever tensors are still read by name."""
        root = nn.Module()
        for name in sorted(self.layers, key=lambda each: each.count(".")):
            owner, leaf = _place(root, name)
            owner.add_module(leaf, self.layers[name])
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        renamed: dict[str, str] = {}
        for name in sorted(read):
            owner, leaf = _place(root, name)
            while hasattr(owner, leaf):
                leaf += "_"
            value = self.tensors[name]
            if isinstance(value, nn.Parameter):
                owner.register_parameter(leaf, value)
            else:
                owner.register_buffer(leaf, value.detach())
            renamed[name] = ".".join([*name.split(".")[:-1], leaf])
        for node in self.graph.nodes:
            if node.op == "get_attr":
                node.target = renamed[str(node.target)]
        return root

    def weight(self, node: Any) -> str | None:
        """The parameter that an argument is, where it is one."""
        name = self.names.get(node) if isinstance(node, fx.Node) else None
        return name if name in self.tensors else None

    def put(self, node: fx.Node, name: str, layer: nn.Module, key: Any, *inputs: Any) -> fx.Node:
        """Let ``layer`` compute ``node``; a layer that was used before is used again."""
        if self.keys.setdefault(name, key) != key:
            self.layers[name := self._unused(name)] = layer
        self.layers.setdefault(name, layer)
        with self.graph.inserting_before(node):
            call = self.graph.call_module(name, inputs)
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        self.graph.erase_node(node)
        return call

    def _unused(self, name: str) -> str:
        while name in self.layers:
            name += "_"
        self.keys[name] = None
        return name

    def alike(self, weight: Any, node: fx.Node) -> bool:
        """Whether all that reads a weight is a function of this node's kind."""
        readers = [user for user in weight.users if user.op == "call_function"]
        return all(user.target == node.target for user in readers)


def _place(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    return root, leaf


def owner_of(name: str) -> str:
    """The layer that a weight of this name belongs to."""
    for ending in (".weight", "_weight", ".running_mean"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending)
    return name
