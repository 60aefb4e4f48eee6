"""Large tensors in segments, decoded by several threads, in bounded memory."""

import json
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.artifact import Mode, Shared, decode, encode
from compressor.artifact.grouping import find_classes
from compressor.artifact.segments import in_threads
from compressor.artifact.types import PROFILES, Profile
from compressor.coding import gaps, native
from compressor.coding.checksums import joined
from compressor.errors import ArtifactError


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_joined_checksums_are_those_of_the_whole(parts: list[bytes]) -> None:
    found = joined((zlib.crc32(part), len(part)) for part in parts)
    assert found == zlib.crc32(b"".join(parts))


def test_a_checksum_is_joined_to_a_long_part() -> None:
    parts = [b"start", bytes(3 << 20), b"end"]
    found = joined((zlib.crc32(part), len(part)) for part in parts)
    assert found == zlib.crc32(b"".join(parts))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, [(0, 0)]),
        (1, [(0, 1)]),
        (1 << 20, [(0, 1 << 20)]),
        ((1 << 20) + 1, [(0, 1 << 20), (1 << 20, (1 << 20) + 1)]),
        (1 << 21, [(0, 1 << 20), (1 << 20, 1 << 21)]),
    ],
)
def test_segments_have_a_million_weights(size: int, expected: list[tuple[int, int]]) -> None:
    assert gaps.segments(size) == expected


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_return_results_in_order(threads: int) -> None:
    assert in_threads(lambda x: x * x, range(50), threads) == [x * x for x in range(50)]


def test_threads_work_at_the_same_time() -> None:
    """Each of two waits for the other: by one thread they would not meet."""
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(in_threads(lambda _: meeting.wait(), range(2), 2)) == [0, 1]


def test_the_first_error_in_order_is_raised() -> None:
    def work(item: int) -> None:
        if item in (3, 7):
            raise ArtifactError(f"item {item}")

    with pytest.raises(ArtifactError, match="item 3"):
        in_threads(work, range(20), 4)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "SEGMENT", 700)


def network(keep: float, size: int, seed: int) -> dict[str, Any]:
    """A shared tensor of scaled rows, an empty stretch in it, and a pruned one of floats."""
    rng = np.random.default_rng(seed)
    scales = 2.0 ** rng.integers(-2, 3, (60, 1))
    level = np.clip(
        np.rint(rng.laplace(scale=size / 8, size=(60, 71)) * scales + size / 2), 1, size
    )
    kept = rng.random(level.shape) < keep
    kept[20:40] = False
    indices = np.where(kept, level, 0).astype(np.min_scalar_type(size))
    floats = np.where(kept, rng.normal(size=level.shape), 0).astype(np.float32)
    return {"shared": Shared(indices, np.sort(rng.normal(size=size)).astype("f4")), "f": floats}


@settings(deadline=None, max_examples=40)
@given(
    keep=st.sampled_from([0.0, 0.003, 0.1, 1.0]),
    size=st.sampled_from([1, 15, 300]),
    profile=st.sampled_from(PROFILES),
    seed=st.integers(0, 100),
)
def test_segments_come_back_by_every_backend(
    keep: float, size: int, profile: Profile, seed: int
) -> None:
    tensors = network(keep, size, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "SEGMENT", 700)
        blobs = []
        for backend in native.BACKENDS if native.built() else ("numpy",):
            patch.setenv(native.VARIABLE, backend)
            blobs.append(encode(tensors, profile=profile))
            for threads in (1, 3):
                artifact = decode(blobs[0], threads=threads)
                dense = tensors["shared"].dense()
                assert artifact.tensor("shared").tobytes() == dense.tobytes()
                assert artifact.tensors()["f"].tobytes() == tensors["f"].tobytes()
                if (shared := artifact.shared("shared")) is not None:
                    assert np.array_equal(shared.indices, tensors["shared"].indices)
        assert len(set(blobs)) == 1


