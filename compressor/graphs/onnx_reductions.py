"""ONNX operators that reduce values along axes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.graphs.onnx_operators import (
    Step,
    Unsupported,
    Value,
    axes_of,
    integers,
    known,
    register,
    tensor,
)

_REDUCTIONS: dict[str, Any] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceL2": lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim),
    "ReduceL1": lambda x, axes, keepdim: torch.linalg.vector_norm(x, 1, axes, keepdim),
    "ReduceSumSquare": lambda x, axes, keepdim: torch.sum(x * x, axes, keepdim),
}
_ON_ARRAYS = {"ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod}


@register(*_REDUCTIONS, "ReduceProd")
def _reduce(step: Step, x: Value, axes: Value = None) -> Value:
    found, keep = axes_of(step, axes), bool(step.get("keepdims", 1))
    on_arrays: Any = _ON_ARRAYS.get(step.operator)
    if not found and step.get("noop_with_empty_axes", 0):
        return x
    if known(x) and on_arrays is not None:
        return np.asarray(on_arrays(x, axis=tuple(found) if found else None, keepdims=keep))
    where = found or list(range(x.ndim))
    if step.operator == "ReduceProd":
        for at in sorted((axis % x.ndim for axis in where), reverse=True):
            x = x.prod(at, keepdim=keep)
        return x
    return _REDUCTIONS[step.operator](tensor(x), where, keepdim=keep)


@register("ArgMax", "ArgMin")
def _arg(step: Step, x: Tensor) -> Tensor:
    if step.get("select_last_index", 0):
        raise Unsupported("the last of equal ones")
    function = torch.argmax if step.operator == "ArgMax" else torch.argmin
    return function(x, step.get("axis", 0), keepdim=bool(step.get("keepdims", 1)))


@register("TopK")
def _topk(step: Step, x: Tensor, k: Value) -> tuple[Tensor, Tensor]:
    count = integers(k, "k")[0]
    values, at = torch.topk(x, count, step.get("axis", -1), bool(step.get("largest", 1)))
    return values, at
