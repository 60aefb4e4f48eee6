"""Attention, other products of activations, and sums over axes."""

import torch
from torch import fx

from compressor.channels.labels import compact, spread, varying
from compressor.channels.propagation import Propagation, Value, operator_name, shape_of
from compressor.channels.rules.registry import arguments_of, given, rule


@rule("scaled_dot_product_attention")
def attention(graph: Propagation, node: fx.Node) -> Value:
    query, key, value = (graph.of(each) for each in given(node)[:3])
    for each in (query, key, value):  # (B, heads, N, width): all heads stay as wide as one another
        graph.tie(each, 1, node)
    along = [graph.along(each[:, :1], -1, node) for each in (query, key, value)]
    graph.unite(along[0], along[1], node)
    return spread(along[2], -1, shape_of(node))


@rule("matmul", "bmm")
def product_of_activations(graph: Propagation, node: fx.Node) -> Value:
    """(..., n, k) by (..., k, m): what is summed over is one set of channels."""
    one, other = (graph.of(each) for each in given(node)[:2])
    if one.ndim < 2 or other.ndim < 2 or any(map(graph.tensor, given(node)[:2])):
        return None
    one, other = (compact(graph.labels.classes(each)) for each in (one, other))
    left, right = ({at - each.ndim for at in varying(each)} for each in (one, other))
    shape = shape_of(node)
    if left <= {-1} and right <= {-2}:
        graph.unite(graph.along(one, -1, node), graph.along(other, -2, node), node)
        return torch.zeros((), dtype=torch.int64).expand(shape)
    if not left and right == {-1}:
        return spread(other[(0,) * (other.ndim - 1)], -1, shape)
    if not right and left == {-2}:
        return spread(one[..., 0][(0,) * (one.ndim - 2)], -2, shape)
    return None


@rule("softmax", "log_softmax", "mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "var")
def reduction(graph: Propagation, node: fx.Node) -> Value:
    """What is summed up over has no channels, or branches whose channels then go together.

    A mean over channels is a statistic, as norms take it: of those that are left (``proof.py``).
    """
    source = graph.of(given(node)[0])
    name, arguments = operator_name(node), arguments_of(node)
    axes = arguments.get("dim")
    if axes is None:
        return None
    axes = [axis % source.ndim for axis in (axes if isinstance(axes, list | tuple) else [axes])]
    source = compact(graph.labels.classes(source)) if set(axes) & set(varying(source)) else source
    over = set(axes) & set(varying(source))
    if over and not set(varying(source)) - over:
        return torch.zeros((), dtype=torch.int64).expand(shape_of(node)) if name == "mean" else None
    for axis in over:  # branches that were stacked
        graph.tie(source, axis, node)
    if "softmax" in name:
        return source
    for axis in sorted(axes, reverse=True):
        source = source.narrow(axis, 0, 1) if arguments.get("keepdim") else source.select(axis, 0)
    return source
