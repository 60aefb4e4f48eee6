"""Which entries of a network's activations are the same for every input, and what they are.

An abstract interpretation of the exported graph, in float64: an entry that depends on the input is
NaN, every other one has its value. A layer's zero weights hide what they meet, and so does a batch
norm's zero scale; element by element, what meets NaN is NaN. An operator that is not listed here
gives NaN throughout, unless all that it works on is known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compressor.channels.dependencies import Dependencies
from compressor.channels.propagation import operator_name, sizes
from compressor.channels.rewriting import constants, unlifted
from compressor.channels.rules import arguments_of
from compressor.errors import StageError

NAN = float("nan")
_ROUNDING = 1e-12
"""Entries that differ relatively by no more than this are one value."""

UNARY = {
    *("relu", "relu6", "hardtanh", "sigmoid", "hardsigmoid", "hardswish", "silu", "gelu", "tanh"),
    *("leaky_relu", "elu", "selu", "celu", "softplus", "mish", "softsign", "logsigmoid", "exp"),
    *("sqrt", "rsqrt", "neg", "abs", "square", "clamp", "clamp_min", "clamp_max", "erf", "prelu"),
    *("dropout", "feature_dropout", "alpha_dropout", "to", "_to_copy", "clone", "contiguous"),
    *("detach", "alias", "lift_fresh_copy"),
}
BINARY = {"add", "sub", "mul", "div", "maximum", "minimum"}
MOVES = {
    *("view", "reshape", "unflatten", "_unsafe_view", "flatten", "permute", "transpose", "t"),
    *("unsqueeze", "squeeze", "slice", "select", "split", "chunk", "split_with_sizes", "unbind"),
    *("movedim", "narrow", "expand", "repeat", "pixel_shuffle", "pixel_unshuffle", "cat", "stack"),
    *("channel_shuffle", "swapaxes", "swapdims", "roll", "pad", "constant_pad_nd", "getitem"),
}
POOLS = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d"),
    *("mean", "sum", "amax"),
}
"""Each entry is a mean, a maximum or a sum, with weights over 0, of the entries it sees."""
LAYERS = {
    *("linear", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
NORMS = {"batch_norm"}
LOCAL = UNARY | BINARY | MOVES | POOLS | NORMS
"""Operators that treat each channel without a look at others."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer finds at its input: the constant of each channel, (in,) float64, else NaN."""

    node: fx.Node
    constant: Tensor


