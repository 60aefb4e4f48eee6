"""Nodes of an ONNX file as steps, and what of them constants alone decide."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compressor.graphs import onnx_file
from compressor.graphs.onnx_operators import OPERATORS, Step
from compressor.graphs.recurrent import with_weights

Arrays = dict[str, NDArray[Any]]


def step_of(node: onnx.NodeProto, opset: int, batch: int | None) -> Step:
    """A node of a file whose operators are of version ``opset``."""
    return Step(
        node.op_type,
        node.name,
        tuple(node.input),
        tuple(node.output),
        onnx_file.attributes(node),
        opset,
        batch,
    )


def folded(steps: list[Step], arrays: Arrays) -> list[Step]:
    """What constants alone decide is decided; products with a weight are linear layers.

    1. ``Constant``, and ``Identity``, ``Transpose`` and ``Cast`` of a weight, become weights.
    2. ``Gemm`` and ``MatMul`` with a weight, which has no other use, are ``Linear``: it lies
       as torch has it, (out, in).
    3. An ``Add`` of a vector behind such a product, its only reader, is its bias.
    """
    left: list[Step] = []
    for step in steps:
        name = step.outputs[0]
        if step.operator == "Constant":
            arrays[name] = np.asarray(OPERATORS["Constant"](step))
        elif step.operator in ("Identity", "Transpose", "Cast") and step.inputs[0] in arrays:
            arrays[name] = np.asarray(OPERATORS[step.operator](step, arrays[step.inputs[0]]))
        else:
            left.append(step)
    left = with_weights(left, arrays)
    readers = Counter(name for step in left for name in step.inputs)
    found: list[Step] = []
    makers: dict[str, int] = {}
    for step in left:
        linear = _linear(step, arrays, readers)
        biased = _biased(step, found, makers, arrays, readers)
        if biased is not None:
            at, whole = biased
            found[at] = whole
            makers[whole.outputs[0]] = at
            continue
        if linear is not None:
            makers[step.outputs[0]] = len(found)
        found.append(linear or step)
    return found


def _linear(step: Step, arrays: Arrays, readers: Counter[str]) -> Step | None:
    if step.operator not in ("Gemm", "MatMul") or len(step.inputs) < 2:
        return None
    name = step.inputs[1]
    weight = arrays.get(name)
    if weight is None or weight.ndim != 2 or readers[name] != 1 or step.inputs[0] in arrays:
        return None
    ones = step.get("alpha", 1.0) == step.get("beta", 1.0) == 1.0
    bias = arrays.get(step.inputs[2]) if len(step.inputs) > 2 else None
    vector = len(step.inputs) < 3 or (bias is not None and bias.ndim == 1 and bias.size > 1)
    if not ones or step.get("transA", 0) or not vector:
        return None
    if not step.get("transB", 0):
        arrays[name] = np.ascontiguousarray(weight.T)
    if bias is not None and bias.shape != arrays[name].shape[:1]:
        return None
    return Step(**{**vars(step), "operator": "Linear", "attributes": {}})


def _biased(
    step: Step,
    found: list[Step],
    makers: dict[str, int],
    arrays: Arrays,
    readers: Counter[str],
) -> tuple[int, Step] | None:
    """(place, linear layer with this ``Add`` as its bias)."""
    if step.operator != "Add":
        return None
    for product, other in (step.inputs, step.inputs[::-1]):
        bias, at = arrays.get(other), makers.get(product)
        if bias is None or at is None or readers[product] != 1 or readers[other] != 1:
            continue
        layer = found[at]
        out = arrays[layer.inputs[1]].shape[0]
        if len(layer.inputs) == 2 and bias.shape == (out,) and bias.dtype.kind == "f" and out > 1:
            inputs = (*layer.inputs, other)
            return at, Step(**{**vars(layer), "inputs": inputs, "outputs": step.outputs})
    return None
