"""The inputs of a network that are made up: their names, shapes and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.benchmarks.harness.subjects import Shape
from compressor.errors import UsageError

# ONNX Runtime's names of types
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Declared:
    """One input as the file declares it: a dimension that is free has a name, or none."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str


def shapes_of(
    declared: Sequence[Declared], given: tuple[tuple[str, Shape], ...], batch: int
) -> dict[str, Shape]:
    """The shape of every input for this batch.

    Raises :class:`UsageError`, with the flags to add, where sizes are not known, and where a batch
    that is fixed in the file is another one.
    """
    asked = dict(given)
    if "" in asked and len(declared) == 1:
        asked = {declared[0].name: asked[""]}
    names = {item.name for item in declared}
    if unknown := set(asked) - names:
        raise UsageError(
            f"the network has {_count(declared)} ({', '.join(sorted(names))}), none called "
            f"{', '.join(sorted(unknown)) or 'as --input-shape without a name says'}: "
            f"give {' '.join(map(_flag, declared))}"
        )
    found: dict[str, Shape] = {}
    for item in declared:
        wanted = (batch, *asked[item.name][1:]) if item.name in asked else None
        if wanted is None:
            rest = item.shape[1:]
            if any(not isinstance(size, int) or size < 1 for size in rest) or not item.shape:
                raise UsageError(
                    f"the network has {_count(declared)}, and not all sizes of "
                    f"{item.name} are in the file: add {' '.join(map(_flag, declared))}"
                )
            wanted = (batch, *(int(size or 0) for size in rest))
        _check(item, wanted)
        found[item.name] = wanted
    return found


def _check(item: Declared, wanted: Shape) -> None:
    fixed = [isinstance(size, int) and size > 0 for size in item.shape]
    if len(wanted) != len(item.shape) or any(
        is_fixed and size != value
        for is_fixed, size, value in zip(fixed[1:], item.shape[1:], wanted[1:], strict=True)
    ):
        raise UsageError(f"input {item.name} has shape {_text(item)}, not {wanted}")
    if fixed and fixed[0] and item.shape[0] != wanted[0]:
        raise UsageError(f"the batch of this file is fixed at {item.shape[0]}, not {wanted[0]}")


def values_of(declared: Sequence[Declared], shapes: dict[str, Shape]) -> dict[str, Any]:
    """Arrays by name: floats standard normal, integers 0 or 1, always the same."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for item in declared:
        dtype = DTYPES.get(item.type)
        if dtype is None:
            raise UsageError(f"input {item.name} is a {item.type}, which cannot be made up")
        floating = np.issubdtype(dtype, np.floating)
        shape = shapes[item.name]
        made = draw.standard_normal(shape) if floating else draw.integers(0, 2, shape)
        arrays[item.name] = made.astype(dtype)
    return arrays


def _count(declared: Sequence[Declared]) -> str:
    return f"{len(declared)} input{'s' if len(declared) != 1 else ''}"


def _flag(item: Declared) -> str:
    sizes = [
        str(size) if isinstance(size, int) and size > 0 else str(size or "SIZE").upper()
        for size in item.shape[1:]
    ]
    return f"--input-shape {item.name}:{','.join(['1', *sizes])}"


def _text(item: Declared) -> str:
    return f"({', '.join(str(size) for size in item.shape)})"