class Constants(fx.Interpreter):
    """Runs the graph of ``module`` on unknown inputs; ``seen`` is what its layers found.

    ``module`` has plain weights, on the CPU. Raises :class:`StageError` where the way through the
    graph depends on the input.
    """

    def __init__(self, module: nn.Module, dependencies: Dependencies) -> None:
        self.originals: dict[fx.Node, fx.Node] = {}
        graph = unlifted(dependencies, lambda old, new: self.originals.__setitem__(new, old))
        super().__init__(nn.Module(), graph=graph)
        self.tensors: dict[str, Tensor] = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
            **constants(dependencies),
        }
        self.seen: list[Seen] = []
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        with torch.no_grad():
            self.run(*(_unknown(self.originals[node]) for node in inputs))

    def fetch_attr(self, target: str) -> Any:
        value = self.tensors[target].detach()
        return value.double() if value.is_floating_point() else value  # one at a time

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        old, name = self.originals[n], operator_name(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        wide = {torch.float32: torch.float64}
        args = tuple(wide.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        kwargs = {k: wide.get(a, a) if isinstance(a, torch.dtype) else a for k, a in kwargs.items()}
        call: Any = n.target
        if not _tensors(old.meta.get("val")):
            if name != "sym_size" and _tensors((args, kwargs)):
                raise StageError(f"{name}: the way through the network depends on the input")
            return call(*args, **kwargs)
        found = self._computed(name, call, old, args, kwargs)
        whole = found is not None and all(map(_comparable, _tensors(found), _tensors(args)[:1]))
        return found if whole else _unknown(old)

    def _computed(
        self, name: str, call: Any, old: fx.Node, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """What is known of a result; None for nothing."""
        if name in ("view", "_unsafe_view"):
            return args[0].reshape(args[1])  # these values need not lie in memory as others do
        if name in MOVES:
            return call(*args, **kwargs)
        if any(isinstance(each.meta.get("val"), torch.SymInt) for each in old.all_input_nodes):
            return None  # a value that depends on the batch
        if name in LAYERS and isinstance(args[0], Tensor):
            self.seen.append(Seen(old, _per_channel(args[0], -1 if name == "linear" else 1)))
            return _layer(call, args, kwargs)
        if name in NORMS:
            return None if args[5] else _batch_norm(*args[:5], eps=args[7])
        if name in POOLS:
            return _pooled(call, args, kwargs)
        if name in UNARY:
            return torch.where(args[0].isnan(), NAN, call(*args, **kwargs))
        if name in BINARY:
            return _met(name, call, args, kwargs)
        given = _tensors((args, kwargs))
        random = torch.Tag.nondeterministic_seeded in getattr(call, "tags", ())
        known = not any(each.is_floating_point() and each.isnan().any() for each in given)
        return call(*args, **kwargs) if known and not random else None


def _comparable(found: Tensor, source: Tensor) -> bool:
    """NaN can be told in whole numbers no more."""
    return found.is_floating_point() or not (
        source.is_floating_point() and bool(source.isnan().any())
    )


def _layer(call: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """An entry is known where weights other than zero meet known ones alone."""
    source, weight, *rest = args
    value = call(source.nan_to_num(0.0), weight, *rest, **kwargs)
    without = {name: each for name, each in kwargs.items() if name != "bias"}
    rest = [None, *rest[1:]] if rest else []
    unknown = call(source.isnan().float(), (weight != 0).float(), *rest, **without)
    return torch.where(unknown > 0, NAN, value)


def _batch_norm(
    source: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    *,
    eps: float,
) -> Tensor | None:
    if mean is None:
        return None
    shape = [1, -1, *([1] * (source.ndim - 2))]
    scale = (1.0 if weight is None else weight) / (variance + eps).sqrt()
    shift = -mean * scale + (0.0 if bias is None else bias)
    scale, shift = scale.reshape(shape), shift.reshape(shape)
    return torch.where(scale == 0, shift, source * scale + shift)


def _pooled(call: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Tensor:
    source, *rest = args
    unknown = call(source.isnan().double(), *rest, **kwargs)
    return torch.where(unknown > 0, NAN, call(source.nan_to_num(0.0), *rest, **kwargs))


def _met(name: str, call: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """What meets NaN is NaN, but zero times anything is zero."""
    value = call(*args, **kwargs)
    pair = [torch.as_tensor(each) for each in args[:2]]
    value = torch.where(pair[0].isnan() | pair[1].isnan(), NAN, value)
    return torch.where((pair[0] == 0) | (pair[1] == 0), 0.0, value) if name == "mul" else value


def _per_channel(source: Tensor, axis: int) -> Tensor:
    """The one value of each channel, (n,); NaN where there are several, or one is not known."""
    entries = source.movedim(axis, 0).flatten(1)
    low, high = entries.amin(1), entries.amax(1)
    one = (high - low) <= _ROUNDING * torch.maximum(low.abs(), high.abs())
    return torch.where(one & ~entries.isnan().any(1), entries[:, 0], NAN)


def _unknown(node: fx.Node) -> Any:
    """NaN in the shape of what a node gives."""

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return torch.full((), NAN, dtype=torch.float64).expand(sizes(leaf.shape))

    return pytree.tree_map(fill, node.meta["val"])


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def padded(node: fx.Node) -> bool:
    """Whether a layer's outermost outputs see less of its input than the others do."""
    if operator_name(node) == "linear":
        return False
    if "transpose" in operator_name(node):
        return True
    padding = arguments_of(node)["padding"]
    return padding != "valid" if isinstance(padding, str) else any(padding)
