"""A user's own arrays: a .npz file, or what a function in a Python file returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compressor import user_code
from compressor.errors import DataError
from compressor.training.data_arrays import (
    TEST_FRACTION,
    TEST_SEED,
    as_pairs,
    as_split,
    permuted,
    split_off,
)
from compressor.training.data_sources import Source, read_npz


def npz(path: Path, input_shape: Any, *, labels: bool = True) -> Source:
    """x_train, y_train, x_test, y_test; or x and y, of which a fixed fifth becomes the test."""
    arrays, read = read_npz(path), as_split if labels else as_pairs
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        train, test = (
            read(arrays[f"x_{part}"], arrays[f"y_{part}"], input_shape, f"{path} ({part})")
            for part in ("train", "test")
        )
    elif {"x", "y"} <= arrays.keys():
        whole = read(arrays["x"], arrays["y"], input_shape, str(path))
        train, test = (
            split_off(whole, path) if labels else permuted(whole, TEST_FRACTION, TEST_SEED)
        )
    else:
        raise DataError(
            f"{path} must hold x_train, y_train, x_test and y_test, or x and y, "
            f"but holds {', '.join(arrays) or 'nothing'}"
        )
    return Source(path.stem, train, test)


def script(path: Path, function: str, input_shape: Any, *, labels: bool = True) -> Source:
    """What ``function()`` of the Python file ``path`` returns: (train, test).

    Each is (x, y), arrays or tensors, or a map-style Dataset of (image, label), which is read
    once into memory: random augmentation in it is drawn once. Without ``labels`` the second of each
    pair may be targets of any shape. Raises DataError with the file, line and exception where the
    user's code raises.
    """
    make = user_code.function(path, function, "--data", DataError)
    with user_code.running(path, f"--data {path}", DataError):
        made = make()
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise DataError(f"{path}:{function} must return (train, test), not {_kind(made)}")
        pairs = [_arrays(part, f"{path}:{function}", labels=labels) for part in made]
    where = (f"{path}:{function} (train)", f"{path}:{function} (test)")
    train, test = (
        (as_split if labels else as_pairs)(x, y, input_shape, name)
        for (x, y), name in zip(pairs, where, strict=True)
    )
    return Source(f"{path.stem}:{function}", train, test)


def _arrays(part: Any, where: str, *, labels: bool) -> tuple[Any, Any]:
    if isinstance(part, tuple | list) and len(part) == 2:
        return part[0], part[1]
    if isinstance(part, tuple | list) or not hasattr(part, "__getitem__"):
        raise DataError(f"{where}: each part must be (x, y) or a Dataset, not {_kind(part)}")
    items = [part[index] for index in range(len(part))]
    if not items:
        raise DataError(f"{where} gives a Dataset without images")
    x = np.stack([np.asarray(image) for image, _ in items])
    if labels:
        return x, [int(label) for _, label in items]
    return x, np.stack([np.asarray(target) for _, target in items])


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"
