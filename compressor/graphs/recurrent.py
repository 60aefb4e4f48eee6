"""Recurrent layers of ONNX as torch's own, and of an exported graph back as layers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.graphs.onnx_operators import OPERATORS, Step, Unsupported

# Rows of W, R and B by gate, in ONNX's order: where torch's order finds its gates.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_KINDS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def with_weights(steps: list[Step], arrays: dict[str, NDArray[Any]]) -> list[Step]:
    """Recurrent steps whose weights are there, where the file computes them of constants.

    torch's exporter keeps the weights as torch has them, and puts gates in ONNX's order by slices
    and concatenations. What these compute goes into ``arrays``, under the name of its first weight,
    and their steps are gone.
    """
    makers = {name: step for step in steps for name in step.outputs}
    spent: set[str] = set()
    new: dict[str, NDArray[Any]] = {}
    left = []
    for step in steps:
        inputs = list(step.inputs)
        for slot in range(1, min(4, len(inputs))) if step.operator in _KINDS else ():
            found = _computed(inputs[slot], makers, arrays, spent)
            if found is not None and inputs[slot] not in arrays:
                inputs[slot], new[found[0]] = found
        left.append(Step(**{**vars(step), "inputs": tuple(inputs)}))
    arrays |= new
    read: set[str] = set()
    kept = []
    for step in reversed(left):
        if not spent.issuperset(step.outputs) or read.intersection(step.outputs):
            read |= set(step.inputs)
            kept.append(step)
    return kept[::-1]


def _computed(
    name: str, makers: dict[str, Step], arrays: dict[str, NDArray[Any]], spent: set[str]
) -> tuple[str, NDArray[Any]] | None:
    """(first weight, value) of what constants make; ``spent`` gathers what stands in between."""
    if name in arrays:
        return name, arrays[name]
    step = makers.get(name)
    if step is None or not step.inputs or len(step.outputs) > 1:
        return None
    values = [_computed(each, makers, arrays, spent) for each in step.inputs]
    if any(value is None for value in values):
        return None
    spent.add(name)
    known = [value for value in values if value is not None]
    return known[0][0], np.asarray(OPERATORS[step.operator](step, *(array for _, array in known)))


def recurrent(
    step: Step, w: NDArray[Any], r: NDArray[Any], b: NDArray[Any] | None = None
) -> nn.RNNBase:
    """torch's layer with ONNX's weights: W (directions, gates x hidden, features), R
    (directions, gates x hidden, hidden), B (directions, 2 x gates x hidden).

    ONNX orders an LSTM's gates i o f c, torch i f g o; a GRU's z r h, torch r z n. Raises
    :class:`Unsupported` for what torch's layer does not compute.
    """
    directions, hidden = w.shape[0], r.shape[2]
    usual = _USUAL[step.operator] * directions
    if [each.lower() for each in step.get("activations", usual)] != [u.lower() for u in usual]:
        raise Unsupported("other activations than the usual")
    if step.get("direction", "forward") == "reverse":
        raise Unsupported("one direction, backwards")
    if step.operator == "GRU" and not step.get("linear_before_reset", 0):
        raise Unsupported("a reset gate before the product (linear_before_reset = 0)")
    if (
        step.get("clip")
        or step.get("input_forget")
        or step.get("layout")
        or step.inputs[7:8] not in ((), ("",))
    ):
        raise Unsupported("clipping, coupled gates, peepholes or batch-first layout")
    layer: nn.RNNBase = _KINDS[step.operator](
        w.shape[2], hidden, bias=b is not None, bidirectional=directions == 2
    )
    with torch.no_grad():
        for at, suffix in enumerate(("", "_reverse")[:directions]):
            halves = {} if b is None else dict(zip(("ih", "hh"), np.split(b[at], 2), strict=True))
            for side, weight in (("ih", w[at]), ("hh", r[at])):
                _copy(layer, f"weight_{side}_l0{suffix}", weight, step.operator, hidden)
                if halves:
                    _copy(layer, f"bias_{side}_l0{suffix}", halves[side], step.operator, hidden)
    return layer


def _copy(layer: nn.Module, name: str, rows: NDArray[Any], operator: str, hidden: int) -> None:
    gates = rows.reshape(-1, hidden, *rows.shape[1:])[list(_ORDER[operator])]
    getattr(layer, name).copy_(torch.from_numpy(gates.reshape(rows.shape).astype(np.float32)))
