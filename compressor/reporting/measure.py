"""What a network is, in numbers: parameters, zeros, MACs."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from compressor.examples import Example, inputs_of, on
from compressor.layers import compressible_layers, single_layers
from compressor.network import Network
from compressor.storage import plain_state


@dataclass(frozen=True)
class Size:
    """Counts over a whole network.

    ``parameters`` are those of the dense network, ``nonzero`` those that are not 0. ``sparsity``
    is the fraction of zeros among the weights of convolutions and linear layers. ``macs`` are
    multiply-adds of a dense runtime for one input, zeros included; ``nonzero_macs`` those of them
    that meet a weight other than 0.
    """

    parameters: int
    nonzero: int
    sparsity: float
    macs: int
    nonzero_macs: int

    def row(self) -> dict[str, Any]:
        return asdict(self)


def measure(network: Network, macs: dict[str, int]) -> Size:
    """Count ``network`` as it is now; ``macs`` per layer as from :func:`layer_macs`."""
    plain = plain_state(network.module, every_name=False)
    layers = compressible_layers(network.module)
    weights = {name: plain[layer.tensor] for name, layer in layers.items()}
    kept = {name: int((weight != 0).sum()) for name, weight in weights.items()}
    total = sum(weight.size for weight in weights.values())
    buffers = {name for name, _ in network.module.named_buffers()}
    parameters = [value for name, value in plain.items() if name not in buffers]
    used = sum(macs[n] * kept[n] / max(1, weights[n].size) for n in layers)
    others = macs[""] - sum(macs[name] for name in layers)
    return Size(
        parameters=sum(value.size for value in parameters),
        nonzero=sum(int((value != 0).sum()) for value in parameters),
        sparsity=1 - sum(kept.values()) / total if total else 0.0,
        macs=macs[""],
        nonzero_macs=round(used) + others,
    )


def _attention(*tensors: Any, **_: Any) -> int:
    """Floating-point operations of attention by its shapes: the CPU's own kernel is not counted."""
    return int(sdpa_flop_count(*tensors[:3]))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without oneDNN, whose recurrent layers are one operator that the counter does not know."""
    with warnings.catch_warnings():  # torch has news of its settings for hardware that is not here
        warnings.simplefilter("ignore")
        flags: Any = torch.backends.mkldnn.flags
        with flags(enabled=False):
            yield


@contextlib.contextmanager
def _untrained(module: nn.Module) -> Iterator[None]:
    """With parameters that ask for no gradient: the counter hooks into those that a layer is handed
    as its input, and fails where one was expanded without recording."""
    trained = [value for value in module.parameters() if value.requires_grad]
    for value in trained:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in trained:
            value.requires_grad_(True)


def layer_macs(module: nn.Module, example: Example) -> dict[str, int]:
    """MACs of every layer for one input, and under "" the whole network's.

    One multiply-add is one MAC: half of what ``torch.utils.flop_counter`` counts.
    """
    on_cpu: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={on_cpu: _attention})
    device = next(module.parameters()).device
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that the counter does not know
    try:
        with counter, torch.no_grad(), _plain_kernels(), _untrained(module):
            module.eval()(*inputs_of(on(example, device)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    root = type(module).__name__
    macs = {name: counts.get(f"{root}.{name}", 0) for name in single_layers(module)}
    for name, child in module.named_modules():
        if isinstance(child, nn.RNNBase):
            macs |= _recurrent(name, child, counts.get(f"{root}.{name}", 0))
    macs |= {name: 0 for name in compressible_layers(module) if name not in macs}
    return {"": counter.get_total_flops() // 2, **macs}


def _recurrent(name: str, module: nn.RNNBase, macs: int) -> dict[str, int]:
    """A recurrent layer's MACs by matrix: each is used at every step, so by their sizes."""
    own = [leaf for leaf in module._flat_weights_names if leaf.startswith("weight_")]
    sizes = {leaf: getattr(module, leaf).numel() for leaf in own}
    total = max(1, sum(sizes.values()))
    return {f"{name}.{leaf}": macs * size // total for leaf, size in sizes.items()}
