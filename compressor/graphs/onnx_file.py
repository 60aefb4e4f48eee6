"""An ONNX file -> a checked graph: what can be wrong with a file is said here, in one line each."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, inliner, numpy_helper

from compressor.errors import LoadError

STANDARD = ("", "ai.onnx")
OLDEST, NEWEST = 7, 25
"""Versions of the standard operators that are read."""
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")
_EXPORT = "export the float network"


def parse(path: Path) -> onnx.ModelProto:
    """The file without what is stored beside it. Raises :class:`LoadError` where it is no ONNX."""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:  # protobuf's DecodeError is private to each implementation
        raise LoadError(
            f"{path} is no ONNX file, or only the beginning of one "
            f"({type(error).__name__}): export it again"
        ) from None
    if not model.graph.node:
        raise LoadError(f"{path} holds no ONNX graph: export it again")
    if any(opset.domain in STANDARD for opset in model.opset_import):
        return model
    raise LoadError(f"{path} does not say which version of the ONNX operators it uses")


def read(path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    """The whole network, its weights in memory, functions in line, its graph checked; and the files
    beside it that weights lay in.

    With those in memory it may be over 2 GB, more than protobuf writes. Raises :class:`LoadError`
    for a file that is damaged, lacks its weights, has operators outside the standard, runs in a
    circle, or is quantized already.
    """
    model = parse(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    outside = _external(path, model.graph)
    try:
        onnx.load_external_data_for_model(model, os.fspath(path.resolve().parent))
    except MemoryError:
        raise
    except Exception as error:  # onnx's checks of the place raise errors of several kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise LoadError(f"{path}: its weights cannot be read ({reason})") from None
    _check_nodes(path, model.graph)
    _check_order(path, model.graph)
    return model, outside


def version(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next(int(item.version) for item in model.opset_import if item.domain in STANDARD)


def external_names(graph: onnx.GraphProto) -> list[str]:
    """The files that weights lie in, beside this one."""
    found: dict[str, None] = {}
    for item in graph.initializer:
        if item.data_location == TensorProto.EXTERNAL:
            found |= {e.value: None for e in item.external_data if e.key == "location"}
    return list(found)


def _external(path: Path, graph: onnx.GraphProto) -> list[Path]:
    found = external_names(graph)
    for name in found:
        place = (path.parent / name).resolve()
        if not place.is_relative_to(path.resolve().parent):
            raise LoadError(f"{path} keeps weights outside its own folder, in {name[:100]!r}")
        if not place.is_file():
            raise LoadError(
                f"{path} keeps its weights in {name[:100]!r}, which is not beside it: copy both"
            )
    return [path.parent / name for name in found]


def _check_nodes(path: Path, graph: onnx.GraphProto) -> None:
    for node in graph.node:
        where = f"{path}: node {(node.name or node.output[0])[:80]!r}"
        if node.domain not in STANDARD:
            raise LoadError(
                f"{where} is {node.op_type} of the domain {node.domain!r}, which only its own "
                "runtime knows: export with standard ONNX operators"
            )
        if node.op_type in _QUANTIZED:
            raise LoadError(f"{where} is {node.op_type}: the file is quantized already; {_EXPORT}")
        if node.op_type in _CONTROL:
            raise LoadError(
                f"{where} is {node.op_type}: the network's course depends on its input; export "
                "it with that choice made"
            )


def _check_order(path: Path, graph: onnx.GraphProto) -> None:
    """Every value is made before it is used: so the graph has no circle and lacks nothing."""
    made = {item.name for item in (*graph.input, *graph.initializer)} | {""}
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name not in made:
                why = (
                    "made only later: the graph runs in a circle"
                    if name in later
                    else "made nowhere"
                )
                label = (node.name or node.op_type)[:80]
                raise LoadError(f"{path}: node {label!r} uses {name[:80]!r}, which is {why}")
        made |= set(node.output)
    for item in graph.output:
        if item.name not in made:
            raise LoadError(f"{path}: the output {item.name[:80]!r} is made nowhere")


def arrays(path: Path, graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """Initializers by name; each is dropped from the graph once it is read, so none is kept twice.

    Raises :class:`LoadError` for numbers that are not finite, and for types torch lacks.
    """
    for item in graph.initializer:
        name = item.name
        try:
            found = numpy_helper.to_array(item)
        except Exception as error:  # numpy's and onnx's own, for data that does not fit its shape
            raise LoadError(f"{path}: the weight {name[:80]!r} is damaged ({error})") from None
        if found.dtype.kind not in "fiub":
            raise LoadError(f"{path}: the weight {name[:80]!r} holds {found.dtype}: {_EXPORT}")
        if found.dtype.kind == "f" and not np.isfinite(found).all() and found.size > 1:
            bad = "NaN" if np.isnan(found).any() else "infinite values"
            raise LoadError(f"{path}: {name} contains {bad}; the training that made it diverged")
        item.Clear()
        yield name, found


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as plain values; tensors as arrays."""
    found: dict[str, Any] = {}
    for item in node.attribute:
        value = onnx.helper.get_attribute_value(item)
        if item.type == AttributeProto.TENSOR:
            value = numpy_helper.to_array(value)
        elif item.type == AttributeProto.STRING:
            value = value.decode("utf-8", "replace")
        elif item.type in (AttributeProto.INTS, AttributeProto.FLOATS):
            value = list(value)
        found[item.name] = value
    return found


def plain(name: str) -> str:
    """A name of ONNX's as one of torch's: words joined by dots."""
    words = [re.sub(r"\W", "_", word) for word in name.strip("/").split(".")]
    return ".".join(word for word in words if word) or "weight"
