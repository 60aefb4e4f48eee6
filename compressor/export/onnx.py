"""A graph skeleton and decoded tensors -> the dense ONNX file. One deterministic function.

A run's own ONNX file and that of ``compress decompress X.dcz -o Y.onnx`` both come from
:func:`contents`, from the same stored bytes, so they cannot differ.

One protobuf message holds less than 2 GiB. Where weights take more, ``NAME.onnx`` keeps them beside
itself, in ``NAME.onnx.data``, as ONNX's external data: each tensor's bytes, little-endian, at a
multiple of 4096 (https://onnx.ai/onnx/repo-docs/ExternalData.html).
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from compressor.errors import ArtifactError, ExportError
from compressor.files import DATA, Chunks, write_together

Array = NDArray[Any]
MAX_BYTES = (1 << 31) - (1 << 20)
"""Of graph and weights in one file. Protobuf's own limit on one message is 2^31 - 1."""
_ALIGNED, _SMALL = 4096, 1024
"""Where tensors lie in the file beside: pages that can be mapped. Smaller ones stay in the graph,
where whoever reads it looks for constants."""


def fits(size: int) -> bool:
    """Whether one file holds so many bytes of graph and weights."""
    return size <= MAX_BYTES


def build(graph: bytes, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The ONNX file as bytes; see :func:`contents`. Raises :class:`ExportError` over 2 GB."""
    found = contents("network.onnx", graph, tensors, metadata)
    if len(found) > 1:
        raise ExportError("the network is over 2 GB, more than one ONNX file can hold")
    return b"".join(found["network.onnx"])


def write(
    path: Path, graph: bytes, tensors: Mapping[str, Array], metadata: Mapping[str, str]
) -> None:
    """Write the ONNX file, whole or not at all, and its weights beside it where it has to be so."""
    found = contents(path.name, graph, tensors, metadata)
    write_together({path.with_name(name): pieces for name, pieces in found.items()})


def contents(
    name: str, graph: bytes, tensors: Mapping[str, Array], metadata: Mapping[str, str]
) -> dict[str, Chunks]:
    """The ONNX file ``name``, piece by piece, so that a large one need not lie in memory; before
    it, where one file cannot hold all, that of its weights.

    The rules, in order:

    1. Every graph input that is called like a tensor becomes that tensor, as an initializer.
    2. A batch normalisation behind a convolution or linear layer, whose only reader it is, is
       folded into its weight and bias, in float64.
    3. Nodes get names from their operator and position; ``metadata`` goes to ``metadata_props``.
    4. The result passes the ONNX checker.
    5. Weights over 2 GB go to a file of their own.

    Raises :class:`ArtifactError` where graph and tensors do not belong together.
    """
    try:
        model = onnx.ModelProto.FromString(graph)
    except Exception as error:  # protobuf's DecodeError is private to each implementation
        raise ArtifactError(f"the graph section is not an ONNX graph: {error}") from None
    weights = _fill(model.graph, tensors)
    _fold_batch_norms(model.graph, weights)
    for position, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{position}"
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    _check(model, weights)
    if fits(len(graph) + sum(array.nbytes for array in weights.values())):
        return {name: _written(model, weights)}
    outside = {key: array for key, array in weights.items() if array.nbytes >= _SMALL}
    inside = {key: array for key, array in weights.items() if key not in outside}
    _refer(model.graph, outside, name + DATA)
    return {name + DATA: _laid_out(outside), name: _written(model, inside)}


def _refer(graph: onnx.GraphProto, weights: Mapping[str, Array], location: str) -> None:
    """Rule 5: initializers that say where in ``location`` they lie."""
    for name, start in _starts(weights):
        item = _head(name, weights[name])
        item.data_location = TensorProto.EXTERNAL
        length = weights[name].nbytes
        for key, value in (("location", location), ("offset", start), ("length", length)):
            item.external_data.add(key=key, value=str(value))
        graph.initializer.append(item)


def _laid_out(weights: Mapping[str, Array]) -> Chunks:
    end = 0
    for name, start in _starts(weights):
        yield bytes(start - end)
        yield _values(weights[name])
        end = start + weights[name].nbytes


def _starts(weights: Mapping[str, Array]) -> Iterator[tuple[str, int]]:
    """Where each tensor begins in the file beside."""
    end = 0
    for name, array in weights.items():
        start = end + -end % _ALIGNED
        yield name, start
        end = start + array.nbytes


def renamed(model: bytes, name: str) -> bytes:
    """An ONNX file whose weights lie beside it as it is under another name."""
    found = onnx.ModelProto.FromString(model)
    for item in found.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = name + DATA
    content: bytes = found.SerializeToString(deterministic=True)
    return content


def _check(model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Rule 4, of the graph with its weights as inputs: the checker copies what it checks."""
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in weights.items()
    ]
    own = len(model.graph.input)
    model.graph.input.extend(inputs)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"graph and tensors do not make a valid network: {reason}") from None
    finally:
        del model.graph.input[own:]


def _written(model: onnx.ModelProto, weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The model with its weights as protobuf writes it, fields by number, tensor by tensor.

    One message of it all would hold every weight a second time, and its bytes a third.
    """
    head, tail = onnx.GraphProto(), onnx.GraphProto()
    head.CopyFrom(model.graph)
    for field in ("doc_string", "input", "output", "value_info", "quantization_annotation"):
        head.ClearField(field)  # numbered above the initializers
    tail.CopyFrom(model.graph)
    for field in ("node", "name", "initializer"):
        tail.ClearField(field)
    around = onnx.ModelProto()
    around.CopyFrom(model)
    around.ClearField("graph")
    before, after = onnx.ModelProto(), onnx.ModelProto()
    before.CopyFrom(around)
    for field in ("opset_import", "metadata_props", "training_info", "functions"):
        before.ClearField(field)  # numbered above the graph
    after.opset_import.extend(around.opset_import)
    after.metadata_props.extend(around.metadata_props)
    parts: list[bytes | memoryview] = [head.SerializeToString(deterministic=True)]
    for name, array in weights.items():
        parts += _tensor(name, array)
    parts.append(tail.SerializeToString(deterministic=True))
    yield before.SerializeToString(deterministic=True)
    yield _tag(_GRAPH) + _varint(sum(map(len, parts)))
    yield from parts
    yield after.SerializeToString(deterministic=True)


_GRAPH, _INITIALIZER, _NAME, _RAW = 7, 5, 8, 9
"""Numbers of fields: ModelProto.graph, GraphProto.initializer, TensorProto.name and .raw_data."""


def _tensor(name: str, array: Array) -> list[bytes | memoryview]:
    """One initializer of a graph, its values last."""
    lead, values = _head(name, array).SerializeToString(deterministic=True), _values(array)
    raw = _tag(_RAW) + _varint(len(values))
    size = len(lead) + len(raw) + len(values)
    return [_tag(_INITIALIZER) + _varint(size) + lead + raw, values]


def _head(name: str, array: Array) -> TensorProto:
    """A tensor's name, type and shape."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(name=name, data_type=kind, dims=array.shape)


def _values(array: Array) -> memoryview:
    """A tensor's bytes, little-endian."""
    order = array.dtype.byteorder
    if order == ">" or (order == "=" and sys.byteorder == "big"):
        array = array.byteswap()
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _tag(field: int) -> bytes:
    return _varint(field << 3 | 2)  # 2: a length, and so many bytes


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


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
