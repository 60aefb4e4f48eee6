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

import re
from collections.abc import Mapping, Sequence

import torch
from torch import fx
from torch.utils import _pytree as pytree

from compressor.channels.rules import arguments_of
from compressor.graphs.layer_rules import RULES
from compressor.graphs.recorded_layers import Layers, Tensors

_CHECKS = ("assert", "sym_constrain_range", "_guards_fn")


def layered(program: torch.export.ExportedProgram, inputs: Sequence[str] = ()) -> fx.GraphModule:
    """The network of ``program``: it holds the same tensors, and takes the same inputs.

    ``inputs`` are other names for these, made fit to be arguments.
    """
    graph, names = _unlifted(program)
    for node, name in zip(graph.find_nodes(op="placeholder"), inputs, strict=False):
        node.target = node.name = re.sub(r"\W", "_", f"_{name}" if name[:1].isdigit() else name)
    layers = Layers(graph, names, _tensors(program))
    for node in list(graph.nodes):
        rule = RULES.get(str(node.target).removesuffix(".default"))
        if node.op == "call_function" and rule is not None:
            rule(layers, node, arguments_of(node))
    for node in reversed(graph.nodes):
        if not node.users and node.op in ("get_attr", "call_function") and not _writes(node):
            graph.erase_node(node)
    made = fx.GraphModule(layers.tree(), graph, "Imported")
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
