"""The ONNX file -> one whose weights and values are float16, by ONNX Runtime's converter.

Half the bytes, for GPUs and NPUs that compute in half precision. Input and output stay float32,
so it takes the place of the ONNX file without a change around it. ONNX Runtime's CPU kernels are
mostly float32: there it converts back and forth, and is no faster. Operators that have no float16
form, or lose by it, stay float32 between casts (the converter's own list).

What is measured there is the rounding of the weights, and of values where they change hands; a
device whose sums are float16 too may differ by more.
"""

import onnx

from compressor.errors import ExportError
from compressor.export import verify

TOLERANCE = 0.02
"""Of the largest output: forty roundings to 11 bits, all to one side."""


def convert(model: bytes) -> bytes:
    """The float16 file of an ONNX file: the same bytes for the same file and ONNX Runtime.

    Weights beyond float16's range, 65,504, become the largest there is. Raises
    :class:`ExportError` where the converter fails.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        proto = convert_float_to_float16(onnx.ModelProto.FromString(model), keep_io_types=True)
    except Exception as error:  # a converter of graphs may fail in any way
        raise ExportError(
            f"ONNX Runtime cannot convert the network to float16: {verify.first_line(error)}"
        ) from None
    _sort(proto.graph)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _sort(graph: onnx.GraphProto) -> None:
    """Every node behind those that it reads, as ONNX asks; the converter puts its casts last."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[int, onnx.NodeProto] = {}
    stack = list(reversed(graph.node))
    while stack:
        node = stack[-1]
        unread = [makers[name] for name in node.input if name in makers]
        unread = [maker for maker in unread if id(maker) not in ordered]
        stack += unread
        if not unread:
            ordered.setdefault(id(node), stack.pop())
    nodes = list(ordered.values())
    del graph.node[:]
    graph.node.extend(nodes)
