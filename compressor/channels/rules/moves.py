"""Operators that only move data: they are run on the labels themselves."""

import operator
from typing import Any

import torch
from torch import Tensor, fx

from compressor.channels.labels import compact, spread, varying
from compressor.channels.propagation import (
    Propagation,
    Value,
    concrete,
    operator_name,
    shape_of,
)
from compressor.channels.rules.registry import arguments_of, given, rule

VIEWS = ("view", "reshape", "unflatten", "_unsafe_view", "flatten", "reshape_as", "view_as")


@rule(
    *VIEWS,
    *("permute", "transpose", "unsqueeze", "squeeze", "slice", "select", "split", "chunk"),
    *("split_with_sizes", "unbind", "movedim", "narrow", "t", "expand", "expand_as", "repeat"),
    *("channel_shuffle", "swapaxes", "swapdims", "numpy_T", "tensor_split", "mT"),
)
def move(graph: Propagation, node: fx.Node) -> Value:
    source = graph.of(given(node)[0])
    result = _moved(graph, node)
    name = operator_name(node)
    if name in VIEWS:
        result = compact(result)
        axes = varying(result)
        if len(axes) > len(varying(source)):  # a channel axis was split: what stays is a box
            for axis in axes[:-1]:
                graph.tie(result, axis, node)
    if name == "chunk" and len({each.shape for each in result}) == 1:
        for each in result[1:]:  # Python code will split evenly again
            graph.unite(result[0], each, node)
    return result


def _moved(graph: Propagation, node: fx.Node) -> Value:
    """The operator itself, on labels; symbolic sizes as they are for the example."""

    def plain(each: Any) -> Any:
        if isinstance(each, fx.Node):
            value = graph.of(each)
            return value if isinstance(value, Tensor) else concrete(each)
        return each

    arguments = fx.node.map_arg(given(node), plain)
    keywords = fx.node.map_arg(dict(node.kwargs), plain)
    if operator_name(node) in ("view", "_unsafe_view"):
        return arguments[0].reshape(arguments[1])  # labels need not lie in memory as values do
    return node.target(*arguments, **keywords)  # type: ignore[operator]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixels(graph: Propagation, node: fx.Node) -> Value:
    """Factor^2 channels are one channel on a finer grid: they go together."""
    labels, factor = graph.along(graph.of(given(node)[0]), -3, node), given(node)[1]
    if operator_name(node) == "pixel_unshuffle":
        return spread(labels.repeat_interleave(factor**2), -3, shape_of(node))
    together = labels.reshape(-1, factor**2)
    graph.tie(together, 1, node)
    return spread(together[:, 0], -3, shape_of(node))


@rule("roll")
def roll(graph: Propagation, node: fx.Node) -> Value:
    source = graph.of(given(node)[0])
    axes = [axis % source.ndim for axis in arguments_of(node)["dims"]]
    return source if not set(axes) & set(varying(source)) else None


@rule("cat", "stack", "concat")
def join(graph: Propagation, node: fx.Node) -> Value:
    parts = [graph.of(each) for each in given(node)[0]]
    axis = given(node)[1] if len(given(node)) > 1 else node.kwargs.get("dim", 0)
    if operator_name(node) == "stack":
        axis %= parts[0].ndim + 1
        parts = [each.unsqueeze(axis) for each in parts]
    axis %= parts[0].ndim
    few = [
        at
        for at in range(parts[0].ndim)
        if at != axis and all(each.stride(at) == 0 for each in parts)
    ]
    for at in few:
        parts = [each.narrow(at, 0, 1) for each in parts]
    joined = torch.cat(parts, axis)
    shape = [size if at in few else joined.shape[at] for at, size in enumerate(shape_of(node))]
    return joined.expand(shape)


@rule("getitem")
def item(graph: Propagation, node: fx.Node) -> Value:
    return operator.getitem(graph.of(given(node)[0]), given(node)[1])
