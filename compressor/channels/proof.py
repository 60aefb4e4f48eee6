"""Does the small network compute what the masked one computes? Both are run, in float64.

The masked network is the original graph with every removed slice of every parameter and buffer set
to zero, so that what is removed neither arrives nor counts; norms over channels (layer and group
norm, and means that a network takes itself) take their statistics over what is left. No code that
removes channels is used here.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.channels.dependencies import Dependencies, Keep, box
from compressor.channels.propagation import operator_name
from compressor.channels.rewriting import constants, unlifted
from compressor.errors import StageError

TOLERANCE = 1e-5
"""The largest difference, relative to the largest output, with which a network is written."""


@dataclass(frozen=True)
class Proof:
    """The largest difference of any output, relative to the largest; ``dtype`` compared in."""

    difference: float
    dtype: str
    images: int

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Removal:
    """What is left of the inputs of an operator of the graph where classes are ``removed``."""

    def __init__(self, dependencies: Dependencies, removed: Any) -> None:
        self.dependencies = dependencies
        self.dead = dependencies.dead(removed)

    def left(self, node: fx.Node, axis: int) -> Tensor:
        """Which indices of an axis of an operator's first input are left."""
        return torch.from_numpy(self._left(node)[axis].copy())

    def norm(self, node: fx.Node) -> "Callable[..., Tensor] | None":
        """How to compute a norm or mean that would count what is removed; else None."""
        found = _NORMS.get(operator_name(node))
        if found is None or all(bool(kept.all()) for kept in self._left(node)):
            return None
        return found

    def _left(self, node: fx.Node) -> list[Any]:
        graph = self.dependencies.graph
        return box(graph.labels.classes(graph.of(node.args[0])), self.dead)


class Masked:
    """The original network with what ``removed`` names set to zero; runs on (N, ...) float32."""

    def __init__(
        self, module: nn.Module, dependencies: Dependencies, removed: Any, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.removal = Removal(dependencies, removed)
        self.originals: dict[fx.Node, fx.Node] = {}
        self.graph = unlifted(dependencies, self._remember)
        module = copy.deepcopy(module).to(dtype)
        self.tensors: dict[str, Tensor] = dict(
            (
                *module.named_parameters(remove_duplicate=False),
                *module.named_buffers(remove_duplicate=False),
            )
        )
        zero(self.tensors, dependencies.keep(removed))
        for name, value in constants(dependencies).items():
            self.tensors[name] = value.to(dtype) if value.is_floating_point() else value

    def _remember(self, old: fx.Node, new: fx.Node) -> None:
        self.originals[new] = old

    def __call__(self, inputs: Tensor) -> Any:
        with torch.no_grad():
            return _Run(self).run(inputs.to(self.dtype))


def zero(tensors: dict[str, Tensor], keep: Keep) -> None:
    """Set every removed slice to zero."""
    with torch.no_grad():
        for (name, axis), mask in keep.items():
            index = torch.from_numpy((~mask).nonzero()[0])
            tensors[name].index_fill_(axis, index, 0.0)


class _Run(fx.Interpreter):
    """Runs a masked network; float32 in the graph becomes its own dtype."""

    def __init__(self, masked: Masked) -> None:
        super().__init__(nn.Module(), graph=masked.graph)
        self.masked = masked

    def fetch_attr(self, target: str) -> Any:
        return self.masked.tensors[target]

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            original = self.masked.originals[n]
            if (norm := _NORMS.get(operator_name(original))) is not None:
                return norm(self.masked.removal, original, *args, **kwargs)
            wide = {torch.float32: self.masked.dtype}
            args = tuple(wide.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
            kwargs = {
                k: wide.get(a, a) if isinstance(a, torch.dtype) else a for k, a in kwargs.items()
            }
            compute: Any = n.target
            return compute(*args, **kwargs)
        return super().run_node(n)


def _layer_norm(
    removal: Removal, node: fx.Node, x: Tensor, shape: list[int], *rest: Any, **_: Any
) -> Tensor:
    """Over the last axis, what is removed not counted."""
    weight, bias, eps = (*rest, *(None, None, 1e-5)[len(rest) :])[:3]
    left = removal.left(node, -1)
    count = left.sum()
    mean = (x * left).sum(-1, keepdim=True) / count
    variance = ((x - mean).square() * left).sum(-1, keepdim=True) / count
    return _affine((x - mean) / (variance + eps).sqrt(), weight, bias) * left


def _group_norm(
    removal: Removal, node: fx.Node, x: Tensor, groups: int, *rest: Any, **_: Any
) -> Tensor:
    """Over groups of axis 1 and all that follow, what is removed not counted."""
    weight, bias, eps = (*rest, *(None, None, 1e-5)[len(rest) :])[:3]
    left = removal.left(node, 1).to(x.dtype)
    here = left.reshape(groups, -1, 1)
    parts = x.reshape(len(x), groups, here.shape[1], -1)
    count = here.sum((1, 2), keepdim=True) * parts.shape[-1]
    mean = (parts * here).sum((2, 3), keepdim=True) / count
    variance = ((parts - mean).square() * here).sum((2, 3), keepdim=True) / count
    whole = ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape).movedim(1, -1)
    return (_affine(whole, weight, bias) * left).movedim(-1, 1)


def _mean(removal: Removal, node: fx.Node, x: Tensor, *rest: Any, **named: Any) -> Tensor:
    """Over axes, what is removed not counted."""
    axes, keepdim = (*rest, *(named.get("dim"), named.get("keepdim", False))[len(rest) :])[:2]
    left = x.new_ones(1)
    for axis in range(x.ndim) if axes is None else axes:
        along = [-1 if at == axis % x.ndim else 1 for at in range(x.ndim)]
        left = left * removal.left(node, axis).to(left).reshape(along)
    left = left.expand_as(x)
    return (x * left).sum(axes, keepdim) / left.sum(axes, keepdim)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "mean": _mean,
}


