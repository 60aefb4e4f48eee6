"""A network in the form in which it is stored, and back: between torch and the artifact."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.artifact import Shared, is_grid
from compressor.export import graph
from compressor.layers import bake, compressible_layers, shared_of
from compressor.memory import give_back
from compressor.network import Network

Stored = dict[str, NDArray[Any] | Shared]
_HALF = np.finfo(np.float16)
_FEW = 2


def stored_tensors(network: Network, width: str, biases: int = 0) -> Stored:
    """Every tensor under its plain ``state_dict`` name, as the artifact stores it.

    Shared layers become indices and codebook; all others plain arrays. Vectors (biases, norm
    parameters and statistics, codebooks) are rounded to ``width``: float32 values that float16
    holds exactly where it is "fp16", unless one is too large for that. Codebooks that are multiples
    of one step stay as they are, since the step is all that is stored. The biases of compressible
    layers become multiples of a step, of ``biases`` bits, where that is over 0. Batch counters are
    left out: they do not take part in inference, and PyTorch loads a network without them.
    """
    shared = {
        layer.tensor: pair
        for layer in compressible_layers(network.module, every_name=True).values()
        if (pair := shared_of(layer)) is not None
    }
    plain = plain_state(network.module)
    gridded = {f"{name}.bias" for name in compressible_layers(network.module, every_name=True)}
    stored: Stored = {}
    for name in network.names:
        if name in shared:
            indices, codebook = shared[name]
            kept = len(codebook) > _FEW and is_grid(codebook)  # a step is shorter than two entries
            book = codebook if kept else rounded(codebook, width)
            stored[name] = Shared(_smallest(indices), book)
        elif biases and name in gridded and plain[name].dtype == np.float32:
            stored[name] = on_grid(plain[name], biases)
        else:
            stored[name] = rounded(plain[name], width) if plain[name].ndim <= 1 else plain[name]
    return stored


def plain_state(module: nn.Module, *, every_name: bool = True) -> dict[str, NDArray[Any]]:
    """The values the network computes with, by plain name, parametrizations applied.

    What a module holds that has several names in the network stands under each, as in its
    ``state_dict``, or only under the first.
    """
    state = {}
    for name, child in module.named_modules(remove_duplicate=not every_name):
        if ".parametrizations" in f".{name}":
            continue
        prefix = f"{name}." if name else ""
        own = {
            **dict(child.named_parameters(recurse=False)),
            **dict(child.named_buffers(recurse=False)),
        }
        if hasattr(child, "parametrizations"):
            own |= {leaf: getattr(child, leaf) for leaf in child.parametrizations}
        for leaf, value in own.items():
            state[prefix + leaf] = value.detach().cpu().numpy()
    return state


def skeleton_of(network: Network, opset: int) -> bytes:
    """The ONNX graph of the network as it is now, without its weights."""
    held = network.module.state_dict(keep_vars=True)
    # What a parametrization computes is made anew; all else is shared, not copied. (From another
    # device it is copied anyway, and moving what is shared would move the network's own.)
    own = {id(v): v for n, v in held.items() if ".original" not in n and v.device.type == "cpu"}
    module = copy.deepcopy(network.module, memo=own if len(own) else None).cpu()
    bake(module)
    return graph.trace(module, network.example, opset)


def load_decoded(module: nn.Module, tensors: Callable[[], Mapping[str, NDArray[Any]]]) -> None:
    """Make ``module`` compute with exactly the values of ``tensors``, without parametrizations.

    Those go first: a large network has no room for them and what is decoded.
    """
    bake(module)
    own = module.state_dict()
    with torch.no_grad():
        for name, value in tensors().items():
            own[name].copy_(_as_tensor(value))


def _as_tensor(value: NDArray[Any]) -> torch.Tensor:
    """The same memory; of raw tensors, which are views of the file, a copy."""
    return torch.from_numpy(value if value.flags.writeable else value.copy())


@contextmanager
def released(
    module: nn.Module, tensors: Callable[[], Mapping[str, NDArray[Any]]]
) -> Iterator[None]:
    """A plain module without the values of its large tensors, and with those of ``tensors`` again
    afterwards, which are to be the same."""
    own = module.state_dict(keep_vars=True)
    floats = {name: value for name, value in own.items() if value.is_floating_point()}
    large = {name: value for name, value in floats.items() if value.numel() >= _LARGE}
    shapes = {name: value.shape for name, value in large.items()}
    for value in large.values():
        value.data = value.data.new_empty(0)
    give_back()
    try:
        yield
    finally:
        held = tensors()
        for name, value in large.items():
            value.data = _as_tensor(held[name]).to(value.device).view(shapes[name])


_LARGE = 1 << 16


def rounded(values: NDArray[Any], width: str) -> NDArray[Any]:
    """Float32 ``values`` rounded to what ``width`` holds, still as float32."""
    if width != "fp16" or values.dtype != np.float32 or np.abs(values).max(initial=0.0) > _HALF.max:
        return values
    return values.astype(np.float16).astype(np.float32)


def on_grid(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Float32 ``values`` rounded to multiples of a step, from -m to m with m = 2^(bits - 1) - 1.

    The step has twelve significant bits, so multiples are exact and the file can tell it from them.
    """
    most = (1 << (bits - 1)) - 1
    largest = float(np.abs(values).max(initial=0.0))
    if not 0.0 < largest < np.inf:
        return values + np.float32(0)
    mantissa, exponent = np.frexp(largest / most)
    step = float(np.ldexp(np.ceil(mantissa * 4096) / 4096, exponent))
    levels = np.rint(values / step) + 0.0  # no -0.0, which is not a whole number of steps
    return (levels * step).astype(np.float32)


def _smallest(indices: NDArray[np.int32]) -> NDArray[Any]:
    return indices.astype(np.min_scalar_type(int(indices.max(initial=0))))
