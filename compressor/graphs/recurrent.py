"""Recurrent layers of ONNX as torch's own, and of an exported graph back as layers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.graphs.onnx_operators import Step, Unsupported

# Rows of W, R and B by gate, in ONNX's order: where torch's order finds its gates.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_KINDS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


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
