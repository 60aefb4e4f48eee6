"""ONNX operators that are layers: convolutions, products, pools, norms, recurrent ones."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compressor.graphs.onnx_operators import (
    Step,
    Unsupported,
    Value,
    integers,
    known,
    operand,
    register,
    tensor,
)


def pads_of(step: Step, x: Tensor, kernel: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis: given, or found as ``auto_pad`` says."""
    rank, mode = len(kernel), step.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        given = step.get("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return list(zip(given[:rank], given[rank:], strict=True))
    strides, dilations = step.get("strides", [1] * rank), step.get("dilations", [1] * rank)
    found = []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        if not isinstance(size, int):
            raise Unsupported("padding by a size that is not known")
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        half = total // 2
        found.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return found


def padded(x: Tensor, pads: list[tuple[int, int]], value: float) -> tuple[Tensor, list[int]]:
    """Unequal padding is put on beforehand; equal padding is left to the operator."""
    if all(before == after for before, after in pads):
        return x, [before for before, _ in pads]
    flat = [size for pair in reversed(pads) for size in pair]
    return functional.pad(x, flat, value=value), [0] * len(pads)


@register("Conv")
def _conv(step: Step, x: Tensor, weight: Tensor, bias: Value = None) -> Any:
    rank = weight.ndim - 2
    x, padding = padded(x, pads_of(step, x, list(weight.shape[2:])), 0.0)
    function: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return function(
        x,
        weight,
        None if bias is None else tensor(bias, x),
        step.get("strides", [1] * rank),
        padding,
        step.get("dilations", [1] * rank),
        step.get("group", 1),
    )


@register("ConvTranspose")
def _conv_transpose(step: Step, x: Tensor, weight: Tensor, bias: Value = None) -> Any:
    rank = weight.ndim - 2
    if step.get("output_shape") is not None or step.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("padding that is found from the output's shape")
    strides, pads = step.get("strides", [1] * rank), step.get("pads", [0] * 2 * rank)
    extra = step.get("output_padding", [0] * rank)
    if pads[:rank] != pads[rank:]:
        raise Unsupported("unequal padding")
    functions: Any = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )
    return functions[rank - 1](
        x,
        weight,
        None if bias is None else tensor(bias, x),
        strides,
        pads[:rank],
        extra,
        step.get("group", 1),
        step.get("dilations", [1] * rank),
    )


@register("MatMul")
def _matmul(step: Step, a: Value, b: Value) -> Value:
    if known(a) and known(b):
        return np.matmul(a, b)
    return torch.matmul(tensor(a), tensor(b))


@register("Linear")
def _linear(step: Step, x: Tensor, weight: Tensor, bias: Value = None) -> Tensor:
    """Not ONNX's: a product with a weight, whose transpose the reader keeps as torch does."""
    return functional.linear(x, weight, None if bias is None else tensor(bias, x))


@register("Gemm")
def _gemm(step: Step, a: Tensor, b: Tensor, c: Value = None) -> Value:
    a = a.t() if step.get("transA", 0) else a
    b = b.t() if step.get("transB", 0) else b
    product = torch.matmul(a, b) * step.get("alpha", 1.0)
    return product if c is None else product + operand(c, product) * step.get("beta", 1.0)


@register("Einsum")
def _einsum(step: Step, *values: Value) -> Tensor:
    return torch.einsum(step.get("equation"), *(tensor(v) for v in values))


@register("MaxPool")
def _max_pool(step: Step, x: Tensor) -> Value:
    kernel = list(step.get("kernel_shape"))
    if len(step.outputs) > 1:
        raise Unsupported("the places of the maxima")
    x, padding = padded(x, pads_of(step, x, kernel), float("-inf"))
    function: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
    ones = [1] * len(kernel)
    return function[len(kernel) - 1](
        x,
        kernel,
        step.get("strides", ones),
        padding,
        step.get("dilations", ones),
        bool(step.get("ceil_mode", 0)),
    )


@register("AveragePool")
def _average_pool(step: Step, x: Tensor) -> Tensor:
    kernel = list(step.get("kernel_shape"))
    pads = pads_of(step, x, kernel)
    counted = bool(step.get("count_include_pad", 0))
    if any(d != 1 for d in step.get("dilations", ())):
        raise Unsupported("dilated average pooling")
    if any(before != after for before, after in pads) and not counted:
        raise Unsupported("unequal padding that does not count")
    x, padding = padded(x, pads, 0.0)
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
    return function[len(kernel) - 1](
        x,
        kernel,
        step.get("strides", [1] * len(kernel)),
        padding,
        bool(step.get("ceil_mode", 0)),
        counted,
    )


