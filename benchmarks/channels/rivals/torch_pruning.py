"""Torch-Pruning on one network of the coverage. Runs in the environment of ``environment.py``.

    PYTHON -m compressor.benchmarks.channels.rivals.torch_pruning torchvision:resnet18

It is given what its users give it: half of the channels, L2 over groups, the layer that makes the
network's outputs ignored, heads of attention named where timm's modules have them. A network passes
where it is pruned, still runs, takes fewer multiply-adds, and, where that can be told, computes
what the network with the removed slices zeroed computes: ``masked`` is that difference, relative
and in float64. It is null where norms over channels or unusual layers forbid a judgement; such a
network passes without one.
"""

import argparse
import copy
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressor.benchmarks.channels.networks import attempted, build
from compressor.channels.proof import compare, run
from compressor.reporting.measure import layer_macs

RATIO = 0.5
TOLERANCE = 1e-5

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser()
    described.add_argument("network")
    name = described.parse_args(words).network
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(json.dumps(attempted(name, cover)), flush=True)


def cover(row: Row) -> None:
    network = build(row["network"])
    module, example = network.module, torch.zeros(1, *network.shape)
    dense, before = copy.deepcopy(module), layer_macs(module, example)[""]
    row["step"] = "prune"
    masked = prune(module, example)
    row["step"] = "run"
    after = layer_macs(module, example)[""]
    parameters = [sum(each.numel() for each in net.parameters()) for net in (dense, module)]
    row.update(
        macs=[before, after],
        macs_ratio=round(before / after, 3),
        parameters_ratio=round(parameters[0] / parameters[1], 3),
    )
    if after >= before:
        raise RuntimeError("nothing was removed")
    row["step"] = "compare"
    row["masked"] = None
    if masked.known:
        x = torch.randn(2, *network.shape, generator=torch.Generator().manual_seed(1)).double()
        row["masked"] = compare(run(masked.applied(dense), x), run(module, x))
        if not row["masked"] <= TOLERANCE:
            raise RuntimeError("a silent error: not what the masked network computes")


def prune(module: nn.Module, example: Tensor) -> "Masked":
    """Prune in place, group by group; which slices went is kept."""
    outputs = module(example).shape[-1]
    heads = {
        each.qkv: each.num_heads
        for each in module.modules()
        if isinstance(getattr(each, "qkv", None), nn.Linear) and hasattr(each, "num_heads")
    }
    last = [
        each
        for each in module.modules()
        if (isinstance(each, nn.Linear) and each.out_features == outputs)
        or (isinstance(each, nn.Conv2d) and each.out_channels == outputs)
    ]
    pruner = tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=last[-1:],
        num_heads=dict(heads),
    )
    masked = Masked(module)
    for group in pruner.step(interactive=True):
        masked.note(group)
        group.prune()
    if hasattr(module, "hidden_dim"):  # torchvision's transformer has its width as a number
        stem: Any = module.get_submodule("conv_proj")
        module.hidden_dim = stem.out_channels
    attention: Any
    for attention in module.modules():  # timm's keeps sizes of its own
        if getattr(attention, "qkv", None) in heads:
            attention.num_heads = pruner.num_heads[attention.qkv]
            attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)
    return masked


class Masked:
    """Which slices of which layers were removed, as indices of the original network."""

    def __init__(self, module: nn.Module) -> None:
        self.names = {each: name for name, each in module.named_modules()}
        self.left: dict[tuple[str, int], np.ndarray[Any, np.dtype[np.int64]]] = {}
        self.whole: dict[tuple[str, int], int] = {}
        norms = (nn.LayerNorm, nn.GroupNorm)
        self.known = not any(isinstance(each, norms) for each in module.modules())

    def note(self, group: Any) -> None:
        """To be called before the group is pruned: indices count from what is left now."""
        gone: dict[tuple[str, int], set[int]] = {}
        for item, indices in group:
            layer, axis = item.target.module, _axis(item)
            if type(layer).__module__.startswith("torch_pruning"):  # an operator without weights
                continue
            if layer not in self.names or axis is None:
                self.known = False
                continue
            key = self.names[layer], axis
            gone.setdefault(key, set()).update(map(int, indices))
            self.whole.setdefault(key, layer.weight.shape[axis])
        for key, each in gone.items():
            left = self.left.setdefault(key, np.arange(self.whole[key]))
            if max(each, default=0) >= len(left):  # whether that is an error is not ours to say
                self.known = False
                continue
            self.left[key] = np.delete(left, sorted(each))

    def applied(self, module: nn.Module) -> nn.Module:
        """A copy of the original network with all that is gone zeroed."""
        copied = copy.deepcopy(module)
        for (name, axis), left in self.left.items():
            layer = copied.get_submodule(name)
            index = torch.from_numpy(np.setdiff1d(np.arange(self.whole[name, axis]), left))
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(layer, leaf, None)
                if isinstance(value, Tensor) and (leaf == "weight" or axis == 0):
                    value.data.index_fill_(axis, index, 0.0)
        return copied


def _axis(item: Any) -> int | None:
    """The axis of a layer's weight that an item of a group removes from; None where unclear."""
    layer = item.target.module
    if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.PReLU):
        return 0
    if isinstance(layer, nn.Linear | nn.Conv2d):
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            return 0 if layer.groups == layer.in_channels == layer.out_channels else None
        return 0 if "out" in item.handler.__name__ else 1
    return None


if __name__ == "__main__":
    main()
