"""What a scan tries: one layer or group of channels changed, everything else as it was."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compressor.channels.allocation import uniform, worth
from compressor.channels.dependencies import Dependencies, Group
from compressor.channels.importance import importance
from compressor.channels.limits import Limits
from compressor.channels.proof import Removal, zero
from compressor.layers import Layer
from compressor.network import Network
from compressor.quantization.clustering import cluster
from compressor.scan.replay import Operators

KINDS = ("weights", "channels", "bits")
SPARSITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
BITS = (8, 7, 6, 5, 4, 3, 2, 1)


@dataclass(frozen=True, eq=False)
class Variant:
    """One change: ``value`` (a sparsity, a ratio, bits) of ``unit``, which is made of ``layers``.

    ``names`` are the parameters that ``changes`` gives new values; ``facts`` what it came to.
    """

    kind: str
    unit: str
    layers: tuple[str, ...]
    value: float
    names: tuple[str, ...]
    changes: Callable[[], Mapping[str, Tensor]]
    facts: dict[str, Any] = field(default_factory=dict)
    operators: Operators | None = None


def weights(layer: Layer) -> Iterable[Variant]:
    """The round(s n) smallest weights of a layer set to zero, of several as small the first."""
    weight, name = layer.weight, layer.tensor
    order = torch.argsort(weight.abs().flatten(), stable=True)
    for sparsity in SPARSITIES:
        zeros = round(sparsity * weight.numel())
        if not 0 < zeros < weight.numel():
            continue

        def changes(zeros: int = zeros) -> Mapping[str, Tensor]:
            pruned = weight.flatten().clone()
            pruned[order[:zeros]] = 0.0
            return {name: pruned.view_as(weight)}

        facts = {"sparsity": sparsity, "zeros": zeros, "of": weight.numel()}
        yield Variant("weights", layer.name, (layer.name,), sparsity, (name,), changes, facts)


def bits(layer: Layer, seed: int = 0) -> Iterable[Variant]:
    """A layer's weights that are not zero shared among 2^b centroids of k-means, not fine-tuned."""
    weight, name = layer.weight, layer.tensor
    values = weight.cpu().numpy()
    kept = values != 0
    if not kept.any():
        return
    for width in BITS:
        found = cluster(values[kept], 1 << width, seed=seed)
        indices = np.zeros(values.shape, dtype=np.uint16)
        indices[kept] = found.labels + 1
        table = np.concatenate([np.zeros(1, dtype=np.float32), found.codebook])
        # Kept as indices: all widths of all layers as float32 would be ten networks.
        small = torch.from_numpy(indices.astype(np.min_scalar_type(len(table) - 1)))

        def changes(small: Tensor = small, table: Any = table) -> Mapping[str, Tensor]:
            return {name: torch.from_numpy(table)[small.int()].to(weight.device)}

        counts = np.bincount(found.labels)
        facts = {"bits": width, "centroids": len(found.codebook), "entropy": entropy(counts)}
        yield Variant("bits", layer.name, (layer.name,), width, (name,), changes, facts)


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits of one symbol of a source with these counts."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


class Channels:
    """The groups of channels of a network; those that the same layers make are one unit."""

    def __init__(self, network: Network, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        scores = importance(dependencies, network.module, "l2")
        self.worths = worth(dependencies.groups, scores, raw=False)
        self.tensors: dict[str, Tensor] = {
            name: value.detach()
            for name, value in (
                *network.module.named_parameters(remove_duplicate=False),
                *network.module.named_buffers(remove_duplicate=False),
            )
        }
        self.units: dict[str, list[Group]] = {}
        for group in dependencies.groups:
            self.units.setdefault("+".join(dict.fromkeys(group.layers)), []).append(group)

    def variants(self, unit: str) -> Iterable[Variant]:
        """The channels worth least by their squared weights (l2) taken out of one unit.

        They are set to zero, with all that depends on them, which computes what the network
        without them does; nothing is retrained, fitted or re-estimated.
        """
        groups = self.units[unit]
        layers = tuple(dict.fromkeys(layer for group in groups for layer in group.layers))
        total, before = sum(len(group.classes) for group in groups), -1
        limits = Limits([group.classes for group in groups], keep=1, multiple=1)
        for ratio in RATIOS:
            wanted = uniform(groups, self.worths, [ratio] * len(groups))
            removed = limits.met(wanted, self.worths)
            if len(removed) in (0, before):
                continue
            before = len(removed)
            keep = self.dependencies.keep(removed)
            names = tuple(sorted({name for name, _ in keep}))

            def changes(keep: Any = keep, names: Any = names) -> Mapping[str, Tensor]:
                changed = {name: self.tensors[name].clone() for name in names}
                zero(changed, keep)
                return changed

            facts = {"ratio": len(removed) / total, "left": total - len(removed), "of": total}
            operators = _without(Removal(self.dependencies, removed))
            yield Variant("channels", unit, layers, ratio, names, changes, facts, operators)


def _without(removal: Removal) -> Operators:
    """Norms over channels that do not count the removed ones."""

    def compute(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        norm = removal.norm(node)
        return NotImplemented if norm is None else norm(removal, node, *args, **kwargs)

    return compute