@register("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(step: Step, x: Tensor) -> Tensor:
    axes = list(range(2, x.ndim))
    if step.operator == "GlobalMaxPool":
        return torch.amax(x, axes, keepdim=True)
    if x.ndim == 4:
        return functional.adaptive_avg_pool2d(x, 1)
    return torch.mean(x, axes, keepdim=True)


@register("BatchNormalization")
def _batch_norm(step: Step, x: Tensor, *tensors: Tensor) -> Tensor:
    if step.get("training_mode", 0) or len(step.outputs) > 1:
        raise Unsupported("it was exported in training mode: export the network after .eval()")
    scale, shift, mean, variance = (tensor(value, x) for value in tensors)
    epsilon = step.get("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, shift, False, 0.1, epsilon)


@register("InstanceNormalization")
def _instance_norm(step: Step, x: Tensor, scale: Value, shift: Value) -> Tensor:
    epsilon = step.get("epsilon", 1e-5)
    return functional.instance_norm(x, weight=tensor(scale), bias=tensor(shift), eps=epsilon)


@register("LayerNormalization")
def _layer_norm(step: Step, x: Tensor, scale: Value, shift: Value = None) -> Tensor:
    axis = step.get("axis", -1) % x.ndim
    shape = [int(size) for size in x.shape[axis:]]
    scale = tensor(scale, x).expand(shape)
    bias = None if shift is None else tensor(shift, x).expand(shape)
    return functional.layer_norm(x, shape, scale, bias, step.get("epsilon", 1e-5))


@register("GroupNormalization")
def _group_norm(step: Step, x: Tensor, scale: Value, shift: Value) -> Tensor:
    groups, scale, shift = step.get("num_groups"), tensor(scale, x), tensor(shift, x)
    if step.opset < 21:  # one scale and shift a group, then
        each = x.shape[1] // groups
        scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    return functional.group_norm(x, groups, scale, shift, step.get("epsilon", 1e-5))


@register("LRN")
def _lrn(step: Step, x: Tensor) -> Tensor:
    alpha, beta, bias = step.get("alpha", 1e-4), step.get("beta", 0.75), step.get("bias", 1.0)
    return functional.local_response_norm(x, step.get("size"), alpha, beta, bias)


_MODES = {
    "nearest": "nearest",
    "linear": {3: "linear", 4: "bilinear", 5: "trilinear"},
    "cubic": {4: "bicubic"},
}


@register("Resize", "Upsample")
def _resize(
    step: Step, x: Tensor, first: Value = None, second: Value = None, sizes: Value = None
) -> Tensor:
    scales = first if step.operator == "Upsample" or step.opset < 11 else second
    if scales is None and "scales" in step.attributes:
        scales = np.asarray(step.get("scales"))
    if sizes is not None and (not known(sizes) or sizes.size):
        target = integers(sizes, "the size")[2:]
    elif scales is not None and known(scales):
        target = [int(s * f) for s, f in zip(x.shape[2:], scales.flat[2:], strict=True)]
    else:
        raise Unsupported("a size that is computed from the network's input")
    mode: Any = _MODES.get(step.get("mode", "nearest"))
    mode = mode.get(x.ndim) if isinstance(mode, dict) else mode
    how = step.get("coordinate_transformation_mode", "half_pixel")
    if step.operator == "Upsample" or step.opset < 11:
        how = "asymmetric"
    if mode is None or step.get("antialias", 0):
        raise Unsupported(f"resizing by {step.get('mode')} over {x.ndim - 2} axes")
    if mode == "nearest":
        # torch's "nearest" takes floor(i * scale); its "nearest-exact" rounds pixels' centres.
        rounding = step.get("nearest_mode", "round_prefer_floor")
        whole = all(n % s == 0 for n, s in zip(target, x.shape[2:], strict=True))
        if how == "asymmetric" and (rounding == "floor" or step.opset < 11):
            return functional.interpolate(x, size=target, mode="nearest")
        if how in ("half_pixel", "pytorch_half_pixel") and whole:
            return functional.interpolate(x, size=target, mode="nearest-exact")
        raise Unsupported(f"nearest resizing with {how} and {rounding}")
    if how not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise Unsupported(f"resizing with {how}")
    corners = how == "align_corners"
    return functional.interpolate(x, size=target, mode=mode, align_corners=corners)


@register("LSTM", "GRU", "RNN")
def _recurrent(step: Step, x: Tensor, *given: Value) -> Any:
    """The reader has put torch's own layer, with the gates in its order, in place of the weights.

    ``x``: (length, batch, features). Gives Y (length, directions, batch, hidden) and last states.
    """
    layer, *states = given
    directions, hidden = 2 if layer.bidirectional else 1, layer.hidden_size
    zeros = x.new_zeros(directions, x.shape[1], hidden)
    first = [zeros if state is None else tensor(state, x) for state in states]
    if step.batch == 1:  # states written for one
        first = [state.expand(zeros.shape) for state in first]
    if step.operator == "LSTM":
        h, c = (*first, zeros, zeros)[:2]
        y, last = layer(x, (h, c))
    else:
        y, h = layer(x, (*first, zeros)[0])
        last = (h,)
    y = y.reshape(y.shape[0], y.shape[1], directions, hidden).transpose(1, 2)
    return (y, *last)
