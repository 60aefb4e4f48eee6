"""MACs, bytes and time of every layer, from ONNX Runtime's profile of the graph.

Counting runs the file once as it is, with every optimisation off, since the profile then has one
event a node with the true shape of each input and output, whatever the file declares. Timing runs
it as usual, fused and laid out as this CPU likes, and finds of each kernel which layer it is.

One multiply-add is one MAC. Of an output of ``n`` values, each is the sum of

* Conv: as many products as a filter has weights, ``weight.size / out_channels``;
* ConvTranspose: counted by its inputs, each of which meets ``weight.size / in_channels``;
* Gemm, MatMul: the inner dimension.

Biases, norms, activations and poolings multiply and add too, but are no MACs: what
``torch.utils.flop_counter`` counts, halved.
"""

import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.harness import runtimes
from compressor.benchmarks.harness.graphs import PRODUCTS, Graph, Node, from_onnx, from_ort
from compressor.benchmarks.harness.inputs import shapes_of, values_of
from compressor.benchmarks.harness.subjects import Subject

Json = dict[str, Any]
Shape = tuple[int, ...]
WIDTHS = {
    "float": 4,
    "float16": 2,
    "bfloat16": 2,
    "double": 8,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
DENSE_SESSION = {"session.disable_prepacking": "1"}  # a weight that was packed has no shape


@dataclass
class Layer:
    """One layer for one input of the batch: what it computes, holds and moves.

    ``bytes`` are those that must move if nothing stays in a cache: inputs, weights and outputs.
    """

    name: str
    op: str
    macs: int = 0
    parameters: int = 0
    nonzero: int = 0
    bytes: int = 0
    outputs: set[str] = field(default_factory=set)

    def row(self) -> Json:
        return {
            "layer": self.name,
            "op": self.op,
            "macs": self.macs,
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "bytes_moved": self.bytes,
            "macs_per_byte": self.macs / self.bytes if self.bytes else 0.0,
        }


def read_graph(subject: Subject) -> tuple[bytes, Graph]:
    content = runtimes.model_bytes(subject)
    return content, from_ort(content) if subject.kind == "ort" else from_onnx(content)


def counted(subject: Subject) -> tuple[Graph, list[Layer]]:
    """Every layer of a file in the order in which it runs; a layer that runs twice is one."""
    content, graph = read_graph(subject)
    events = profile(content, subject, calls=1, optimised=False)
    layers: dict[str, Layer] = {}
    for event in events:
        node = _node_of(event, graph)
        if event.op not in PRODUCTS:
            continue
        name, names = graph.layer_of(node) if node is not None else (event.name, ())
        layer = layers.setdefault(name, Layer(name, event.op))
        if not layer.outputs:
            held = [graph.weights[each] for each in names]
            layer.parameters = sum(each.size for each in held)
            layer.nonzero = sum(int(np.count_nonzero(each)) for each in held)
        layer.macs += macs_of(event)
        layer.bytes += event.bytes
        layer.outputs.update(node.outputs if node is not None else ())
    return graph, list(layers.values())


@dataclass(frozen=True)
class Event:
    """One run of one kernel: shapes and bytes of its inputs and outputs, and microseconds."""

    name: str
    op: str
    index: int
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    bytes: int
    microseconds: int


def macs_of(event: Event) -> int:
    """By the formulas at the top of the module. Shapes: batch first, channels second."""
    ((first, *_), place) = PRODUCTS[event.op]
    one, weight, out = event.inputs[first], event.inputs[place], event.outputs[0]
    if event.op == "ConvTranspose":
        return math.prod(one) * math.prod(weight[1:])
    if "Conv" in event.op:
        return math.prod(out) * math.prod(weight[1:])
    if "Gemm" in event.op:
        return math.prod(out) * (math.prod(one) // out[0])
    return math.prod(out) * one[-1]


def profile(
    content: bytes,
    subject: Subject,
    *,
    calls: int,
    optimised: bool,
    batch: int = 1,
    threads: int = 1,
) -> list[Event]:
    """The kernels of ``calls`` calls in the order in which they ran, after as many to warm up."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:

        def change(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "profile")
            if not optimised:
                level = onnxruntime.GraphOptimizationLevel
                options.graph_optimization_level = level.ORT_DISABLE_ALL
                for key, value in DENSE_SESSION.items():
                    options.add_session_config_entry(key, value)

        session = runtimes.open_session(content, threads, change=change)
        declared = runtimes.declared_inputs(session)
        inputs = values_of(declared, shapes_of(declared, subject.shapes, batch))
        for _ in range(2 * calls if optimised else calls):
            session.run(None, inputs)
        record = json.loads(Path(session.end_profiling()).read_text())
    events = [_event(item) for item in record if _is_kernel(item)]
    return events[len(events) // 2 :] if optimised else events


def _is_kernel(item: Json) -> bool:
    return item.get("cat") == "Node" and item["name"].endswith("_kernel_time")


def _event(item: Json) -> Event:
    arguments = item["args"]
    moved = 0
    shapes: list[list[Shape]] = [[], []]
    for place, key in enumerate(("input_type_shape", "output_type_shape")):
        for entry in arguments.get(key, []):
            for dtype, sizes in entry.items():
                shapes[place].append(tuple(sizes))
                moved += math.prod(sizes) * WIDTHS.get(dtype, 4)
    return Event(
        item["name"].removesuffix("_kernel_time"),
        arguments["op_name"],
        int(arguments.get("node_index", -1)),
        tuple(shapes[0]),
        tuple(shapes[1]),
        moved,
        item["dur"],
    )


def _node_of(event: Event, graph: Graph) -> Node | None:
    """The node of the file, where the runtime has kept the numbering."""
    if 0 <= event.index < len(graph.nodes) and graph.nodes[event.index].op == event.op:
        return graph.nodes[event.index]
    named = [node for node in graph.nodes if node.name == event.name and node.op == event.op]
    return named[0] if named else None


# ---- time --------------------------------------------------------------------------------------


def timed(
    subject: Subject, layers: Sequence[Layer], graph: Graph, calls: int, batch: int, threads: int
) -> tuple[dict[str, float], float]:
    """(median milliseconds by layer, of a whole call as the sum of its kernels).

    Kernels that are no layer's stand under the name of their operator in brackets.
    """
    content = runtimes.model_bytes(subject)
    events = profile(content, subject, calls=calls, optimised=True, batch=batch, threads=threads)
    kernels = len(events) // calls
    names = Matching(graph, layers).names(events[:kernels])
    times = np.array([event.microseconds for event in events], float).reshape(calls, kernels)
    sums: dict[str, Any] = {}
    for column, name in enumerate(names):
        sums[name] = sums.get(name, 0.0) + times[:, column]
    return {name: float(np.median(each)) / 1e3 for name, each in sums.items()}, float(
        np.median(times.sum(1))
    ) / 1e3


class Matching:
    """Which layer a kernel of the optimised graph is.

    ONNX Runtime fuses a convolution with what follows it, and names the new node after the old one
    ("fused Conv_3") or after the value that it now makes ("v7_nchwc"), which is that of the last
    node fused. So from a value one goes back to the layers it is made of, without going through
    another layer; if there are several, as at the sum of a residual block, the kernel is the one
    that no earlier kernel was, as it could not run before the others had.
    """

    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self.by_name = {node.name: node for node in graph.nodes if node.name}
        self.makers = {name: node for node in graph.nodes for name in node.outputs}
        self.layer_at = {value: layer.name for layer in layers for value in layer.outputs}
        self.claimed: set[str] = set()

    def names(self, events: Sequence[Event]) -> list[str]:
        return [self._name(event) for event in events]

    def _name(self, event: Event) -> str:
        if not any(word in event.op for word in ("Conv", "Gemm", "MatMul")):
            return f"({event.op})"
        plain = re.sub(
            r"(_nchwc|_token_\d+|/\w*Fusion\w*/?|_\d+_quant\w*|_quant)+$", "", event.name
        )
        plain = plain.removeprefix("fused ")
        node = self.by_name.get(plain) or self.by_name.get(event.name)
        start = node.outputs[0] if node is not None else plain
        found = [value for value in self._layers_above(start) if value not in self.claimed]
        if not found:
            return f"({event.op})"
        self.claimed.add(found[0])
        return self.layer_at[found[0]]

    def _layers_above(self, value: str) -> list[str]:
        """Outputs of layers that a value is made of, the latest first."""
        found, seen, waiting = [], set(), [value]
        while waiting:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            if name in self.layer_at:
                found.append(name)
            elif name in self.makers:
                waiting.extend(each for each in self.makers[name].inputs if each)
        return found
