"""ONNX operators that move, cut and join values."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compressor.graphs.onnx_operators import (
    Step,
    Unsupported,
    Value,
    array,
    axes_of,
    integers,
    known,
    register,
    tensor,
)


@register("Constant")
def _constant(step: Step) -> Value:
    for name in ("value_float", "value_int"):
        if name in step.attributes:
            kind = np.float32 if name == "value_float" else np.int64
            return np.asarray(step.attributes[name], dtype=kind)
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        if name in step.attributes:
            return np.asarray(step.attributes[name], dtype=dtype)
    if "value" in step.attributes:
        return step.attributes["value"]
    raise Unsupported("a constant that is not a dense tensor of numbers")


@register("Shape")
def _shape(step: Step, x: Value) -> Value:
    return array(list(x.shape)[step.get("start", 0) : step.get("end")])


@register("Size")
def _size(step: Step, x: Value) -> Value:
    return array([math.prod(x.shape)]).reshape(())


@register("ConstantOfShape")
def _constant_of_shape(step: Step, shape: Value) -> Value:
    value = step.get("value", np.zeros(1, np.float32))
    sizes = integers(shape, "the shape")
    if not any(isinstance(size, torch.SymInt) for size in sizes) and math.prod(sizes) <= 4096:
        return np.full(sizes, value.reshape(-1)[0], dtype=value.dtype)
    return torch.full(sizes, value.item(), dtype=torch.from_numpy(value).dtype)


@register("Range")
def _range(step: Step, start: Value, limit: Value, delta: Value) -> Value:
    if not all(known(v) for v in (start, limit, delta)):
        raise Unsupported("a range whose ends are computed from the network's input")
    first, last, by = (v.item() for v in (start, limit, delta))
    if isinstance(last, torch.SymInt) or isinstance(first, torch.SymInt):
        return torch.arange(first, last, by)
    return np.arange(first, last, by, dtype=start.dtype)


@register("Expand")
def _expand(step: Step, x: Value, shape: Value) -> Value:
    sizes = integers(shape, "the shape")
    if known(x) and not any(isinstance(size, torch.SymInt) for size in sizes):
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes))).copy()
    x = tensor(x)
    whole = [1] * max(0, x.ndim - len(sizes)) + sizes
    own = [1] * (len(whole) - x.ndim) + list(x.shape)
    # A size of 1 in the shape leaves the value's own, in ONNX.
    free = [isinstance(w, torch.SymInt) or w != 1 for w in whole]
    return x.expand([w if f else o for w, o, f in zip(whole, own, free, strict=True)])


@register("Tile")
def _tile(step: Step, x: Value, repeats: Value) -> Value:
    times = integers(repeats, "how often it repeats")
    return np.tile(x, times) if known(x) else x.repeat(times)


@register("Reshape")
def _reshape(step: Step, x: Value, shape: Value = None) -> Value:
    sizes = list(step.get("shape", ())) if shape is None else integers(shape, "the shape")
    if not step.get("allowzero", 0):
        sizes = [
            x.shape[at] if not isinstance(s, torch.SymInt) and s == 0 else s
            for at, s in enumerate(sizes)
        ]
    if known(x):
        return x.reshape(sizes)
    return x.reshape(with_batch(list(x.shape), sizes, step.batch))


def with_batch(own: list[Any], sizes: list[Any], fixed: int | None) -> list[Any]:
    """``sizes`` for any batch, where a file has written them for a batch of ``fixed``.

    The batch B is part of one of the value's ``own`` sizes, n B. What lies before it and behind it
    must come out as before; of the places where that can be, the first of these is taken:

    1. One of ``fixed`` alone, B being the outer part of n B, or else the inner one.
    2. One behind which as many sizes follow, or fewer: rows are joined, features are not split.
    3. One that begins where B begins.
    """
    free = [at for at, size in enumerate(own) if isinstance(size, torch.SymInt)]
    if fixed is None or len(free) != 1 or any(isinstance(s, torch.SymInt) for s in sizes):
        return sizes
    at = free[0]
    symbol = own[at].node.expr
    count = int(symbol / next(iter(symbol.free_symbols)))
    batch = own[at] // count if count > 1 else own[at]
    before, behind = math.prod(own[:at]), math.prod(own[at + 1 :])
    given = math.prod(size for size in sizes if size != -1)
    sizes = [before * count * fixed * behind // given if size == -1 else size for size in sizes]
    place = _place(own[at + 1 :], (before, count, behind), sizes, fixed)
    if place is None:
        raise Unsupported(f"the file fixes the batch at {fixed} here, and no other can be put in")
    return [*sizes[:place], batch * (sizes[place] // fixed), *sizes[place + 1 :]]


def _place(
    rest: list[Any], counts: tuple[int, int, int], sizes: list[int], fixed: int
) -> int | None:
    """The rules of :func:`with_batch`; ``rest`` are the value's sizes behind the batch."""
    before, count, behind = counts
    places = [place for place in range(len(sizes)) if sizes[place] % fixed == 0]
    lead = {place: math.prod(sizes[:place]) for place in places}
    tail = {place: math.prod(sizes[place + 1 :]) for place in places}
    outer = [p for p in places if (lead[p], tail[p], sizes[p]) == (before, count * behind, fixed)]
    inner = [p for p in places if (lead[p], tail[p], sizes[p]) == (before * count, behind, fixed)]
    joined = [p for p in places if tail[p] == behind and len(sizes) - p - 1 <= len(rest)]
    begins = [p for p in places if lead[p] == before]
    return next(iter((*outer, *inner, *joined, *begins)), None)


@register("Flatten")
def _flatten(step: Step, x: Tensor) -> Tensor:
    axis = step.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    if axis == 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


