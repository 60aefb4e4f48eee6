"""Damaged and hostile files: one family of errors, quickly, in little memory, never wrong weights.

Files are mutated in two ways: as accidents do, with checksums as they were, where the outcome must
be an error or exactly what was written; and as an attacker would, every checksum true, where
whatever comes out must be what the directory declares.
"""

import contextlib
import math
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

from compressor.artifact import Artifact, Limits, Shared, decode, encode
from compressor.artifact.classes import Classes
from compressor.artifact.layout import DEFLATED
from compressor.coding import native
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import network, whole
from tests.fuzz.mutations import mutated

LIMITS = Limits(1 << 20, 1 << 20, 100, 1 << 16)


def bytes_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.tensor(name).tobytes() for name in artifact.names}


OTHER = whole(seed=1)


def mutants(blob: bytes, count: int) -> list[bytes]:
    return [mutated(seed, blob, OTHER) for seed in range(count)]


@pytest.mark.parametrize("profile", ["fast", "huffman", "flat"])
def test_damage_is_found_or_changes_nothing(profile: str) -> None:
    blob = whole(profile=profile)
    expected = bytes_of(decode(blob))
    refused = 0
    count = 700 if profile == "fast" else 3000
    for mutant in mutants(blob, count):
        if mutant == OTHER:
            continue  # spliced before the first difference: a sound file, of another network
        try:
            artifact = decode(mutant, limits=LIMITS)
        except ArtifactError:
            refused += 1
            continue
        for name in artifact.names:
            try:
                assert artifact.tensor(name).tobytes() == expected[name]
            except ArtifactError:
                refused += 1
        try:
            assert artifact.graph == b"nodes " * 40
        except ArtifactError:
            refused += 1
    assert refused > 2 * count // 3


def undeflated(**options: Any) -> bytes:
    """A file whose directory is not deflated, so that mutations of it mean something."""
    with mock.patch("compressor.artifact.layout.deflate", lambda raw: raw + b"\0"):
        blob = encode(network(), metadata={"tool": "test"}, **options)
    assert not blob[10] & DEFLATED
    return blob


def exercise(mutant: bytes) -> int:
    """Decode all there is; return how many tensors came out, each as the directory declares it."""
    try:
        artifact = decode(mutant, limits=LIMITS)
    except ArtifactError:
        return 0
    decoded = 0
    for name in artifact.names:
        try:
            tensor = artifact.tensor(name)
            entry = next(entry for entry in artifact.entries if entry.name == name)
            assert tensor.shape == entry.shape
            assert tensor.dtype == entry.dtype
            assert tensor.nbytes <= LIMITS.max_tensor_bytes
            assert entry.parts.total == entry.bytes
            if entry.gap_width is not None and entry.codebook_size is None:
                assert np.count_nonzero(tensor.view(np.uint32)) == entry.nonzero
            decoded += 1
        except ArtifactError:
            continue
    with contextlib.suppress(ArtifactError):
        assert artifact.graph is None or len(artifact.graph) <= LIMITS.max_graph_bytes
    return decoded


