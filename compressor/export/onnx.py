"""A graph skeleton and decoded tensors -> the dense ONNX file. One deterministic function.

A run's own ONNX file and that of ``compress decompress X.dcz -o Y.onnx`` both come from
:func:`build`, from the same stored bytes, so they cannot differ.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compressor.errors import ArtifactError, ExportError

Array = NDArray[Any]
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit on one message


def build(graph: bytes, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The ONNX file as bytes.

    The rules, in order:

    1. Every graph input that is called like a tensor becomes that tensor, as an initializer.
    2. A batch normalisation behind a convolution or linear layer, whose only reader it is, is
       folded into its weight and bias, in float64.
    3. Nodes get names from their operator and position; ``metadata`` goes to ``metadata_props``.
    4. The result passes the ONNX checker.

    Raises :class:`ArtifactError` where graph and tensors do not belong together, and
    :class:`ExportError` above 2 GB.
    """
    try:
        model = onnx.ModelProto.FromString(graph)
    except Exception as error:  # protobuf's DecodeError is private to each implementation
        raise ArtifactError(f"the graph section is not an ONNX graph: {error}") from None
    weights = _fill(model.graph, tensors)
    _fold_batch_norms(model.graph, weights)
    if sum(array.nbytes for array in weights.values()) > MAX_BYTES - len(graph) - (1 << 20):
        raise ExportError("the network is over 2 GB, more than one ONNX file can hold")
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in weights.items()
    )
    for position, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{position}"
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"graph and tensors do not make a valid network: {reason}") from None
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _fill(graph: onnx.GraphProto, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Rule 1: take the weights out of the graph's inputs; their arrays by name."""
    weights: dict[str, Array] = {}
    inputs = []
    for item in graph.input:
        if item.name not in tensors:
            inputs.append(item)
            continue
        shape = tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
        if tensors[item.name].shape != shape:
            raise ArtifactError(
                f"{item.name} has shape {tensors[item.name].shape}, the graph expects {shape}"
            )
        weights[item.name] = tensors[item.name]
    lacking = [item.name for item in inputs if not _has_free_batch(item)]
    if lacking or not inputs:
        found = ", ".join(lacking) or "nothing"
        raise ArtifactError(f"with these tensors the graph takes {found}, which no tensor is for")
    del graph.input[:]
    graph.input.extend(inputs)
    return weights


def _has_free_batch(item: onnx.ValueInfoProto) -> bool:
    """Whether a graph input is one of the network's: those, and no tensor, have a free batch."""
    sizes = item.type.tensor_type.shape.dim
    return bool(sizes) and bool(sizes[0].dim_param)


def _fold_batch_norms(graph: onnx.GraphProto, weights: dict[str, Array]) -> None:
    """Rule 2. What is left unused is dropped from ``weights``."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(item.name for item in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        maker = makers.get(norm.input[0])
        if maker is not None and _foldable(maker, norm, readers, weights):
            _fold(maker, norm, weights)
            graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for name in [name for name in weights if name not in used]:
        del weights[name]


def _foldable(
    maker: onnx.NodeProto, norm: onnx.NodeProto, readers: Counter[str], weights: dict[str, Array]
) -> bool:
    attributes = _attributes(maker)
    layout = maker.op_type == "Conv" or (
        maker.op_type == "Gemm"
        and attributes.get("transB") == 1
        and attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    )
    own = [*maker.input[1:], *norm.input[1:]]
    return (
        layout
        and readers[norm.input[0]] == 1
        and len([name for name in norm.output if name]) == 1
        and all(name in weights and readers[name] == 1 for name in own if name)
    )


def _fold(maker: onnx.NodeProto, norm: onnx.NodeProto, weights: dict[str, Array]) -> None:
    gamma, beta, mean, variance = (weights[name].astype(np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(variance + _attributes(norm).get("epsilon", 1e-5))  # (out,)
    weight = weights[maker.input[1]]
    shape = (-1, *[1] * (weight.ndim - 1))  # output channels come first, in Conv and in Gemm
    weights[maker.input[1]] = (weight * scale.reshape(shape)).astype(weight.dtype)
    if len(maker.input) > 2 and maker.input[2]:
        bias, name = weights[maker.input[2]].astype(np.float64), maker.input[2]
    else:
        bias, name = np.zeros_like(mean), norm.input[2]  # reuse the name of the norm's own bias
        maker.input[:] = [*maker.input[:2], name]
    weights[name] = ((bias - mean) * scale + beta).astype(weight.dtype)
    maker.output[0] = norm.output[0]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
