"""How each function of torch becomes the layer that it is made of."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graphs.recorded_layers import Layers, owner_of

Rule = Callable[[Layers, fx.Node, dict[str, Any]], None]
RULES: dict[str, Rule] = {}
"""Function of torch -> what puts a layer in its place, given the layers so far, the node and its
arguments by name; it does nothing where the function is no layer's."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    def put(function: Rule) -> Rule:
        RULES.update({f"aten.{name}": function for name in names})
        return function

    return put


_CONVOLUTIONS = {
    **{f"conv{n}d": kind for n, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)},
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d.input": nn.ConvTranspose2d,
    "conv_transpose3d.input": nn.ConvTranspose3d,
}


_GENERAL = ("convolution", "_convolution", "_convolution.deprecated")


@rule(*_CONVOLUTIONS, *_GENERAL, "conv1d.padding", "conv2d.padding", "conv3d.padding")
def _convolution(layers: Layers, node: fx.Node, given: dict[str, Any]) -> None:
    weight, bias = layers.weight(given["weight"]), layers.weight(given["bias"])
    free = given["bias"] is None or bias is not None
    if weight is None or not free or not layers.alike(given["weight"], node):
        return
    name = str(node.target).removeprefix("aten.").removesuffix(".default").removesuffix(".padding")
    held = layers.tensors[weight]
    if name in _GENERAL:
        rank = held.ndim - 2
        name = f"conv_transpose{rank}d" if given["transposed"] else f"conv{rank}d"
        name += ".input" if given["transposed"] and rank > 1 else ""
        if not given["transposed"]:
            given.pop("output_padding")
    transposed = "transpose" in name
    groups, rank = given["groups"], held.ndim - 2
    ins, outs = held.shape[1] * groups, held.shape[0]
    if transposed:
        ins, outs = held.shape[0], held.shape[1] * groups
    settings: dict[str, Any] = {
        key: value if isinstance(value, str) else _each(value, rank)
        for key, value in given.items()
        if key in ("stride", "padding", "dilation", "output_padding")
    }
    layer: Any = _CONVOLUTIONS[name](
        ins,
        outs,
        tuple(held.shape[2:]),
        groups=groups,
        bias=bias is not None,
        **settings,
        device="meta",
    )
    _fill(layers, layer, weight, bias)
    key = (weight, bias, groups, tuple(sorted(settings.items())))
    layers.put(node, owner_of(weight), layer, key, given["input"])


def _each(value: Any, rank: int) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    return found * rank if len(found) == 1 else found


def _fill(layers: Layers, layer: Any, weight: str, bias: str | None) -> None:
    layer.weight = _parameter(layers.tensors[weight])
    layer.bias = None if bias is None else _parameter(layers.tensors[bias])


def _parameter(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


@rule("linear")
def _linear(layers: Layers, node: fx.Node, given: dict[str, Any]) -> None:
    weight, bias = layers.weight(given["weight"]), layers.weight(given["bias"])
    free = given["bias"] is None or bias is not None
    if weight is None or not free or not layers.alike(given["weight"], node):
        return
    outs, ins = layers.tensors[weight].shape
    layer = nn.Linear(ins, outs, bias is not None, device="meta")
    _fill(layers, layer, weight, bias)
    layers.put(node, owner_of(weight), layer, (weight, bias), given["input"])


@rule("batch_norm")
def _batch_norm(layers: Layers, node: fx.Node, given: dict[str, Any]) -> None:
    own = [layers.weight(given[key]) for key in ("weight", "bias", "running_mean", "running_var")]
    if own[2] is None or own[3] is None or (own[0] is None) != (own[1] is None):
        return
    mean, variance = layers.tensors[own[2]], layers.tensors[own[3]]
    rank = given["input"].meta["val"].ndim if "val" in given["input"].meta else 4
    kind = {5: nn.BatchNorm3d, 4: nn.BatchNorm2d}.get(rank, nn.BatchNorm1d)
    layer: Any = kind(
        len(mean), given["eps"], given["momentum"], affine=own[0] is not None, device="meta"
    )
    if own[0] is not None and own[1] is not None:
        layer.weight = _parameter(layers.tensors[own[0]])
        layer.bias = _parameter(layers.tensors[own[1]])
    layer.running_mean, layer.running_var = mean.detach(), variance.detach()
    layer.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    name = owner_of(own[2]) if own[2].endswith(".running_mean") else owner_of(own[0] or own[2])
    layers.put(node, name, layer, tuple(own), given["input"])


@rule("dropout", "dropout_", "feature_dropout", "alpha_dropout")
def _dropout(layers: Layers, node: fx.Node, given: dict[str, Any]) -> None:
    layer: nn.Module = nn.Dropout(given["p"])
    layers.put(node, node.name, layer, node.name, node.args[0])


@rule("lstm.input", "gru.input", "rnn_tanh.input")
def _recurrent(layers: Layers, node: fx.Node, given: dict[str, Any]) -> None:
    own = [layers.weight(each) for each in given["params"]]
    if None in own or not str(own[0]).rpartition(".")[2].startswith("weight_ih"):
        return
    tensors = [layers.tensors[str(name)] for name in own]
    lstm = str(node.target).startswith("aten.lstm")
    kind: Any = nn.LSTM if lstm else nn.GRU if "gru" in str(node.target) else nn.RNN
    per = (4 if given["has_biases"] else 2) * (2 if given["bidirectional"] else 1)
    if len(tensors) != per * given["num_layers"]:
        return  # with projections
    with torch.device("meta"):
        layer = kind(
            tensors[0].shape[1],
            tensors[1].shape[1],
            given["num_layers"],
            bias=given["has_biases"],
            batch_first=given["batch_first"],
            dropout=given["dropout"],
            bidirectional=given["bidirectional"],
        )
    for leaf, value in zip(layer._flat_weights_names, tensors, strict=True):
        setattr(layer, leaf, _parameter(value))
    states = given["hx"]
    first = tuple(states) if lstm else states[0] if isinstance(states, list | tuple) else states
    call = layers.put(
        node, str(own[0]).rpartition(".")[0], layer, tuple(own), given["input"], first
    )
    if not lstm:
        return
    for user in list(call.users):  # torch's function gives three values, its layer one and a pair
        at = user.args[1] if user.target is operator.getitem else None
        if at in (1, 2):
            with layers.graph.inserting_before(user):
                pair = layers.graph.call_function(operator.getitem, (call, 1))
                one = layers.graph.call_function(operator.getitem, (pair, 0 if at == 1 else 1))
            user.replace_all_uses_with(one)
            layers.graph.erase_node(user)