def prove(
    original: nn.Module, small: nn.Module, dependencies: Dependencies, removed: Any, inputs: Tensor
) -> Proof:
    """Compare on ``inputs`` (N, ...) float32; ``small`` is ``original`` without ``removed``.

    Compared in float64; in float32 where a network insists on that. Raises :class:`StageError`
    above :data:`TOLERANCE`.
    """
    try:
        proof = _compared(original, small, dependencies, removed, inputs.double())
    except RuntimeError:  # a network may make tensors of its own in float32
        proof = _compared(original, small, dependencies, removed, inputs)
    if not proof.difference <= TOLERANCE:
        raise StageError(
            f"the pruned network differs from the masked one by {proof.difference:.1e} relative, "
            f"more than {TOLERANCE:g}: it was not written"
        )
    return proof


def _compared(
    original: nn.Module, small: nn.Module, dependencies: Dependencies, removed: Any, inputs: Tensor
) -> Proof:
    expected = Masked(original, dependencies, removed, inputs.dtype)(inputs)
    if not any(each.any() for each in _tensors(expected)):
        raise StageError(
            "the masked network gives nothing but zeros for random inputs: nothing can be proved"
        )
    found = run(small, inputs)
    return Proof(compare(expected, found), str(inputs.dtype)[6:], len(inputs))


def run(module: nn.Module, inputs: Tensor) -> Any:
    """What a network gives for ``inputs``, in their dtype; it is left as it was."""
    with torch.no_grad():
        return copy.deepcopy(module).eval().to(inputs.dtype)(inputs)


def compare(expected: Any, found: Any) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ or a value is.

    Not a number counts as infinite: it compares with nothing.
    """
    pairs = list(zip(_tensors(expected), _tensors(found), strict=True))
    worst = 0.0
    for one, other in pairs:
        if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
            return float("inf")
        scale = float(one.abs().max()) if one.numel() else 0.0
        gap = float((one - other).abs().max()) if one.numel() else 0.0
        worst = max(worst, gap / scale if scale else gap)
    return worst


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
