"""A module -> its ONNX graph without weights: what the artifact stores and ``build`` fills.

In the skeleton every tensor of the ``state_dict`` that the network uses is a graph *input* of
that name. So constant folding cannot reach a weight, the graph does not depend on a single weight
value, and filling it is a plain substitution (``export/onnx.py``).
"""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from compressor.errors import ExportError

INPUT, OUTPUT, BATCH = "input", "output", "batch"


def trace(module: nn.Module, example: Tensor, opset: int) -> bytes:
    """The skeleton of ``module`` as serialised ONNX, batch dynamic, of exactly this opset.

    ``module`` has plain weights (no parametrizations); ``example`` has shape (1, ...). Names of
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
    with _quiet():
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


def _exported(module: nn.Module, example: Tensor, opset: int) -> ir.Model:
    module.eval()
    batch = example.expand(2, *example.shape[1:]).contiguous()  # a batch of 1 would be baked in
    try:
        with _quiet(), torch.no_grad():
            output = module(batch)
            if not isinstance(output, Tensor):
                raise ExportError(
                    f"the network gives a {type(output).__name__}, not one tensor: wrap it in a "
                    "module that returns the logits alone"
                )
            # Left to itself, the ONNX exporter of older releases falls back on a plain trace, which
            # bakes in whatever branch the example takes.
            exported = torch.export.export(
                module, (batch,), dynamic_shapes=({0: torch.export.Dim(BATCH)},), strict=False
            )
            program = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:  # torch.export's errors have no common base but this
        raise ExportError(f"the network cannot be exported to ONNX: {_reason(error)}") from error
    if program is None:
        raise ExportError("the network cannot be exported to ONNX: the exporter gave nothing")
    return program.model


def _reason(error: BaseException) -> str:
    """What went wrong in the first place: the exporter wraps it in advice for its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter chats on both streams, by logging and by warnings; none of it is for users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
