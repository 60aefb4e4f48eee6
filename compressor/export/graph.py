"""A module -> its ONNX graph without weights: what the artifact stores and ``build`` fills.

In the skeleton every tensor of the ``state_dict`` that the network uses is a graph *input* of
that name. So constant folding cannot reach a weight, the graph does not depend on a single weight
value, and filling it is a plain substitution (``export/onnx.py``).
"""

import itertools

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

from compressor.errors import ExportError
from compressor.examples import Example, inputs_of, names_of, output_names, outputs_of
from compressor.tracing import BATCH, quiet, reason, traced

INPUT, OUTPUT = "input", "output"


def trace(module: nn.Module, example: Example, opset: int) -> bytes:
    """The skeleton of ``module`` as serialised ONNX, batch dynamic, of exactly this opset.

    ``module`` has plain weights (no parametrizations); ``example`` is one input, (1, ...), or
    several, which are called as ``examples.names_of`` says: ``input`` where there is one. Names of
    values are short and say nothing of the machine; nodes have none. Raises :class:`ExportError`
    where the network cannot be traced.
    """
    names = set(module.state_dict())
    model = _exported(module, example, opset)
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        if name in names:
            graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
    with quiet():
        optimizer.optimize_ir(model)
    proto = ir.to_proto(model)
    versions = {item.domain: item.version for item in proto.opset_import}
    used = {node.domain for node in proto.graph.node}
    if versions.get("") != opset or not used <= {"", "ai.onnx"}:
        raise ExportError(
            f"asked for ONNX opset {opset}, the exporter wrote {versions.get('')} "
            f"(domains {sorted(used - {''})}); choose another with --set export.opset=NUMBER"
        )
    content: bytes = _stripped(proto, names).SerializeToString(deterministic=True)
    return content


def _exported(module: nn.Module, example: Example, opset: int) -> ir.Model:
    with torch.no_grad():
        output = module.eval()(*inputs_of(example))
    if not outputs_of(output):
        raise ExportError(f"the network gives a {type(output).__name__} without any tensor")
    # Left to itself, the ONNX exporter of older releases falls back on a plain trace, which
    # bakes in whatever branch the example takes.
    recorded = traced(module, example)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                recorded,
                dynamo=True,
                optimize=False,
                opset_version=opset,
                input_names=input_names(module, example),
                output_names=_apart(output_names(output), module),
                verbose=False,
            )
    except Exception as error:  # the exporter's errors have no common base but this
        raise ExportError(f"the network cannot be exported to ONNX: {reason(error)}") from error
    if program is None:
        raise ExportError("the network cannot be exported to ONNX: the exporter gave nothing")
    return program.model


def input_names(module: nn.Module, example: Example) -> list[str]:
    """What the network's inputs are called in its ONNX files."""
    return _apart(names_of(module, example), module)


def _apart(names: list[str], module: nn.Module) -> list[str]:
    """Names of inputs or outputs that no tensor of the network has."""
    taken = set(module.state_dict())
    return [f"{name}_" if name in taken else name for name in names]


def _stripped(proto: onnx.ModelProto, weights: set[str]) -> onnx.ModelProto:
    """Without documentation, metadata, traces of the machine, or names longer than they must be."""
    graph = proto.graph
    keep = weights | {item.name for item in (*graph.input, *graph.output)}
    free = (name for n in itertools.count() if (name := f"v{n}") not in keep)
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        if not name or name in keep:
            return name
        if name not in short:
            short[name] = next(free)
        return short[name]

    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
        if any(attribute.type in (5, 10) for attribute in node.attribute):  # GRAPH, GRAPHS
            raise ExportError(
                f"the network has control flow ({node.op_type} with a subgraph), which depends on "
                "its input; export it with that choice made"
            )
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    del graph.value_info[:]
    clean = onnx.ModelProto(
        ir_version=proto.ir_version,
        producer_name="compressor",
        opset_import=[onnx.helper.make_opsetid("", proto.opset_import[0].version)],
    )
    clean.graph.name = "network"
    clean.graph.node.extend(graph.node)
    clean.graph.initializer.extend(graph.initializer)
    for source, target in ((graph.input, clean.graph.input), (graph.output, clean.graph.output)):
        for item in source:
            for dim in item.type.tensor_type.shape.dim:
                if dim.dim_param:  # only the batch is free; the exporter calls it s77 or the like
                    dim.dim_param = BATCH
            target.add(name=item.name, type=item.type)
    return clean