@pytest.mark.parametrize("profile", ["huffman", "fast"])
def test_every_bit_of_the_segments_heads_counts(profile: Profile, small_segments: None) -> None:
    """The payload's checksum is made anew: what it would find is found all the same."""
    blob = encode({"w": network(0.1, 15, 1)["shared"]}, profile=profile)
    (entry,) = decode(blob).entries
    crc = zlib.crc32(blob[-entry.bytes :]).to_bytes(4, "little")
    at = blob.index(crc)
    refused = 0
    start = 2 + entry.parts.codebook  # no checksum holds the codebook
    for bit in range(8 * start, 8 * (start + 100)):
        damaged = bytearray(blob)
        damaged[len(blob) - entry.bytes + bit // 8] ^= 1 << bit % 8
        damaged[at : at + 4] = zlib.crc32(damaged[-entry.bytes :]).to_bytes(4, "little")
        damaged[at + 8 : at + 12] = zlib.crc32(damaged[: at + 8]).to_bytes(4, "little")
        messages = []
        for threads in (1, 2):
            with pytest.raises(ArtifactError) as caught:
                decode(bytes(damaged), threads=threads).tensor("w")
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        refused += "checksum" not in messages[0]
    assert refused > 20


def test_large_sparse_tensors_are_written_in_gaps_when_they_shall_be_read_fast(
    small_segments: None,
) -> None:
    """Where the other mode is not 1 % smaller; small ones are in the smallest mode as ever."""
    rng = np.random.default_rng(0)
    kept = rng.random((250, 400)) < 0.1
    level = np.clip(np.rint(rng.laplace(scale=3, size=kept.shape)) + 16, 1, 31)
    shared = Shared(np.where(kept, level, 0).astype(np.uint8), np.arange(1, 32, dtype=np.float32))
    for profile in ("fast", "best"):
        blob = encode({"w": shared}, profile=profile)
        (entry,) = decode(blob).entries
        if profile == "fast":
            assert entry.mode in (Mode.GAP_RANS, Mode.GAP_SHARED)
            assert entry.gap_width
            fast = entry.bytes
        else:
            assert fast <= 1.01 * entry.bytes


def bits(symbols: Any, contexts: Any) -> float:
    """Empirical entropy of symbols given their contexts, in bits."""
    total = 0.0
    for context in np.unique(contexts):
        counts = np.unique(symbols[contexts == context], return_counts=True)[1]
        total -= float(np.sum(counts * np.log2(counts / counts.sum())))
    return total


def test_classes_of_large_tensors_are_found_from_a_sample() -> None:
    """Rows and columns of four scales each: what is found codes as well as what was made."""
    rng = np.random.default_rng(2)
    rows, columns = rng.integers(0, 4, (900, 1)), rng.integers(0, 4, 1300)
    level = np.clip(np.rint(rng.laplace(scale=0.5 * 2.0 ** (rows + columns))), -100, 100)
    assert level.size > 1 << 20
    indices = np.where(level, level + 100 + (level < 0), 0).astype(np.uint8)
    codebook = np.delete(np.arange(-100, 101), 100).astype(np.float32)
    found = find_classes(indices.reshape(-1), level.shape, codebook)
    least = bits(indices, rows + columns)
    assert bits(indices, found.axes[0][:, None] + found.axes[1]) < 1.01 * least
    assert least < 0.9 * bits(indices, np.zeros_like(indices))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
@pytest.mark.parametrize("name", ["pruned", "many"])
def test_memory_stays_within_twice_the_output(name: str, tmp_path: Path) -> None:
    """In processes of their own, for tensors large enough to count beside what is always there."""
    file = str(tmp_path / "network.dcz")
    words = (sys.executable, "-m", "compressor.benchmarks.codec.probe")
    for task in (["encode", name, "huffman", file], ["decode", file, "2"]):
        out = subprocess.run([*words, *task], check=True, capture_output=True, text=True).stdout
        found = json.loads(out)
        assert found["output"] >= 10_000_000 * 4
        assert found["output"] / 4 < found["peak"] <= 2 * found["output"] + (64 << 20)


def test_threads_that_cannot_be_had_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a limit of processes or of memory is reached, for instance."""
    started: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(started) == 1:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        original(thread)

    original = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    assert in_threads(lambda item: item**2, range(50), 8) == [item**2 for item in range(50)]
    assert len(started) == 1
