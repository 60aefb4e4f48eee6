"""ONNX operators on each element by itself, casts and running sums."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compressor.graphs.onnx_operators import (
    OPERATORS,
    Operator,
    Step,
    Unsupported,
    Value,
    integers,
    known,
    operand,
    register,
    tensor,
)

_UNARY: dict[str, tuple[Operator, Operator | None]] = {
    "Relu": (functional.relu, None),
    "Sigmoid": (torch.sigmoid, None),
    "Tanh": (torch.tanh, None),
    "Exp": (torch.exp, np.exp),
    "Log": (torch.log, np.log),
    "Sqrt": (torch.sqrt, np.sqrt),
    "Neg": (torch.neg, np.negative),
    "Abs": (torch.abs, np.abs),
    "Erf": (torch.erf, None),
    "Floor": (torch.floor, np.floor),
    "Ceil": (torch.ceil, np.ceil),
    "Round": (torch.round, np.round),
    "Reciprocal": (torch.reciprocal, np.reciprocal),
    "Sin": (torch.sin, np.sin),
    "Cos": (torch.cos, np.cos),
    "Sign": (torch.sign, np.sign),
    "Softplus": (functional.softplus, None),
    "Softsign": (functional.softsign, None),
    "Mish": (functional.mish, None),
    "HardSwish": (functional.hardswish, None),
    "Not": (torch.logical_not, np.logical_not),
    "IsNaN": (torch.isnan, None),
    "IsInf": (torch.isinf, None),
}

_BINARY: dict[str, tuple[Operator, Operator]] = {
    "Add": (torch.add, operator.add),
    "Sub": (torch.sub, operator.sub),
    "Mul": (torch.mul, operator.mul),
    "Pow": (torch.pow, operator.pow),
    "Equal": (torch.eq, operator.eq),
    "Greater": (torch.gt, operator.gt),
    "Less": (torch.lt, operator.lt),
    "GreaterOrEqual": (torch.ge, operator.ge),
    "LessOrEqual": (torch.le, operator.le),
    "And": (torch.logical_and, operator.and_),
    "Or": (torch.logical_or, operator.or_),
}


def _unary(on_tensors: Operator, on_arrays: Operator | None) -> Operator:
    def compute(step: Step, x: Value) -> Value:
        if known(x) and on_arrays is not None:
            return np.asarray(on_arrays(x))
        return on_tensors(tensor(x))

    return compute


def _both(function: Operator, a: Value, b: Value) -> Any:
    """A torch function on two values, of which one may be a known array."""
    if isinstance(a, Tensor):
        return function(a, operand(b, a))
    left = operand(a, b)
    if not isinstance(left, Tensor):  # most functions want a tensor on the left
        left = torch.full((), left, dtype=b.dtype, device=b.device)
    return function(left, b)


def _binary(on_tensors: Operator, on_arrays: Operator) -> Operator:
    def compute(step: Step, a: Value, b: Value) -> Value:
        if known(a) and known(b):
            return np.asarray(on_arrays(a, b))
        return _both(on_tensors, a, b)

    return compute


OPERATORS.update({name: _unary(*pair) for name, pair in _UNARY.items()})
OPERATORS.update({name: _binary(*pair) for name, pair in _BINARY.items()})


@register("Div")
def _div(step: Step, a: Value, b: Value) -> Value:
    if known(a) and known(b):
        whole = all(item.dtype == object or item.dtype.kind in "iu" for item in (a, b))
        return np.asarray(a // b if whole else a / b)
    floating = any(isinstance(v, Tensor) and v.is_floating_point() for v in (a, b))
    mode = None if floating else "trunc"
    return _both(lambda x, y: torch.div(x, y, rounding_mode=mode), a, b)


@register("Mod")
def _mod(step: Step, a: Value, b: Value) -> Value:
    if known(a) and known(b):
        return np.asarray(a % b)
    return _both(torch.fmod if step.get("fmod", 0) else torch.remainder, a, b)


@register("Max", "Min", "Sum", "Mean")
def _variadic(step: Step, *values: Value) -> Value:
    pairs: dict[str, tuple[Operator, Operator]] = {
        "Max": (torch.maximum, np.maximum),
        "Min": (torch.minimum, np.minimum),
        "Sum": (torch.add, operator.add),
        "Mean": (torch.add, operator.add),
    }
    on_tensors, on_arrays = pairs[step.operator]
    total = values[0]
    for value in values[1:]:
        if known(total) and known(value):
            total = np.asarray(on_arrays(total, value))
        else:
            a, b = (total, value) if isinstance(total, Tensor) else (value, total)
            other = b if isinstance(b, Tensor) else tensor(b, a).to(a.dtype)
            total = on_tensors(a, other)
    return total / len(values) if step.operator == "Mean" else total


@register("Identity", "Dropout")
def _identity(step: Step, x: Value, *_: Value) -> Value:
    """Dropout too: a file for inference computes nothing there."""
    if len(step.outputs) > 1:
        raise Unsupported("it was exported in training mode: export the network after .eval()")
    return x


@register("LeakyRelu")
def _leaky(step: Step, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, step.get("alpha", 0.01))


@register("Elu")
def _elu(step: Step, x: Tensor) -> Tensor:
    return functional.elu(x, step.get("alpha", 1.0))


@register("Celu")
def _celu(step: Step, x: Tensor) -> Tensor:
    return functional.celu(x, step.get("alpha", 1.0))


@register("Selu")
def _selu(step: Step, x: Tensor) -> Tensor:
    return functional.selu(x)


@register("Gelu")
def _gelu(step: Step, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=step.get("approximate", "none"))


@register("PRelu")
def _prelu(step: Step, x: Tensor, slope: Value) -> Tensor:
    return torch.where(x < 0, x * tensor(slope, x), x)


@register("HardSigmoid")
def _hard_sigmoid(step: Step, x: Tensor) -> Tensor:
    alpha, beta = step.get("alpha", 0.2), step.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


@register("Clip")
def _clip(step: Step, x: Value, low: Value = None, high: Value = None) -> Value:
    low = np.float32(step.get("min")) if low is None and step.get("min") is not None else low
    high = np.float32(step.get("max")) if high is None and step.get("max") is not None else high
    if known(x):
        return np.clip(x, low, high)
    bounds = [None if bound is None else operand(np.asarray(bound), x) for bound in (low, high)]
    if bounds[0] == 0 and bounds[1] == 6:
        return functional.relu6(x)
    return torch.clamp(x, *bounds)


@register("Softmax", "LogSoftmax")
def _softmax(step: Step, x: Tensor) -> Tensor:
    function = functional.softmax if step.operator == "Softmax" else functional.log_softmax
    axis = step.get("axis", -1 if step.opset >= 13 else 1)
    if step.opset < 13 and axis not in (-1, x.ndim - 1):  # then over all axes from this one on
        return function(x.flatten(axis), axis).reshape(x.shape)
    return function(x, axis)


@register("Where")
def _where(step: Step, condition: Value, a: Value, b: Value) -> Value:
    if known(condition) and known(a) and known(b):
        return np.where(condition.astype(bool), a, b)
    if known(condition) and condition.size == 1 and condition.dtype != object:
        chosen = a if bool(condition.item()) else b
        like = next(v for v in (a, b) if isinstance(v, Tensor))
        return torch.broadcast_to(
            tensor(chosen, like), np.broadcast_shapes(tuple(a.shape), tuple(b.shape))
        )
    like = next(v for v in (condition, a, b) if isinstance(v, Tensor))
    typed = next((v for v in (a, b) if isinstance(v, Tensor)), None)
    a, b = (tensor(v, like) for v in (a, b))
    if typed is not None:
        a, b = a.to(typed.dtype), b.to(typed.dtype)
    return torch.where(tensor(condition, like).bool(), a, b)


_TYPES = {
    **{1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32},
    **{7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16},
}
_ARRAYS: dict[int, Any] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


@register("Cast")
def _cast(step: Step, x: Value) -> Value:
    to = step.get("to")
    if to not in _TYPES:
        raise Unsupported(f"a cast to data type {to}")
    if known(x):
        if x.dtype == object:
            return x  # whole numbers that depend on the batch stay such
        if to in _ARRAYS:
            return x.astype(_ARRAYS[to])
    return tensor(x).to(_TYPES[to])


@register("CastLike")
def _cast_like(step: Step, x: Value, like: Value) -> Value:
    if known(x) and known(like):
        return x if like.dtype == object else x.astype(like.dtype)
    return tensor(x).to(tensor(like).dtype)


@register("CumSum")
def _cumsum(step: Step, x: Value, axis: Value) -> Value:
    if step.get("exclusive", 0) or step.get("reverse", 0):
        raise Unsupported("exclusive or reversed sums")
    at = integers(axis, "the axis")[0]
    return np.cumsum(x, at) if known(x) else torch.cumsum(x, at)


@register("Trilu")
def _trilu(step: Step, x: Value, k: Value = None) -> Tensor:
    at = 0 if k is None else integers(k, "k")[0]
    return (torch.triu if step.get("upper", 1) else torch.tril)(tensor(x), at)
