"""An ONNX file -> a module that computes the same, which ONNX Runtime has confirmed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import ExportError, LoadError
from compressor.examples import Example, inputs_of, outputs_of, random
from compressor.export.verify import difference, first_line, worst
from compressor.graphs import onnx_file
from compressor.graphs.onnx_network import OnnxNetwork
from compressor.graphs.relayer import layered
from compressor.tracing import traced

TOLERANCE = 1e-5
"""How far the module may be off, relative to the largest output of ONNX Runtime's."""
_HALF = 1e-2  # a file of 16-bit floats is computed in 32 bits here
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_INTEGERS = {6: torch.int32, 7: torch.int64, 9: torch.bool}


def read(path: Path, given: Example | None) -> tuple[nn.Module, Example, list[Path]]:
    """(module, one input of zeros or of what is ``given``, files of weights) of an ONNX file.

    Raises :class:`LoadError` where the file is damaged, has what is not read here, does not tell
    its input's size, or would compute something else as a module.
    """
    model, outside = onnx_file.read(path)
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    example, batch = _example(path, inputs, given)
    half = any(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)
    network = OnnxNetwork(path, model, batch)
    names = list(network.names)
    # The module has its own weights; and a part of a message keeps the memory of the whole.
    del model, inputs
    module = _recorded(path, network, example, names)
    confirm(path, module, example, batch, _HALF if half else TOLERANCE)
    return module, example, outside


def _recorded(path: Path, network: nn.Module, example: Example, names: list[str]) -> nn.Module:
    try:
        return layered(traced(network, example, source=False), names)
    except ExportError as error:
        said = str(error).removeprefix("the network cannot be traced: ")
        raise LoadError(
            f"{path} cannot be turned into a module for any batch ({said}): export it with a free "
            "batch dimension (dynamic_shapes, or dynamic_axes)"
        ) from error


def _example(
    path: Path, inputs: list[onnx.ValueInfoProto], given: Example | None
) -> tuple[Example, int | None]:
    """One input of each, and the batch where the file fixes it."""
    if not inputs:
        raise LoadError(f"{path} takes no input: it is no network")
    own = None if given is None else inputs_of(given)
    if own is not None and len(own) != len(inputs):
        names = ", ".join(item.name for item in inputs)
        raise LoadError(f"{path} takes {len(inputs)} inputs ({names}), not {len(own)}")
    made, batches = [], set()
    for at, item in enumerate(inputs):
        kind = item.type.tensor_type.elem_type
        if kind not in _FLOATS and kind not in _INTEGERS:
            raise LoadError(f"{path}: the input {item.name!r} is neither floats nor whole numbers")
        dtype = torch.float32 if kind in _FLOATS else _INTEGERS[kind]
        sizes = [
            d.dim_value if d.HasField("dim_value") else 0 for d in item.type.tensor_type.shape.dim
        ]
        if not sizes:
            raise LoadError(f"{path}: the input {item.name!r} has no batch dimension")
        batches.add(sizes[0] or None)
        if own is not None:
            made.append(own[at].to(dtype))
        elif all(size > 0 for size in sizes[1:]):
            made.append(torch.zeros(1, *sizes[1:], dtype=dtype))
        else:
            raise LoadError(_sizes_missing(path, item, len(inputs)))
    if len(batches) > 1:
        raise LoadError(f"{path}: its inputs have different batches: the first size must be one")
    return (made[0] if len(made) == 1 else tuple(made)), batches.pop()


def _sizes_missing(path: Path, item: onnx.ValueInfoProto, inputs: int) -> str:
    shown = [d.dim_param or str(d.dim_value or "?") for d in item.type.tensor_type.shape.dim]
    said = f"{path} leaves sizes of its input {item.name!r} open ({', '.join(shown)}): "
    if inputs > 1:
        return said + "give them by --task FILE.py:TASK, whose example() makes the inputs"
    sizes = [s if s.isdigit() else n for s, n in zip(shown[1:], "CHWD", strict=False)]
    return said + f"add --input-shape {','.join(['1', *sizes])}"


def confirm(
    path: Path, module: nn.Module, example: Example, batch: int | None, tolerance: float
) -> None:
    """Run file and module on the same seeded inputs, twice the batch that the file fixes.

    Raises :class:`LoadError` where an output differs by more than ``tolerance``, relative.
    """
    size = batch or 2
    inputs = inputs_of(
        random(example, 2 * size if batch else size, torch.Generator().manual_seed(0))
    )
    with torch.no_grad():
        found = [each.numpy() for each in outputs_of(module(*inputs))]
    parts = [tuple(x[at : at + size] for x in inputs) for at in range(0, len(inputs[0]), size)]
    halves = _runtime(path, parts)
    expected = [np.concatenate(each) for each in zip(*halves, strict=True)]
    try:
        gap = worst([difference(e, f) for e, f in zip(expected, found, strict=True)])
    except (ExportError, ValueError) as error:
        raise LoadError(f"{path} as a module gives other outputs ({error})") from None
    if not gap.relative <= tolerance:
        raise LoadError(
            f"{path} as a module differs from ONNX Runtime by {gap.relative:.1e} relative, more "
            f"than {tolerance:g}: give the PyTorch checkpoint and --arch instead"
        )


def _runtime(path: Path, batches: list[tuple[Tensor, ...]]) -> list[list[NDArray[Any]]]:
    """ONNX Runtime's outputs. From the path: weights may lie beside it, and are not copied."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        runtime = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
        kinds = {item.name: item.type for item in runtime.get_inputs()}
        half = {"tensor(float16)": np.float16}
        return [
            runtime.run(
                None,
                {
                    name: x.numpy().astype(half.get(kind, x.numpy().dtype))
                    for (name, kind), x in zip(kinds.items(), batch, strict=True)
                },
            )
            for batch in batches
        ]
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise LoadError(f"{path}: ONNX Runtime cannot run it ({first_line(error)})") from None
