"""Decoding takes at most twice the declared output, and 64 MiB, in every mode and backend.

What grows with the tensor is measured apart from what does not: peaks at two sizes give both.
"""

import tracemalloc
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest import mock

import numpy as np
import pytest

from compressor.artifact import Artifact, Limits, Mode, Shared, decode, encode
from compressor.artifact.types import Profile
from compressor.coding import native
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SEGMENT, SINGLE, artifacts, preferring
from tests.fuzz.edits import taken_apart
from tests.golden import building

FIXED = 16 << 20
"""Bytes of what does not grow: tables, workspaces, blocks."""
SIZES = (300_000, 500_000)
FEW = (4_096, 8_192)


def noise(size: int, keep: float = 1.0) -> Any:
    rng = np.random.default_rng(0)
    return np.where(rng.random(size) < keep, rng.normal(size=size), 0).astype(np.float32)


def shared(size: int, symbols: int, keep: float, shape: tuple[int, ...] = (-1,)) -> Shared:
    rng = np.random.default_rng(0)
    indices = np.where(rng.random(size) < keep, rng.integers(1, symbols + 1, size), 0)
    indices = indices.astype(np.min_scalar_type(symbols))
    return Shared(indices.reshape(shape), np.arange(1, symbols + 1, dtype=np.float32))


CASES: dict[str, tuple[Mode, Profile, Callable[[int], Any]]] = {
    "raw": (Mode.RAW, "huffman", noise),
    "raw bool": (Mode.RAW, "huffman", lambda n: np.ones(n, dtype=bool)),
    "fp16": (Mode.FP16, "huffman", lambda n: (np.arange(n) % 999).astype(np.float32)),
    "sparse": (Mode.GAP_SHARED, "huffman", lambda n: shared(n, 15, 0.4)),
    "dense": (Mode.GAP_SHARED, "huffman", lambda n: shared(n, 400, 1.0)),
    "largest codebook": (Mode.GAP_SHARED, "huffman", lambda n: shared(n, 65536, 1.0)),
    "floats": (Mode.GAP_FLOAT, "huffman", lambda n: noise(n, 0.9)),
    "half floats": (
        *(Mode.GAP_FLOAT, "huffman"),
        lambda n: noise(n, 0.9).astype(np.float16).astype(np.float32),
    ),
    "gaps in rANS": (Mode.GAP_RANS, "fast", lambda n: shared(n, 15, 0.3)),
    "rANS": (Mode.DENSE_RANS, "fast", lambda n: shared(n, 15, 1.0, (-1, 1000))),
    "rANS, one long row": (Mode.DENSE_RANS, "fast", lambda n: shared(n, 3, 1.0, (1, -1))),
    "context": (Mode.CONTEXT, "best", lambda n: shared(n, 15, 0.2, (-1, 32))),
    "packed": (Mode.PACKED, "fast", lambda n: (np.arange(n) * 7 % 9001).astype(np.float32)),
}


@cache
def encoded(name: str, size: int) -> bytes:
    mode, profile, make = CASES[name]
    with preferring(mode), mock.patch("compressor.artifact.packing._FEW", 1 << 30):
        blob = encode({"w": make(size)}, profile=profile)
    assert decode(blob).stored("w")[0].mode is mode
    return blob


def peak(work: Callable[[], Any]) -> int:
    """Bytes that ``work`` takes at its height, what it returns included."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


BACKENDS = [
    pytest.param("c", marks=pytest.mark.skipif(native.built() is None, reason="no C core")),
    "numpy",
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_memory_grows_with_twice_the_output_at_most(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = name == "context" and backend == "numpy"  # it is slow, and the format bounds its size
    sizes = FEW if few else SIZES
    blobs = [encoded(name, size) for size in sizes]
    monkeypatch.setenv(native.VARIABLE, backend)
    outputs = [size * (1 if name == "raw bool" else 4) for size in sizes]
    for work in (Artifact.tensor,) if few else (Artifact.tensor, Artifact.shared):
        peaks = [peak(partial(work, decode(blob), "w")) for blob in blobs]
        growth = (peaks[1] - peaks[0]) / (outputs[1] - outputs[0])
        assert growth < (2.5 if few else 2.05)
        assert peaks[1] < growth * outputs[1] + FIXED


def shapes(mode: Mode, backend: str) -> list[list[int]]:
    if mode is Mode.CONTEXT and backend == "numpy":
        return [[256, 64], [4096]]
    return [[1 << 20], [64, 1 << 14], [1 << 18, 2, 1, 2]]


def attempt(blob: bytes, outcomes: list[bool]) -> None:
    """Decode, and note whether that was possible."""
    try:
        decode(blob).tensor("w")
        outcomes.append(True)
    except ArtifactError:
        outcomes.append(False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_that_a_payload_does_not_have_take_no_more(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.VARIABLE, backend)
    monkeypatch.setattr("compressor.artifact.unpacking._check_crc", lambda *_: None)
    monkeypatch.setattr("compressor.coding.gaps.SEGMENT", SEGMENT)
    outcomes: list[bool] = []
    for file in artifacts()[:SINGLE]:
        for shape in shapes(*file.modes, backend):
            parts = taken_apart(file.blob).edited()
            parts.lines[0].shape = shape
            blob = parts.sealed()

            assert peak(partial(attempt, blob, outcomes)) < 2 * 4 * int(np.prod(shape)) + FIXED
    assert outcomes.count(False) > SINGLE


def test_a_directory_of_the_most_tensors_takes_no_more_than_there_may_be() -> None:
    """A sixteenth of it; all of it takes as long as 65,536 tensors do."""
    count = Limits().max_tensors // 16
    lines = [building.tensor(0, f"{name:x}", *[0] * 31) for name in range(count)]
    blob = building.file(building.directory(*lines), crcs=[0] * count)
    assert peak(partial(decode, blob)) < (64 << 20) // 16
