"""Operators that work element by element: what meets stands or falls together."""

import torch
from torch import Tensor, fx

from compressor.channels.labels import narrowed, varying
from compressor.channels.propagation import Propagation, Value, operator_name, shape_of
from compressor.channels.rules.registry import given, rule


@rule("new_zeros", "new_ones", "new_full", "new_empty")
def fill(graph: Propagation, node: fx.Node) -> Value:
    """Takes but the dtype and the device of its input."""
    return torch.zeros((), dtype=torch.int64).expand(shape_of(node))


UNARY = (
    *("relu", "relu6", "hardtanh", "sigmoid", "hardsigmoid", "hardswish", "silu", "gelu", "tanh"),
    *("leaky_relu", "elu", "selu", "celu", "softplus", "mish", "softsign", "logsigmoid", "exp"),
    *("log", "sqrt", "rsqrt", "neg", "abs", "square", "clamp", "clamp_min", "clamp_max", "erf"),
    *("dropout", "feature_dropout", "alpha_dropout", "native_dropout", "to", "_to_copy", "clone"),
    *(
        "zeros_like",
        "ones_like",
        "contiguous",
        "detach",
        "alias",
        "lift_fresh_copy",
        "reciprocal",
        "sin",
        "cos",
        "threshold",
    ),
)


@rule(*UNARY)
def unary(graph: Propagation, node: fx.Node) -> Value:
    return graph.of(given(node)[0])


@rule("add", "sub", "mul", "div", "maximum", "minimum", "pow")
def binary(graph: Propagation, node: fx.Node) -> Value:
    return _together(graph, node, *(graph.of(each) for each in given(node)[:2]))


@rule("addcmul", "addcdiv", "where", "lerp")
def ternary(graph: Propagation, node: fx.Node) -> Value:
    first, *others = (graph.of(each) for each in given(node)[:3])
    return _together(graph, node, first, _together(graph, node, *others))


def _together(graph: Propagation, node: fx.Node, *pair: Value) -> Tensor:
    """The labels of what two values, or a value and a number, give element by element."""
    tensors: list[Tensor] = [each for each in pair if isinstance(each, Tensor)]
    shape = shape_of(node)
    several = [each for each in tensors if each.numel() > 1]
    if len(tensors) < 2 or len(several) < 2:  # with a number, or a tensor that holds but one
        return (several or tensors)[0].expand(shape)
    one, other = tensors
    parts = (_met(graph, node, one, other, shape), _met(graph, node, other, one, shape))
    met = [each for each in parts if each is not None]
    if len(met) == 2:
        graph.unite(met[0], met[1], node)
    if operator_name(node) == "add" and not any(graph.tensor(each) for each in given(node)[:2]):
        graph.residual += met
    labelled = [each for each in met if (narrowed(each)[0] != 0).any()]
    return (labelled or met or [torch.zeros((), dtype=torch.int64).expand(shape)])[0]


def _met(
    graph: Propagation, node: fx.Node, labels: Tensor, other: Tensor, shape: tuple[int, ...]
) -> Tensor | None:
    """``labels`` as they meet ``other``; None, and frozen, where one of them meets many."""
    sized = labels.reshape([1] * (len(shape) - labels.ndim) + list(labels.shape))
    partner = other.reshape([1] * (len(shape) - other.ndim) + list(other.shape))
    repeated = [at for at in range(len(shape)) if sized.shape[at] == 1 and shape[at] > 1]
    if any(at in varying(partner) for at in repeated):
        graph.freeze(labels, graph.reason(node))
        return None
    return sized.expand(shape)
