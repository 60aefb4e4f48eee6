"""Every known architecture in one line each, found by name or by the shapes of its weights.

torch is imported when a network is built or recognised, not when this module is.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from compressor.errors import LoadError, UsageError

if TYPE_CHECKING:
    from torch import nn

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """How to build one network and what it takes.

    ``factory`` is "module:function", imported on first use; the function takes the number of
    classes. ``input_shape`` is (C, H, W) without the batch.
    """

    name: str
    factory: str
    input_shape: tuple[int, int, int]
    classes: int
    summary: str

    def build(self, classes: int | None = None) -> nn.Module:
        """A freshly initialised network, by torch's global generator and default device.

        Raises UsageError where ``classes`` is below 1.
        """
        count = self.classes if classes is None else classes
        if count < 1:
            raise UsageError(f"{self.name} needs at least 1 class, not {count}")
        module, function = self.factory.split(":")
        network: nn.Module = getattr(import_module(module), function)(count)
        return network


_GREY, _TINY, _LARGE = (1, 28, 28), (3, 32, 32), (3, 224, 224)
_LENET, _VGG = "compressor.models.lenet:", "compressor.models.vgg:"
_DEEP, _THIN = "compressor.models.resnet:", "compressor.models.resnet_thin:"

_TABLE = (
    Architecture("lenet-300-100", _LENET + "LeNet300", _GREY, 10, "MNIST, 266,610 parameters"),
    Architecture("lenet5", _LENET + "LeNet5", _GREY, 10, "Caffe's, 431,080 parameters"),
    Architecture("lenet5-small", _LENET + "LeNet5Small", _GREY, 10, "thin, 167,566 parameters"),
    Architecture("vgg-cifar", _VGG + "VGG", _TINY, 10, "batch norm, 9.23 M parameters"),
    Architecture("resnet18", _DEEP + "resnet18", _LARGE, 1000, "ImageNet, 11.7 M parameters"),
    Architecture("resnet50", _DEEP + "resnet50", _LARGE, 1000, "ImageNet, 25.6 M parameters"),
    Architecture("resnet18-cifar", _DEEP + "resnet18_cifar", _TINY, 10, "CIFAR, 11.2 M parameters"),
    Architecture("resnet50-cifar", _DEEP + "resnet50_cifar", _TINY, 10, "CIFAR, 23.5 M parameters"),
    Architecture("resnet20", _THIN + "resnet20", _TINY, 10, "CIFAR, 269,722 parameters"),
    Architecture("resnet32", _THIN + "resnet32", _TINY, 10, "CIFAR, 464,154 parameters"),
    Architecture("resnet44", _THIN + "resnet44", _TINY, 10, "CIFAR, 658,586 parameters"),
    Architecture("resnet56", _THIN + "resnet56", _TINY, 10, "CIFAR, 853,018 parameters"),
)

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in _TABLE}


def names() -> list[str]:
    """The names that ``get`` knows, in the registry's order."""
    return list(ARCHITECTURES)


def get(name: str) -> Architecture:
    """The architecture of that name. Raises LoadError, with close matches and all names."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    close = difflib.get_close_matches(name.lower().replace("_", "-"), names())
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise LoadError(f"no architecture is called {name!r}{hint} (known: {', '.join(names())})")


def recognise(shapes: Shapes) -> tuple[Architecture, int]:
    """The one architecture that has tensors of exactly these names and shapes.

    ``shapes`` maps the names of a state_dict, prefixes removed, to shapes; the counters
    ``num_batches_tracked``, which older checkpoints lack, are ignored. The number of classes
    is read off the last linear layer. Returns the architecture and that number. Raises
    LoadError where none fits, naming the closest and the first tensor that differs, and where
    several fit, naming them.
    """
    found = without_counters(shapes)
    fits = [entry for entry in ARCHITECTURES.values() if _expected(entry, found) == found]
    if not fits:
        raise LoadError(_closest(found))
    if len(fits) > 1:
        options = " or ".join(f"--arch {entry.name}" for entry in fits)
        alike = " and ".join(entry.name for entry in fits)
        raise LoadError(f"these weights fit {alike} alike; choose with {options}")
    return fits[0], _classes(fits[0], found)


def without_counters(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """``shapes`` less the ``num_batches_tracked`` of batch norms."""
    kept = (name for name in shapes if not name.endswith("num_batches_tracked"))
    return {name: tuple(shapes[name]) for name in kept}


@functools.cache
def _reference(entry: Architecture) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes at the default number of classes, and the name of the last linear layer.

    Built on the meta device: no memory, no random numbers drawn from the caller's generator.
    """
    import torch
    from torch import nn

    with torch.device("meta"):
        network = entry.build()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return without_counters(shapes), linear[-1]


def _classes(entry: Architecture, found: Shapes) -> int:
    head = found.get(f"{_reference(entry)[1]}.weight", ())
    return head[0] if len(head) == 2 and head[0] else entry.classes


def _expected(entry: Architecture, found: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of ``entry`` once its last layer has as many classes as ``found`` has."""
    shapes, head = _reference(entry)
    classes = _classes(entry, found)
    weight, bias = f"{head}.weight", f"{head}.bias"
    return {**shapes, weight: (classes, *shapes[weight][1:]), bias: (classes,)}


def _closest(found: Shapes) -> str:
    def likeness(entry: Architecture) -> tuple[float, float]:
        expected = _expected(entry, found)
        pairs = len(expected.items() & found.items()) / len(expected.items() | found.items())
        return pairs, len(expected.keys() & found.keys()) / len(expected.keys() | found.keys())

    known = ", ".join(names())
    advice = (
        f"name the network with --arch ({known}, torchvision:NAME, timm:NAME, FILE.py:FUNCTION)"
    )
    best = max(ARCHITECTURES.values(), key=likeness)
    if likeness(best) == (0.0, 0.0):
        return f"these weights share no tensor name with any known architecture; {advice}"
    difference = first_difference(_expected(best, found), found)
    nearest = f"the closest is {best.name}, but {difference}"
    return f"these weights fit no known architecture; {nearest}; {advice}"


def first_difference(expected: Shapes, found: Shapes) -> str:
    """Half a sentence on the first tensor in which two unequal sets of shapes differ."""
    for name, shape in expected.items():
        if name not in found:
            return f"{name} of shape {shape} is missing from the file"
        if found[name] != shape:
            return f"{name} has shape {found[name]}, not {shape}"
    extra = next(name for name in found if name not in expected)
    return f"the file also has {extra} of shape {found[extra]}"