@register("Transpose")
def _transpose(step: Step, x: Value) -> Value:
    order = step.get("perm", list(range(x.ndim))[::-1])
    return np.transpose(x, order) if known(x) else x.permute(order)


@register("Squeeze")
def _squeeze(step: Step, x: Value, axes: Value = None) -> Value:
    found = axes_of(step, axes)
    if found is None:
        found = [at for at, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    return np.squeeze(x, tuple(found)) if known(x) else x.squeeze(found)


@register("Unsqueeze")
def _unsqueeze(step: Step, x: Value, axes: Value = None) -> Value:
    found = axes_of(step, axes) or []
    rank = x.ndim + len(found)
    for at in sorted(axis % rank for axis in found):
        x = np.expand_dims(x, at) if known(x) else x.unsqueeze(at)
    return x


@register("Concat")
def _concat(step: Step, *values: Value) -> Value:
    axis = step.get("axis", 1)
    if all(known(v) for v in values):
        symbolic = any(v.dtype == object for v in values)
        return np.concatenate([v.astype(object) if symbolic else v for v in values], axis)
    like = next(v for v in values if isinstance(v, Tensor))
    return torch.cat(same_batch([tensor(v, like) for v in values], axis, step.batch), axis)


def same_batch(values: list[Tensor], axis: int, fixed: int | None) -> list[Tensor]:
    """Constants that a file has written for a batch of one, beside what has a free batch."""
    if fixed != 1:
        return values
    sizes: list[Any] = list(values[0].shape)
    for value in values:
        for at, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt):
                sizes[at] = size
    axis %= len(sizes)
    return [v.expand([*sizes[:axis], v.shape[axis], *sizes[axis + 1 :]]) for v in values]


@register("Split")
def _split(step: Step, x: Value, split: Value = None) -> Value:
    axis = step.get("axis", 0)
    sizes = step.get("split") if split is None else integers(split, "the sizes of parts")
    if sizes is None:
        parts = step.get("num_outputs", len(step.outputs))
        size = -(-x.shape[axis] // parts)
        sizes = [size] * (parts - 1) + [x.shape[axis] - size * (parts - 1)]
    if known(x):
        return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))
    return tuple(torch.split(x, list(sizes), axis))


@register("Slice")
def _slice(
    step: Step,
    x: Value,
    starts: Value = None,
    ends: Value = None,
    axes: Value = None,
    steps: Value = None,
) -> Value:
    begin, end = (axes_of(step, v, n) or [] for v, n in ((starts, "starts"), (ends, "ends")))
    where = axes_of(step, axes) or list(range(len(begin)))
    by = [1] * len(begin) if steps is None else integers(steps, "the steps")
    for at, first, last, each in zip(where, begin, end, by, strict=True):
        axis = at % x.ndim
        if known(x):
            index = slice(first, None if each < 0 and last < -x.shape[axis] else last, each)
            x = x[(*[slice(None)] * axis, index)]
        elif each > 0:
            last = last if isinstance(last, torch.SymInt) else min(last, 2**62)
            x = x[(*[slice(None)] * axis, slice(first, last, each))]
        elif (first, each) == (-1, -1) and last < -x.shape[axis]:
            x = x.flip(axis)
        else:
            raise Unsupported("a slice with steps backwards")
    return x


@register("Gather")
def _gather(step: Step, x: Value, index: Value) -> Value:
    axis = step.get("axis", 0)
    if known(x) and known(index):
        return np.asarray(np.take(x, index.astype(np.int64), axis))
    if known(index):
        axis %= x.ndim
        if index.ndim == 0:
            return x.select(axis, int(index))
        at = tensor(index, x) % x.shape[axis]
        found = x.index_select(axis, at.flatten())
        return found if index.ndim == 1 else found.unflatten(axis, index.shape)
    weight = tensor(x, index)
    if axis == 0 and weight.ndim == 2:
        return functional.embedding(index, weight)
    picked = weight.index_select(axis, index.flatten())
    return picked.reshape(*weight.shape[:axis], *index.shape, *weight.shape[axis + 1 :])


@register("GatherElements")
def _gather_elements(step: Step, x: Value, index: Value) -> Tensor:
    return tensor(x).gather(step.get("axis", 0), tensor(index))


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@register("Pad")
def _pad(
    step: Step, x: Tensor, pads: Value = None, value: Value = None, axes: Value = None
) -> Tensor:
    sizes = axes_of(step, pads, "pads") or []
    fill = step.get("value", 0.0) if value is None else value.item()
    where = list(range(x.ndim)) if axes is None else integers(axes, "axes")
    half = len(sizes) // 2
    amounts = {at % x.ndim: (sizes[n], sizes[n + half]) for n, at in enumerate(where)}
    order = [amounts.get(at, (0, 0)) for at in reversed(range(x.ndim))]
    while order and order[-1] == (0, 0):
        order.pop()
    flat = [size for pair in order for size in pair]
    if not flat:
        return x
    mode = _MODES[step.get("mode", "constant")]
    return functional.pad(x, flat, mode, fill if mode == "constant" else None)


@register("DepthToSpace", "SpaceToDepth")
def _depth(step: Step, x: Tensor) -> Tensor:
    n, (batch, channels, height, width) = step.get("blocksize"), x.shape
    if step.operator == "SpaceToDepth":
        cut = x.reshape(batch, channels, height // n, n, width // n, n).permute(0, 3, 5, 1, 2, 4)
        return cut.reshape(batch, channels * n * n, height // n, width // n)
    if step.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, n)
    apart = x.reshape(batch, n, n, channels // n**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(batch, channels // n**2, height * n, width * n)
