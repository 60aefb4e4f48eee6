"""A recorded graph -> an ordinary module, with real layers where they are.

``torch.export`` records what a network computes in functions. Here the functions that layers are
made of become those layers again, under the names that their weights have: so pruning, sharing,
channels, training and export find an imported network to be like any other.

1. A convolution or linear function whose weight is a parameter is such a layer. Where a parameter
   has several readers, all must be the same layer; else it stays a plain parameter.
2. A batch norm by its running statistics is a layer, which follows the training flag again.
3. Dropout and recurrent functions are layers.
4. What computes nothing (assertions, guards) goes.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compressor.channels.rules import arguments_of
from compressor.errors import LoadError

_CHECKS = ("assert", "sym_constrain_range", "_guards_fn")
Tensors = dict[str, Tensor]


def layered(program: torch.export.ExportedProgram, inputs: Sequence[str] = ()) -> fx.GraphModule:
    """The network of ``program``: it holds the same tensors, and takes the same inputs.

    ``inputs`` are other names for these, made fit to be arguments.
    """
    graph, names = _unlifted(program)
    for node, name in zip(graph.find_nodes(op="placeholder"), inputs, strict=False):
        node.target = node.name = re.sub(r"\W", "_", f"_{name}" if name[:1].isdigit() else name)
    maker = _Layers(graph, names, _tensors(program))
    maker.run()
    for node in reversed(graph.nodes):
        if not node.users and node.op in ("get_attr", "call_function") and not _writes(node):
            graph.erase_node(node)
    made = fx.GraphModule(maker.tree(), graph, "Imported")
    for parameter in made.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return made.eval()


def _writes(node: fx.Node) -> bool:
    """Whether a function changes its argument in place, which others may read."""
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _tensors(program: torch.export.ExportedProgram) -> Tensors:
    return {**program.constants, **program.state_dict}


def _unlifted(program: torch.export.ExportedProgram) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """The graph with tensors as attributes; which attribute each of its nodes reads."""
    signature = program.graph_signature
    lifted: Mapping[str, str] = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    names: dict[fx.Node, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in lifted:
            name = lifted[node.name]
            copies[node] = graph.create_node("get_attr", name, name=node.name)
            names[copies[node]] = name
        elif node.op == "output":
            results = fx.node.map_arg(node.args[0], copies.__getitem__)
            own = [
                copied
                for copied, spec in zip(results, signature.output_specs, strict=True)
                if spec.kind.name == "USER_OUTPUT"
            ]
            spec = program.call_spec.out_spec
            graph.output(own[0] if spec is None else pytree.tree_unflatten(own, spec))
        elif any(word in str(node.target) for word in _CHECKS):
            continue
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {k: v for k, v in node.meta.items() if k == "val"}
    return graph, names


class _Layers:
    """Puts layers into a graph. ``names``: the tensor that each ``get_attr`` node reads."""

    def __init__(self, graph: fx.Graph, names: dict[fx.Node, str], tensors: Tensors) -> None:
        self.graph, self.names, self.tensors = graph, names, tensors
        self.layers: dict[str, nn.Module] = {}
        self.keys: dict[str, Any] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.op != "call_function":
                continue
            rule = _RULES.get(str(node.target).removesuffix(".default"))
            if rule is not None:
                rule(self, node, arguments_of(node))

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


Rule = Callable[[_Layers, fx.Node, dict[str, Any]], None]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def put(function: Rule) -> Rule:
        _RULES.update({f"aten.{name}": function for name in names})
        return function

    return put


_CONVOLUTIONS = {
    **{f"conv{n}d": kind for n, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)},
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d.input": nn.ConvTranspose2d,
    "conv_transpose3d.input": nn.ConvTranspose3d,
}


_GENERAL = ("convolution", "_convolution", "_convolution.deprecated")


@_rule(*_CONVOLUTIONS, *_GENERAL, "conv1d.padding", "conv2d.padding", "conv3d.padding")
def _convolution(layers: _Layers, node: fx.Node, given: dict[str, Any]) -> None:
    weight, bias = layers.weight(given["weight"]), layers.weight(given["bias"])
    free = given["bias"] is None or bias is not None
    if weight is None or not free or not layers.alike(given["weight"], node):
        return
    name = str(node.target).removeprefix("aten.").removesuffix(".default").removesuffix(".padding")
    held = layers.tensors[weight]
    if name in _GENERAL:
        rank = held.ndim - 2
        name = f"conv_transpose{rank}d" if given["transposed"] else f"conv{rank}d"
        name += ".input" if given["transposed"] and rank > 1 else ""
        if not given["transposed"]:
            given.pop("output_padding")
    transposed = "transpose" in name
    groups, rank = given["groups"], held.ndim - 2
    ins, outs = held.shape[1] * groups, held.shape[0]
    if transposed:
        ins, outs = held.shape[0], held.shape[1] * groups
    settings: dict[str, Any] = {
        key: value if isinstance(value, str) else _each(value, rank)
        for key, value in given.items()
        if key in ("stride", "padding", "dilation", "output_padding")
    }
    layer: Any = _CONVOLUTIONS[name](
        ins,
        outs,
        tuple(held.shape[2:]),
        groups=groups,
        bias=bias is not None,
        **settings,
        device="meta",
    )
    _fill(layers, layer, weight, bias)
    key = (weight, bias, groups, tuple(sorted(settings.items())))
    layers.put(node, owner_of(weight), layer, key, given["input"])


def _each(value: Any, rank: int) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    return found * rank if len(found) == 1 else found


def _fill(layers: _Layers, layer: Any, weight: str, bias: str | None) -> None:
    layer.weight = _parameter(layers.tensors[weight])
    layer.bias = None if bias is None else _parameter(layers.tensors[bias])


def _parameter(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


@_rule("linear")
def _linear(layers: _Layers, node: fx.Node, given: dict[str, Any]) -> None:
    weight, bias = layers.weight(given["weight"]), layers.weight(given["bias"])
    free = given["bias"] is None or bias is not None
    if weight is None or not free or not layers.alike(given["weight"], node):
        return
    outs, ins = layers.tensors[weight].shape
    layer = nn.Linear(ins, outs, bias is not None, device="meta")
    _fill(layers, layer, weight, bias)
    layers.put(node, owner_of(weight), layer, (weight, bias), given["input"])


@_rule("batch_norm")
def _batch_norm(layers: _Layers, node: fx.Node, given: dict[str, Any]) -> None:
    own = [layers.weight(given[key]) for key in ("weight", "bias", "running_mean", "running_var")]
    if own[2] is None or own[3] is None or (own[0] is None) != (own[1] is None):
        return
    mean, variance = layers.tensors[own[2]], layers.tensors[own[3]]
    rank = given["input"].meta["val"].ndim if "val" in given["input"].meta else 4
    kind = {5: nn.BatchNorm3d, 4: nn.BatchNorm2d}.get(rank, nn.BatchNorm1d)
    layer: Any = kind(
        len(mean), given["eps"], given["momentum"], affine=own[0] is not None, device="meta"
    )
    if own[0] is not None and own[1] is not None:
        layer.weight = _parameter(layers.tensors[own[0]])
        layer.bias = _parameter(layers.tensors[own[1]])
    layer.running_mean, layer.running_var = mean.detach(), variance.detach()
    layer.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    name = owner_of(own[2]) if own[2].endswith(".running_mean") else owner_of(own[0] or own[2])
    layers.put(node, name, layer, tuple(own), given["input"])


@_rule("dropout", "dropout_", "feature_dropout", "alpha_dropout")
def _dropout(layers: _Layers, node: fx.Node, given: dict[str, Any]) -> None:
    layer: nn.Module = nn.Dropout(given["p"])
    layers.put(node, node.name, layer, node.name, node.args[0])


@_rule("lstm.input", "gru.input", "rnn_tanh.input")
def _recurrent(layers: _Layers, node: fx.Node, given: dict[str, Any]) -> None:
    own = [layers.weight(each) for each in given["params"]]
    if None in own or not str(own[0]).rpartition(".")[2].startswith("weight_ih"):
        return
    tensors = [layers.tensors[str(name)] for name in own]
    lstm = str(node.target).startswith("aten.lstm")
    kind: Any = nn.LSTM if lstm else nn.GRU if "gru" in str(node.target) else nn.RNN
    per = (4 if given["has_biases"] else 2) * (2 if given["bidirectional"] else 1)
    if len(tensors) != per * given["num_layers"]:
        return  # with projections
    with torch.device("meta"):
        layer = kind(
            tensors[0].shape[1],
            tensors[1].shape[1],
            given["num_layers"],
            bias=given["has_biases"],
            batch_first=given["batch_first"],
            dropout=given["dropout"],
            bidirectional=given["bidirectional"],
        )
    for leaf, value in zip(layer._flat_weights_names, tensors, strict=True):
        setattr(layer, leaf, _parameter(value))
    states = given["hx"]
    first = tuple(states) if lstm else states[0] if isinstance(states, list | tuple) else states
    call = layers.put(
        node, str(own[0]).rpartition(".")[0], layer, tuple(own), given["input"], first
    )
    if not lstm:
        return
    for user in list(call.users):  # torch's function gives three values, its layer one and a pair
        at = user.args[1] if user.target is operator.getitem else None
        if at in (1, 2):
            with layers.graph.inserting_before(user):
                pair = layers.graph.call_function(operator.getitem, (call, 1))
                one = layers.graph.call_function(operator.getitem, (pair, 0 if at == 1 else 1))
            user.replace_all_uses_with(one)
            layers.graph.erase_node(user)


def refuse_mutation(program: torch.export.ExportedProgram, path: Any) -> None:
    """A graph that writes to its own tensors was recorded while training."""
    if program.graph_signature.buffers_to_mutate:
        raise LoadError(
            f"{path} was exported in training mode and changes its own state: call model.eval() "
            "before torch.export.export"
        )
