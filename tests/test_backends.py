"""NumPy and the C core give the same bytes, the same weights, and the same refusals."""

import ctypes
import sys
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.artifact import Mode, Shared, decode, encode
from compressor.artifact.layout import TensorRecord
from compressor.artifact.packing import pack_tensor
from compressor.artifact.types import PROFILES, Profile
from compressor.artifact.unpacking import unpack_shared, unpack_tensor
from compressor.coding import native, streams_core
from compressor.errors import ArtifactError

pytestmark = pytest.mark.skipif(native.built() is None, reason="the C core was not built")

SHAPES = [(1,), (40,), (7, 9), (20, 30), (6, 5, 3, 3), (3, 1, 2, 5, 2), (64, 70), (300, 301)]


def on(backend: str, work: Any, *arguments: Any) -> Any:
    """The result of ``work``, or the message of its `ArtifactError`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, backend)
        try:
            return work(*arguments)
        except ArtifactError as error:
            return str(error)


def tensor(shape: tuple[int, ...], size: int, keep: float, seed: int) -> Shared:
    """Few values near to the middle of the codebook more often; blocks of zeros."""
    rng = np.random.default_rng(seed)
    level = np.clip(np.rint(rng.laplace(scale=size / 8, size=shape) + size / 2), 1, size)
    kept = (rng.random(shape) < keep) & (rng.random(shape[:1] + (1,) * (len(shape) - 1)) < 0.8)
    dtype = np.min_scalar_type(size)
    indices = np.where(kept, level, 0).astype(dtype)
    return Shared(indices, np.sort(rng.normal(size=size)).astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    size=st.sampled_from([1, 2, 15, 31, 255, 256, 3000]),
    keep=st.sampled_from([0.0, 0.02, 0.1, 0.6, 1.0]),
    profile=st.sampled_from([name for name in PROFILES if name != "best"]),
    seed=st.integers(0, 1000),
)
def test_bytes_and_weights_are_the_same(
    shape: tuple[int, ...], size: int, keep: float, profile: Profile, seed: int
) -> None:
    network = {"w": tensor(shape, size, keep, seed)}
    blobs = [on(backend, lambda: encode(network, profile=profile)) for backend in native.BACKENDS]
    assert blobs[0] == blobs[1]
    for backend in native.BACKENDS:
        artifact = decode(blobs[0])
        dense = on(backend, artifact.tensor, "w")
        assert dense.dtype == np.float32
        assert np.array_equal(dense, network["w"].dense())
        shared = on(backend, artifact.shared, "w")
        if shared is not None:
            assert np.array_equal(shared.indices, network["w"].indices)


def forced(shared: Shared, mode: Mode) -> tuple[TensorRecord, bytearray] | None:
    """A tensor's record and payload, if the mode is the one it is written in."""
    profile: Profile = "huffman" if mode is Mode.GAP_SHARED else "fast"
    packed = pack_tensor(shared, profile)
    if packed.mode is not mode:
        return None
    data = bytearray(packed.data)
    crc = packed.decoded_crc
    shape = shared.indices.shape
    return TensorRecord("w", mode, 0, shape, len(data), zlib.crc32(data), crc), data


MUTATED = {
    Mode.GAP_SHARED: tensor((64, 70), 15, 0.1, 1),
    Mode.GAP_RANS: Shared(
        np.repeat(tensor((64, 70), 2, 0.05, 2).indices, 9, axis=1), np.array([1, 2], np.float32)
    ),
    Mode.DENSE_RANS: tensor((40, 60), 31, 1.0, 3),
}


@pytest.mark.parametrize("mode", MUTATED)
def test_damaged_payloads_are_taken_alike(mode: Mode) -> None:
    """Without the payload's checksum, which would find all of it: the decoders see the damage."""
    found = forced(MUTATED[mode], mode)
    assert found is not None, "the tensor is written in another mode"
    record, data = found
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(250):
        mutant = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            mutant[int(rng.integers(len(mutant)))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            del mutant[int(rng.integers(len(mutant))) :]
        for work in (unpack_tensor, unpack_shared):
            both = [on(backend, work, record, memoryview(mutant)) for backend in native.BACKENDS]
            if isinstance(both[0], str):
                refused += 1
                assert both[0] == both[1]
            else:
                same = [x.dense() if isinstance(x, Shared) else x for x in both]
                assert same[0].tobytes() == same[1].tobytes()
    assert refused > 300


def test_the_core_is_what_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above compare NumPy with NumPy."""
    calls = []
    for name in ("decode_gaps", "decode_rans_gaps", "decode_dense"):
        original = getattr(streams_core, name)

        def counted(*arguments: Any, name: str = name, original: Any = original) -> bool:
            done: bool = original(*arguments)
            calls.append((name, done))
            return done

        for module in ("compressor.artifact.gaps_unpacking", "compressor.artifact.rans_unpacking"):
            monkeypatch.setattr(f"{module}.{name}", counted, raising=False)
    for mode, shared in MUTATED.items():
        found = forced(shared, mode)
        assert found is not None
        unpack_tensor(found[0], memoryview(found[1]))
    assert calls == [("decode_gaps", True), ("decode_rans_gaps", True), ("decode_dense", True)]


def test_threads_may_decode_before_anything_was_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made once and kept may be made by several of them at the same time."""
    monkeypatch.setenv(native.VARIABLE, "c")
    network = {"w": tensor((20, 30), 15, 0.5, 5)}
    blob, expected = encode(network, profile="fast"), network["w"].dense()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    found: list[bool] = []

    def work(meeting: threading.Barrier) -> None:
        meeting.wait()
        found.append(np.array_equal(decode(blob).tensor("w"), expected))

    try:
        for _ in range(60):
            streams_core._crc_tables.cache_clear()
            meeting = threading.Barrier(4)
            threads = [threading.Thread(target=work, args=(meeting,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == [True] * 240


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100, 4097])
def test_the_checksum_is_that_of_zlib(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, max(size, 1)).astype(np.uint8)[:size]
    core = native.built()
    assert core is not None
    core.dcz_crc.restype = ctypes.c_uint32
    tables = streams_core._crc_tables()
    found = core.dcz_crc(
        ctypes.c_void_p(tables.ctypes.data),
        ctypes.c_uint32(0),
        ctypes.c_void_p(data.ctypes.data),
        ctypes.c_size_t(size),
    )
    assert found == zlib.crc32(data)