@pytest.mark.parametrize("profile", ["fast", "huffman"])
@pytest.mark.parametrize("make", [whole, undeflated])
def test_with_every_checksum_true_the_outcome_is_an_error_or_as_declared(
    make: Callable[..., bytes], profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = make(profile=profile)
    monkeypatch.setattr(zlib, "crc32", lambda *_: mock.ANY)  # equal to every checksum there is
    decoded, slowest = 0, 0.0
    count = 500 if profile == "fast" else 2500
    for mutant in mutants(blob, count):
        start = time.perf_counter()
        decoded += exercise(mutant)
        slowest = max(slowest, time.perf_counter() - start)
    assert decoded > count  # many mutants reached the decoders and came out of them
    assert slowest < 1


@pytest.mark.parametrize("profile", ["fast", "huffman"])
def test_hostile_files_take_no_more_memory_than_the_limits(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = undeflated(profile=profile)
    monkeypatch.setattr(zlib, "crc32", lambda *_: mock.ANY)
    tracemalloc.start()
    try:
        for mutant in mutants(blob, 70 if profile == "fast" else 400):
            exercise(mutant)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_payloads_of_another_file_or_tensor_do_not_pass() -> None:
    """Equal lengths throughout: only the checksums in the preamble tell these files apart."""
    rng = np.random.default_rng(0)
    first, second = (
        encode({name: rng.normal(size=50).astype(np.float32) for name in "ab"}) for _ in range(2)
    )
    torn = first[:-200] + second[-200:]
    swapped = first[:-400] + first[-200:] + first[-400:-200]
    for damaged in (torn, swapped):
        with pytest.raises(ArtifactError, match="tensor 'b': the data is damaged"):
            decode(damaged).tensor("b")


def test_a_wrong_decoder_is_found_though_the_file_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = whole()
    monkeypatch.setenv(native.VARIABLE, "numpy")
    monkeypatch.setattr("compressor.coding.symbols.SymbolReader.read", lambda _, n: np.full(n, 1))
    monkeypatch.setattr("compressor.coding.symbols.SymbolReader.finish", lambda _: None)
    with pytest.raises(ArtifactError, match=r"fillers|past the end|checksum"):
        decode(blob).tensor("conv.weight")


@pytest.mark.skipif(native.built() is None, reason="the C core was not built")
def test_a_wrong_core_is_found_though_the_file_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = whole()
    monkeypatch.setenv(native.VARIABLE, "c")
    monkeypatch.setattr("compressor.artifact.gaps_unpacking.decode_gaps", lambda *_: True)
    with pytest.raises(ArtifactError, match="checksum"):
        decode(blob).tensor("conv.weight")


def test_a_few_bytes_that_declare_a_huge_tensor_take_no_memory() -> None:
    blob = encode({"w": np.zeros((1 << 10, 1 << 10), dtype=np.float32)})
    assert len(blob) < 60
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="4194304 bytes; the limit is 4194303"):
            decode(blob, limits=Limits(max_tensor_bytes=(1 << 22) - 1))
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


def test_running_out_of_memory_is_an_artifact_error(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = decode(whole(), source="x.dcz")

    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("compressor.artifact.unpacking._floats", no_memory)
    with pytest.raises(ArtifactError, match=r"x.dcz: tensor 'conv.weight': .* not enough memory"):
        artifact.tensor("conv.weight")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 23, 24, 27, 28, 40])
def test_every_cut_is_refused(size: int) -> None:
    with pytest.raises(ArtifactError, match=r"empty|truncated"):
        decode(whole()[:size])


def test_the_largest_tables_are_read_quickly() -> None:
    """Tables are the one part that a Python loop reads symbol by symbol."""
    size = 1 << 16
    indices = np.zeros(300_000, dtype=np.uint32)
    indices[:size] = 1 + np.arange(size)[::-1]
    indices[-20:] = 1
    shared = Shared(indices, np.arange(size, dtype=np.float32))
    blob = encode({"w": shared})
    start = time.perf_counter()
    found = decode(blob).tensor("w")
    assert time.perf_counter() - start < 1
    assert np.array_equal(found, shared.dense())
    assert math.prod(found.shape) == 300_000


def test_contexts_of_a_block_take_the_memory_of_a_block() -> None:
    """Though a row of the tensor, or the whole of it, is much longer: so the work is linear."""
    none = np.zeros(1, dtype=np.uint8)
    for classes in (
        Classes((none, np.ones(1 << 22, np.uint8), none)),
        Classes((np.arange(4, dtype=np.uint8), np.ones(1 << 20, np.uint8), none)),
        Classes((np.ones(1 << 20, np.uint8), none, np.arange(4, dtype=np.uint8))),
    ):
        classes.contexts(0, 1)
        tracemalloc.start()
        try:
            classes.contexts((1 << 20) - 500, (1 << 20) + 500)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 15


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (40, 1, 2), (2, 30, 30)])
def test_contexts_of_any_range_are_sums_of_classes(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    axes = [rng.integers(0, 8, size).astype(np.uint8) for size in shape]
    classes = Classes((axes[0], axes[1], axes[2]))
    sums = [int(a) + int(b) + int(c) for a in axes[0] for b in axes[1] for c in axes[2]]
    for start, stop in (
        (0, len(sums)),
        (len(sums) // 3, len(sums) // 2 + 1),
        (len(sums) - 1, len(sums)),
    ):
        assert classes.contexts(start, stop).tolist() == sums[start:stop]
