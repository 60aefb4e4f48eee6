"""The table of ONNX operators as torch functions, and the values that they take and give.

A value is a tensor, or a NumPy array where it is known before the network runs: a size, an axis, a
small constant. Sizes that depend on the batch are ``torch.SymInt`` in arrays of objects. An
operator on arrays alone is computed on arrays, so sizes never become tensors, which
``torch.export`` could not follow. Attributes and versions are those of the ONNX specification:
https://onnx.ai/onnx/operators/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Value = Any  # Tensor | NDArray | None, where an optional input is left out
Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}
"""Operator of the standard domain -> ``function(step, *inputs)``, which gives one value or a tuple
of them."""


class Unsupported(Exception):
    """What of an operator cannot be turned into torch."""


@dataclass(frozen=True)
class Step:
    """One node: operator, its name in the file, names of inputs and outputs, attributes.

    ``opset`` is the version of the standard operators; ``batch`` the batch that the file fixes,
    or None where it is free.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    batch: int | None = None

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    @property
    def label(self) -> str:
        return self.name or self.outputs[0]


def register(*names: str) -> Callable[[Operator], Operator]:
    def put(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return put


def known(value: Value) -> bool:
    return isinstance(value, np.ndarray)


def tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """A value as a tensor, on the device of ``like``."""
    if isinstance(value, Tensor):
        return value
    if value.dtype == object:
        if any(isinstance(item, torch.SymInt) for item in value.flat):
            raise Unsupported("a size that depends on the batch is used as a number")
        value = value.astype(np.int64)
    found = torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)
    return found if like is None else found.to(like.device)


def operand(value: Value, like: Tensor) -> Any:
    """A value beside a tensor: one number stays a number, which takes the tensor's dtype."""
    if isinstance(value, Tensor):
        return value
    if value.size == 1 and value.ndim <= like.ndim and value.dtype != object:
        return value.item()
    if value.size == 1 and value.ndim == 0:
        return value.item()
    return tensor(value, like)


def integers(value: Value, what: str) -> list[Any]:
    """A known array as a list of whole numbers, some of which may depend on the batch."""
    if not known(value):
        raise Unsupported(f"{what} is computed from the network's input")
    return [item if isinstance(item, torch.SymInt) else int(item) for item in value.flat]


def axes_of(step: Step, given: Value, name: str = "axes") -> list[int] | None:
    """An operator's axes: an attribute in older versions, an input in newer ones."""
    if given is not None:
        return integers(given, name)
    found = step.get(name)
    return None if found is None else list(found)


def settled(value: Value) -> Value:
    """An array of objects as one of numbers, once nothing in it depends on the batch."""
    if not known(value) or value.dtype != object:
        return value
    if any(isinstance(item, torch.SymInt) for item in value.flat):
        return value
    return value.astype(np.int64)


def array(items: Sequence[Any]) -> NDArray[Any]:
    """Whole numbers as an array, of objects where some depend on the batch."""
    symbolic = any(isinstance(item, torch.SymInt) for item in items)
    found = np.empty(len(items), dtype=object if symbolic else np.int64)
    found[:] = items
    return found
