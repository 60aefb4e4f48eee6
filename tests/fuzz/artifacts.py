"""Small files as the encoder writes them, every mode among them: what is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from compressor.artifact import Mode, Shared, decode, encode
from compressor.artifact.context_packing import pack_context
from compressor.artifact.types import Profile

SEGMENT = 200
"""Weights of a segment: the format's 2^20 would be too slow to make millions of."""
SINGLE = 16
"""How many of the files have one tensor: they come first."""


def network(seed: int = 0) -> dict[str, Any]:
    """A few tensors of all kinds, of 30 to 1,200 weights."""
    rng = np.random.default_rng(seed)
    floats = rng.normal(size=(20, 30)).astype(np.float32)
    few = np.where(rng.random((20, 30)) < 0.1, floats, np.float32(0))
    indices = np.where(rng.random((30, 40)) < 0.2, rng.geometric(0.4, (30, 40)).clip(1, 15), 0)
    return {
        "conv.weight": Shared(indices.astype(np.uint8), floats[0, :15]),
        "conv.bias": floats[1],
        "fc.weight": few,
        "fc.half": few.astype(np.float16).astype(np.float32),
        "dense": Shared((indices + 1).astype(np.uint8), np.arange(16, dtype=np.float32)),
        "norm": np.ones(30, dtype=np.float32),
        "flag": np.array([True, False, True]),
        "steps": np.array(7),
    }


def whole(seed: int = 0, **options: Any) -> bytes:
    """A file of that network, with a graph and a text."""
    return encode(network(seed), graph=b"nodes " * 40, metadata={"tool": "test"}, **options)


@dataclass(frozen=True)
class Sound:
    """A file, and what it holds."""

    blob: bytes
    tensors: dict[str, bytes]
    graph: bytes | None
    modes: frozenset[Mode]


def sound(blob: bytes) -> Sound:
    """Decode a file that nothing is wrong with."""
    artifact = decode(blob)
    tensors = {name: tensor.tobytes() for name, tensor in artifact.tensors().items()}
    modes = frozenset(entry.mode for entry in artifact.entries)
    return Sound(blob, tensors, artifact.graph, modes)


def _sparse(seed: int, shape: tuple[int, ...], symbols: int, keep: float) -> Shared:
    rng = np.random.default_rng(seed)
    values = np.minimum(rng.geometric(min(0.7, 3 / symbols), shape), symbols)
    indices = np.where(rng.random(shape) < keep, values, 0).astype(np.min_scalar_type(symbols))
    return Shared(indices, np.sort(rng.normal(size=symbols)).astype(np.float32))


def _leaping(seed: int) -> Shared:
    """Runs of zeros whose lengths are powers of two: gaps for rANS."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(1 << rng.integers(0, 7, 60))
    indices = np.zeros(int(at[-1]) + 1, dtype=np.uint8)
    indices[at] = 1 + (rng.random(60) < 0.1)
    return Shared(indices, np.array([-1, 2], dtype=np.float32))


def _scaled(seed: int) -> Shared:
    """Indices whose size goes with the channels, for classes and contexts; a grid."""
    rng = np.random.default_rng(seed)
    octaves = rng.integers(0, 4, (12, 1, 1)) + rng.integers(0, 3, (1, 8, 1))
    wide = np.rint(rng.laplace(0, 0.3, (12, 8, 9)) * 2.0**octaves).clip(-15, 15).astype(int)
    indices = np.where(wide, wide + np.where(wide < 0, 16, 15), 0).astype(np.uint8)
    book = np.delete(np.arange(-15, 16), 15).astype(np.float32) * np.float32(0.1)
    return Shared(indices.reshape(12, 8, 3, 3), book)


def _small(seed: int) -> Shared:
    """A few kernels of signed levels, a grid."""
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(0, 2, (4, 2, 3, 3))).clip(-6, 6).astype(int)
    indices = np.where(levels, levels + np.where(levels < 0, 7, 6), 0).astype(np.uint8)
    return Shared(indices, np.delete(np.arange(-6, 7), 6).astype(np.float32))


def _numbers(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return rng.integers(-50, 50, 40).astype(np.float32) * np.float32(0.0234375)


@contextmanager
def in_segments() -> Iterator[None]:
    """Let the package cut tensors into segments of `SEGMENT` weights."""
    with mock.patch("compressor.coding.gaps.SEGMENT", SEGMENT):
        yield


@contextmanager
def preferring(mode: Mode) -> Iterator[None]:
    """Let the encoder take ``mode`` for each tensor that it can write so, whatever it costs."""

    def cost(other: Mode, size: int) -> int:
        return size + (-1 if other is mode else 1) * (1 << 40)

    with (
        mock.patch("compressor.artifact.packing.payload_cost", cost),
        mock.patch("compressor.artifact.packing._entropy_coded", _all_coded),
    ):
        yield


def _all_coded(
    flat: Any, tensor: Shared, planned: list[Any], cost: int, profile: Profile
) -> Iterator[tuple[Mode, bytes]]:
    """Write all that was planned, and not the likely ones alone."""
    for each in planned:
        yield each.mode, each.pack()
    if profile == "best":
        data = pack_context(flat, tensor.indices.shape, tensor.codebook)
        if data is not None:
            yield Mode.CONTEXT, data


@cache
def artifacts() -> tuple[Sound, ...]:
    """The files: one tensor each in every mode, then several tensors together.

    They are cut into small segments, and are to be decoded `in_segments`.
    """
    with in_segments():
        return _made()


def _made() -> tuple[Sound, ...]:
    plain, many = network(), np.arange(1, 301, dtype=np.float32)
    single: list[tuple[Mode, Profile, Any]] = [
        (Mode.RAW, "best", plain["conv.bias"]),
        (Mode.RAW, "best", plain["flag"]),
        (Mode.FP16, "huffman", np.arange(40, dtype=np.float32)),
        (Mode.GAP_SHARED, "huffman", _sparse(1, (12, 20), 15, 0.2)),
        (Mode.GAP_SHARED, "huffman", Shared(_sparse(2, (200,), 300, 0.9).indices, many)),
        (Mode.GAP_SHARED, "flat", _sparse(3, (12, 20), 15, 0.2)),
        (Mode.GAP_FLOAT, "huffman", plain["fc.weight"][:6]),
        (Mode.GAP_FLOAT, "huffman", plain["fc.half"][:6]),
        (Mode.GAP_RANS, "fast", _leaping(4)),
        (Mode.GAP_RANS, "fast", _sparse(5, (10, 30), 12, 0.1)),
        (Mode.DENSE_RANS, "fast", _sparse(6, (10, 12), 3, 0.3)),
        (Mode.DENSE_RANS, "fast", _scaled(7)),
        (Mode.CONTEXT, "best", _sparse(8, (6, 12), 3, 0.3)),
        (Mode.CONTEXT, "best", _small(9)),
        (Mode.PACKED, "best", _numbers(10)),
        (Mode.PACKED, "best", plain["norm"]),
    ]
    found = []
    for mode, profile, tensor in single:
        with preferring(mode):
            found.append(sound(encode({"w": tensor}, profile=profile)))
        if found[-1].modes != {mode}:
            raise ValueError(f"a tensor that should be {mode.name} is {found[-1].modes}")
    if len(found) != SINGLE:
        raise ValueError(f"there are {len(found)} files of one tensor, not {SINGLE}")
    found += [sound(whole(profile=profile)) for profile in ("best", "huffman")]
    return tuple(found)
