"""The graph of an ONNX or .ort file: its nodes, its weights, and which layer a node is.

Both kinds become the same plain data. A layer is named after its weight as the network's class
names it: the node that reads ``layer1.0.conv1.weight`` is ``layer1.0.conv1``, so that layers of a
checkpoint, of its export, and of its compressed form have one name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import LoadError

Array = NDArray[Any]

# Operators that multiply and add -> which of their inputs hold activations, and the weight's place
PRODUCTS = {
    "Conv": ((0,), 1),
    "FusedConv": ((0,), 1),
    "ConvTranspose": ((0,), 1),
    "ConvInteger": ((0,), 1),
    "QLinearConv": ((0,), 3),
    "Gemm": ((0,), 1),
    "FusedGemm": ((0,), 1),
    "QGemm": ((0,), 3),
    "MatMul": ((0,), 1),
    "FusedMatMul": ((0,), 1),
    "MatMulInteger": ((0,), 1),
    "DynamicQuantizeMatMul": ((0,), 1),
    "QLinearMatMul": ((0,), 3),
}
PASSES = ("Transpose", "Reshape", "Identity", "Cast", "DequantizeLinear", "QuantizeLinear")
_SUFFIX = re.compile(r"(?:[._]?(?:weight|kernel))?(?:_quantized)?$")


@dataclass(frozen=True)
class Node:
    """One operator; empty names stand for inputs that were left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of the file, and initializers by name."""

    nodes: tuple[Node, ...]
    weights: dict[str, Array]

    @cached_property
    def parameters(self) -> dict[str, Array]:
        """The weights and biases: what training would learn.

        Not the constants of shapes (64-bit integers, scalars), scales and zero points of
        quantization, or the statistics of batch norms.
        """
        others: set[str] = set()
        for node in self.nodes:
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                others.update(node.inputs[1:])
            if node.op == "BatchNormalization":
                others.update(node.inputs[3:5])
        return {
            name: value
            for name, value in self.weights.items()
            if value.ndim and value.dtype != np.int64 and name not in others
        }

    def source(self, name: str) -> str | None:
        """The initializer that a value is a mere change of form of, or None."""
        while name not in self.weights:
            maker = self._makers.get(name)
            if maker is None or maker.op not in PASSES:
                return None
            name = maker.inputs[0]
        return name

    def layer_of(self, node: Node) -> tuple[str, tuple[str, ...]]:
        """(name of the layer, its parameters' names) of a node that multiplies and adds."""
        place = PRODUCTS[node.op][1]
        weight = self.source(node.inputs[place]) if len(node.inputs) > place else None
        own = [self.source(name) for name in node.inputs if name]
        kept = tuple(dict.fromkeys(name for name in own if name in self.parameters))
        if weight is None or re.fullmatch(r"(v|val_|onnx::\w+_|_)?\d+", weight):
            return node.name or node.outputs[0], kept
        return _SUFFIX.sub("", weight) or weight, kept

    @cached_property
    def _makers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs}


def from_onnx(content: bytes) -> Graph:
    """Raises :class:`LoadError` for what is no ONNX file."""
    import onnx
    from onnx import numpy_helper

    try:
        proto = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError is private to each implementation
        raise LoadError(f"not an ONNX file: {error}") from None
    weights = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    nodes = tuple(
        Node(node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in proto.graph.node
    )
    constants = {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    return Graph(nodes, {**constants, **weights})


# The types of ONNX's TensorProto that weights come in
_TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}


def from_ort(content: bytes) -> Graph:
    """The graph of an .ort file, by ONNX Runtime's own reader of its flatbuffer."""
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import InferenceSession

    if content[4:8] != b"ORTM":
        raise LoadError("not an .ort file: its identifier is missing")
    flat = InferenceSession.InferenceSession.GetRootAs(content, 0).Model().Graph()
    weights = {}
    for position in range(flat.InitializersLength()):
        item = flat.Initializers(position)
        dtype = _TYPES.get(item.DataType())
        if dtype is not None and item.RawDataLength():
            raw = item.RawDataAsNumpy().tobytes()
            shape = tuple(item.Dims(axis) for axis in range(item.DimsLength()))
            weights[item.Name().decode()] = np.frombuffer(raw, dtype).reshape(shape)
    return Graph(tuple(_flat_nodes(flat)), weights)


def _flat_nodes(flat: Any) -> Iterator[Node]:
    for position in range(flat.NodesLength()):
        item = flat.Nodes(position)
        yield Node(
            item.Name().decode(),
            item.OpType().decode(),
            tuple(item.Inputs(k).decode() for k in range(item.InputsLength())),
            tuple(item.Outputs(k).decode() for k in range(item.OutputsLength())),
        )
