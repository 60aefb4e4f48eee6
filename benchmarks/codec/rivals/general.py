"""What one does without a codec for weights: half floats, INT8, and a general compressor on them.

Each method takes the tensors of a network and returns what they decode to and the bytes of a file
that holds them: safetensors, names and shapes included, compressed as a whole where zstd is named;
for Deep Compression a file whose directory is deflated, since safetensors' would be 5 to 8 % of it.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from safetensors.numpy import save

from compressor.benchmarks.codec.rivals import textbook

Arrays = Mapping[str, npt.NDArray[Any]]
Coded = tuple[int, dict[str, npt.NDArray[Any]]]

ZSTD_LEVEL = 19


def fp32(tensors: Arrays) -> Coded:
    return len(save(dict(tensors))), dict(tensors)


def fp16(tensors: Arrays) -> Coded:
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    return len(save(halves)), widened(halves)


def zstd_fp16(tensors: Arrays) -> Coded:
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    return len(zstandard.compress(save(halves), ZSTD_LEVEL)), widened(halves)


def int8(tensors: Arrays) -> Coded:
    file, decoded = _int8(tensors)
    return len(file), decoded


def zstd_int8(tensors: Arrays) -> Coded:
    file, decoded = _int8(tensors)
    return len(zstandard.compress(file, ZSTD_LEVEL)), decoded


def deep_compression(bits: int) -> Callable[[Arrays], Coded]:
    """`textbook` for the weights, with 2^bits shared values a tensor; float32 for the rest."""

    def method(tensors: Arrays) -> Coded:
        parts: dict[str, bytes] = {}
        decoded = dict(tensors)
        for name, value in tensors.items():
            parts[name] = value.tobytes()
            if value.ndim > 1:
                parts[name] = textbook.pack(*textbook.share(value, bits))
                decoded[name] = textbook.unpack(parts[name]).reshape(value.shape)
        directory = [[name, tensors[name].shape, len(part)] for name, part in parts.items()]
        head = zlib.compress(json.dumps(directory).encode(), 9)
        return len(head) + sum(map(len, parts.values())), decoded

    return method


METHODS: dict[str, Callable[[Arrays], Coded]] = {
    "fp32": fp32,
    "fp16": fp16,
    "zstd of fp16": zstd_fp16,
    "INT8 per channel": int8,
    "zstd of INT8": zstd_int8,
    **{f"Deep Compression, {bits} bits": deep_compression(bits) for bits in range(2, 9)},
}


def _int8(tensors: Arrays) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """Weights as round(w / s), s = largest |w| of the output channel / 127; the rest float32."""
    stored: dict[str, npt.NDArray[Any]] = {}
    decoded = dict(tensors)
    for name, value in tensors.items():
        stored[name] = value
        if value.ndim > 1:
            largest = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True)
            scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
            stored[name] = np.rint(value / scale).astype(np.int8)
            stored[f"{name}.scale"] = scale
            decoded[name] = stored[name] * scale
    return save(stored), decoded


def widened(halves: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {name: value.astype(np.float32) for name, value in halves.items()}
