"""Layers, which make channels, and norms, which have a parameter for each."""

from typing import Any

import torch
from torch import Tensor, fx

from compressor.channels.labels import spread
from compressor.channels.propagation import (
    Propagation,
    Value,
    operator_name,
    shape_of,
)
from compressor.channels.rules.registry import arguments_of, given, rule

WHOLE_GROUPS = 8
"""From this many groups on, a grouped convolution loses whole groups: the groups that are left
keep their width, which runtimes have fast paths for. Fewer groups lose channels inside each."""

# Layers: what makes channels.


@rule("conv1d", "conv2d", "conv3d", "convolution")
def convolution(graph: Propagation, node: fx.Node) -> Value:
    source, weight, bias = (*given(node), None)[:3]
    arguments = arguments_of(node)
    if operator_name(node) == "convolution" and arguments["transposed"]:
        return None
    name, groups = graph.tensor(weight), arguments["groups"]
    if name is None or graph.tensor(source) is not None:
        return None
    out, each = shape_of(weight)[:2]
    inputs = graph.along(graph.of(source), 1, node)
    if each == 1 and groups > 1:  # depthwise: a channel in, out / groups channels out
        made = inputs.repeat_interleave(out // groups)
        graph.use(name, 0, made, node)
        graph.grouped[name] = groups
    else:
        made = graph.make(name, 0, out)
        _convolve(graph, node, name, (inputs, made), groups)
    if bias is not None:
        graph.use(_named(graph, bias), 0, made, node)
    return spread(made, 1, shape_of(node))


def _convolve(
    graph: Propagation, node: fx.Node, name: str, ends: tuple[Tensor, Tensor], groups: int
) -> None:
    inputs, made = ends
    if groups == 1:
        graph.use(name, 1, inputs, node)
        return
    per_input, per_output = inputs.reshape(groups, -1), made.reshape(groups, -1)
    if groups >= WHOLE_GROUPS:
        whole = torch.cat([per_input, per_output], 1)
        graph.unite(whole[:, 1:], whole[:, :1].expand_as(whole[:, 1:]), node)
        graph.grouped[name] = groups
    else:  # the same positions in every group
        for each in (per_input, per_output):
            graph.unite(each[1:], each[:1].expand_as(each[1:]), node)
        graph.use(name, 1, per_input[0], node)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(graph: Propagation, node: fx.Node) -> Value:
    source, weight, bias = (*given(node), None)[:3]
    name = graph.tensor(weight)
    if name is None or arguments_of(node)["groups"] != 1:
        return None
    graph.use(name, 0, graph.along(graph.of(source), 1, node), node)
    made = graph.make(name, 1, shape_of(weight)[1])
    if bias is not None:
        graph.use(_named(graph, bias), 0, made, node)
    return spread(made, 1, shape_of(node))


@rule("linear")
def linear(graph: Propagation, node: fx.Node) -> Value:
    source, weight, bias = (*given(node), None)[:3]
    name = graph.tensor(weight)
    if name is None or graph.tensor(source) is not None:
        return None
    graph.use(name, 1, graph.along(graph.of(source), -1, node), node)
    made = graph.make(name, 0, shape_of(weight)[0])
    if bias is not None:
        graph.use(_named(graph, bias), 0, made, node)
    return spread(made, -1, shape_of(node))


@rule("embedding")
def embedding(graph: Propagation, node: fx.Node) -> Value:
    name = _named(graph, given(node)[0])
    return spread(graph.make(name, 1, shape_of(given(node)[0])[1]), -1, shape_of(node))


def _named(graph: Propagation, node: Any) -> str:
    name = graph.tensor(node)
    if name is None:
        raise NotImplementedError("a computed parameter")
    return name


# Norms: a parameter or a statistic for every channel.


@rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def batch_norm(graph: Propagation, node: fx.Node) -> Value:
    source = graph.of(given(node)[0])
    return _per_channel(graph, node, source, 1, given(node)[1:5])


@rule("layer_norm")
def layer_norm(graph: Propagation, node: fx.Node) -> Value:
    source, shape = graph.of(given(node)[0]), given(node)[1]
    if len(shape) != 1:
        return None
    return _per_channel(graph, node, source, -1, given(node)[2:4])


def _per_channel(
    graph: Propagation, node: fx.Node, source: Tensor, axis: int, tensors: tuple[Any, ...]
) -> Tensor:
    labels = graph.along(source, axis, node)
    for each in tensors:
        if isinstance(each, fx.Node):
            graph.use(_named(graph, each), 0, labels, node)
    return source


@rule("group_norm")
def group_norm(graph: Propagation, node: fx.Node) -> Value:
    """The same positions in every group: all stay as wide as one another."""
    source, groups = graph.of(given(node)[0]), given(node)[1]
    each = graph.along(source, 1, node).reshape(groups, -1)
    graph.unite(each[1:], each[:1].expand_as(each[1:]), node)
    return _per_channel(graph, node, source, 1, given(node)[2:4])


@rule("prelu")
def prelu(graph: Propagation, node: fx.Node) -> Value:
    source, slope = graph.of(given(node)[0]), given(node)[1]
    if shape_of(slope)[0] > 1:
        graph.use(_named(graph, slope), 0, graph.along(source, 1, node), node)
    return source
