"""Every mode holds every tensor that it can, the extreme ones too, in both backends.

The encoder takes the smallest mode; here it is made to take each in turn. Payloads are decoded
without their file, since some are longer than the plain tensor, which a file may not have.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressor.artifact import Mode, Shared, decode, encode
from compressor.artifact.layout import TensorRecord
from compressor.artifact.packing import Payload, pack_tensor
from compressor.artifact.types import PROFILES, Profile
from compressor.artifact.unpacking import describe, unpack_shared, unpack_tensor
from compressor.coding import native
from tests.fuzz.artifacts import preferring

Array = npt.NDArray[Any]
BACKENDS = native.BACKENDS if native.built() else ("numpy",)
SHARED = [mode for mode in Mode if mode.shared]
# NaNs with payloads, quiet and signalling, of both signs; zeros, infinities, subnormals.
ODD = np.array(
    [0x7FC00001, 0xFFC12345, 0x7F800001, 0xFFA00000, 0x80000000, 0, 0x7F800000, 0xFF800000, 1],
    dtype=np.uint32,
).view(np.float32)


def book(size: int, *, exact: bool = False) -> npt.NDArray[np.float32]:
    """A codebook of small whole numbers (float16 holds them) or of thirds."""
    return (np.arange(1, size + 1) % 2000 / (1 if exact else 3)).astype(np.float32)


def grid(negative: int, positive: int) -> npt.NDArray[np.float32]:
    levels = np.delete(np.arange(-negative, positive + 1), negative)
    return levels.astype(np.float32) * np.float32(0.1)


def indices(shape: tuple[int, ...], size: int, dtype: str = "u1") -> Array:
    """All indices in turn, but for every third, which is 0."""
    n = int(np.prod(shape))
    return (
        np.where(np.arange(n) % 3 == 2, 0, np.arange(n) % (size + 1)).astype(dtype).reshape(shape)
    )


SHARED_TENSORS: dict[str, Shared] = {
    "no elements": Shared(np.zeros((3, 0, 2), dtype=np.uint8), book(3)),
    "no dimensions": Shared(np.array(2, dtype=np.uint8), book(3)),
    "no dimensions, zero": Shared(np.array(0, dtype=np.uint8), book(3)),
    "one element": Shared(np.array([[1]], dtype=np.uint8), book(1)),
    "one symbol": Shared(np.full((6, 7), 2, dtype=np.uint8), book(3)),
    "one symbol, one centroid": Shared(np.ones((6, 7), dtype=np.uint8), grid(1, 0)),
    "all zero": Shared(np.zeros((6, 7), dtype=np.uint8), book(3)),
    "all zero, no codebook": Shared(np.zeros((6, 7), dtype=np.uint8), book(0)),
    "one kept, the last": Shared(np.eye(1, 50, 49, dtype=np.uint8), book(1)),
    "one kept, the first": Shared(np.eye(1, 50, 0, dtype=np.uint8), book(1)),
    "five dimensions": Shared(indices((2, 3, 1, 2, 3), 5), grid(2, 3)),
    "six of one": Shared(np.ones((1,) * 6, dtype=np.uint8), grid(2, 3)),
    "transposed": Shared(indices((5, 8), 5).T, grid(2, 3)),
    "reversed": Shared(indices((40,), 5)[::-2], grid(2, 3)),
    "broadcast": Shared(np.broadcast_to(indices((8,), 5), (4, 8)), grid(2, 3)),
    "big-endian": Shared(indices((6, 5), 5, ">u4"), grid(2, 3)),
    "255 symbols": Shared(indices((20, 16), 255, "u1"), book(255)),
    "256 symbols": Shared(indices((20, 16), 256, "u2"), book(256, exact=True)),
    "65535 symbols": Shared(np.array([[0, 65535, 1, 40000]], "u2"), book(65535)),
    "65536 symbols": Shared(np.array([[0, 65536, 1, 40000]], "u4"), book(65536)),
    "65536 levels": Shared(np.array([[0, 65536, 1, 40000]], "u8"), grid(30000, 35536)),
    "odd codebook": Shared(indices((5, 6), 9), ODD),
    "equal centroids": Shared(indices((5, 6), 4), np.array([2, 2, -2, -2], dtype=np.float32)),
    "negative centroids": Shared(indices((5, 6), 3), grid(3, 0)),
}

PLAIN: dict[str, Array] = {
    "no elements": np.zeros((0,), dtype=np.float32),
    "no dimensions": np.array(0.1, dtype=np.float32),
    "one element": np.array([0.1], dtype=np.float32),
    "odd": np.tile(ODD, 5),
    "odd and sparse": np.concatenate([ODD, np.zeros(200, dtype=np.float32)]),
    "all zero": np.zeros((6, 7), dtype=np.float32),
    "all minus zero": np.full((6, 7), -0.0, dtype=np.float32),
    "halves": (np.arange(60) / 2).astype(np.float32).reshape(3, 4, 5),
    "halves, sparse": np.where(np.arange(60) % 5, 0, np.arange(60) / 2).astype(np.float32),
    "multiples": ((np.arange(60) - 30) * 3).astype(np.float32) * np.float32(2**-140),
    "constant": np.full(9, 1e38, dtype=np.float32),
    "wide multiples": np.array([-(2**23), 2**23 - 1, 0], dtype=np.float32),
    "transposed": np.arange(40, dtype=np.float32).reshape(5, 8).T,
    "strided": np.arange(400, dtype=np.float32).reshape(5, 80)[::-2, ::7],
    "five dimensions": np.arange(48, dtype=np.float32).reshape(2, 3, 2, 2, 2),
    "big-endian": np.arange(40, dtype=">f4"),
}


def on(backend: str, work: Any, *arguments: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, backend)
        return work(*arguments)


def packed(mode: Mode, tensor: Any, profile: Profile = "best") -> Payload | None:
    """The payload of a mode, where it has one; the same of both backends."""
    with preferring(mode):
        each = [on(backend, pack_tensor, tensor, profile) for backend in BACKENDS]
    assert all(bytes(one.data) == bytes(each[0].data) for one in each)
    return each[0] if each[0].mode is mode else None


def dense(tensor: Any) -> Array:
    if isinstance(tensor, Shared):
        table = np.concatenate([np.zeros(1, dtype=np.float32), tensor.codebook])
        return table[tensor.indices.astype(np.int64)]
    return tensor.astype(tensor.dtype.newbyteorder("="))


def check(found: Payload, tensor: Any) -> None:
    """Decode in both backends, to weights and to indices."""
    expected, data = dense(tensor), bytes(found.data)
    crc = zlib.crc32(data)
    record = TensorRecord(
        "w", found.mode, found.dtype, expected.shape, len(data), crc, found.decoded_crc
    )
    for backend in BACKENDS:
        weights = on(backend, unpack_tensor, record, memoryview(data))
        assert weights.dtype == expected.dtype
        assert weights.shape == expected.shape
        assert weights.tobytes() == expected.tobytes()
        entry = on(backend, describe, record, memoryview(data))
        assert entry.parts.total == len(data)
        if found.mode.shared:
            shared = on(backend, unpack_shared, record, memoryview(data))
            assert np.array_equal(shared.indices, tensor.indices)
            assert shared.codebook.tobytes() == tensor.codebook.tobytes()
            assert entry.nonzero == np.count_nonzero(tensor.indices)


CANNOT = {
    Mode.GAP_RANS: {"no elements", "no dimensions, zero", "all zero", "all zero, no codebook"},
    Mode.DENSE_RANS: {"no elements"},
    Mode.CONTEXT: {"no elements", "all zero, no codebook"},
}
"""What a mode has no payload for."""


@pytest.mark.parametrize("mode", SHARED)
@pytest.mark.parametrize("name", SHARED_TENSORS)
def test_shared_tensors_come_back_in_every_mode(mode: Mode, name: str) -> None:
    tensor = SHARED_TENSORS[name]
    found = packed(mode, tensor)
    assert (found is None) == (name in CANNOT.get(mode, ()))
    if found is not None:
        check(found, tensor)


def plain_modes() -> Iterator[tuple[str, Mode]]:
    """The modes of each tensor above that can hold it bit for bit."""
    multiples = {"no dimensions", "one element", "all zero", "halves", "halves, sparse"}
    multiples |= {"multiples", "constant", "wide multiples", "transposed", "strided"}
    multiples |= {"five dimensions", "big-endian"}
    halves = {"all zero", "all minus zero", "halves", "halves, sparse", "transposed", "strided"}
    halves |= {"five dimensions", "big-endian"}
    for name in PLAIN:
        yield name, Mode.FP16 if name in halves else Mode.RAW
        yield name, Mode.GAP_FLOAT
        if name in multiples:
            yield name, Mode.PACKED


@pytest.mark.parametrize(("name", "mode"), list(plain_modes()))
def test_plain_tensors_come_back_in_every_mode_that_holds_them(name: str, mode: Mode) -> None:
    found = packed(mode, PLAIN[name])
    assert found is not None
    check(found, PLAIN[name])


@pytest.mark.parametrize("dtype", ["f2", "f8", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_other_types_are_raw(dtype: str, order: str) -> None:
    kind = np.dtype(dtype if dtype == "?" else order + dtype)
    raw = (np.arange(256) % (2 if dtype == "?" else 256)).astype(np.uint8)
    whole = raw.view(kind)  # whatever the bits, NaNs of all payloads among them
    for tensor in (whole, whole[:1], whole[:0], whole[0:1].reshape(()), whole.reshape(2, -1).T):
        found = packed(Mode.RAW, tensor)
        assert found is not None
        check(found, tensor)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("profile", PROFILES)
def test_files_of_extreme_tensors_come_back_in_every_profile(
    profile: Profile, backend: str
) -> None:
    tensors = {
        **{f"p {k}": v for k, v in PLAIN.items()},
        "int": np.arange(9),
        "b": np.ones(3, bool),
    }
    tensors |= {f"s {k}": v for k, v in SHARED_TENSORS.items()}
    blob = on(backend, encode, tensors)
    artifact = decode(blob)
    for name, tensor in tensors.items():
        found = on(backend, artifact.tensor, name)
        assert found.shape == dense(tensor).shape
        assert found.tobytes() == dense(tensor).tobytes(), name


@pytest.mark.parametrize("mode", [Mode.GAP_SHARED, Mode.CONTEXT])
def test_all_of_the_most_symbols_come_back(mode: Mode) -> None:
    """2^16 symbols and 0, each of them once; NumPy's context mixing would take minutes."""
    size = 1 << 16
    every = np.random.default_rng(0).permutation(size + 1)[:size].astype(np.uint32)
    tensor = Shared(every.reshape(256, 256), grid(30_000, size - 30_000))
    with preferring(mode):
        found = pack_tensor(
            tensor, "best" if native.built() or mode is not Mode.CONTEXT else "fast"
        )
    if found.mode is not mode:
        assert not native.built()
        pytest.skip("the C core was not built")
    crc = zlib.crc32(bytes(found.data))
    record = TensorRecord("w", mode, 0, (256, 256), len(found.data), crc, found.decoded_crc)
    assert unpack_tensor(record, memoryview(found.data)).tobytes() == tensor.dense().tobytes()


@st.composite
def tensors(draw: st.DrawFn) -> Shared:
    """Indices of any shape and layout, with codebooks of any bits."""
    size = draw(st.sampled_from([1, 2, 3, 15, 255, 256, 65536]))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=1, max_side=5))
    elements = st.one_of(st.just(0), st.integers(0, size), st.just(size))
    found = draw(hnp.arrays(np.uint32, shape, elements=elements, fill=st.integers(0, size)))
    if found.ndim and draw(st.booleans()):
        found = found.T[::-1]
    seed = draw(st.integers(0, 99))
    how = draw(st.sampled_from(["bits", "book", "exact", "grid"]))
    if how == "bits":
        bits = np.random.default_rng(seed).integers(0, 1 << 32, size, dtype=np.uint32)
        return Shared(found, bits.view(np.float32))
    if how == "grid":
        negative = seed * size // 99
        return Shared(found, grid(negative, size - negative))
    return Shared(found, book(size, exact=how == "exact"))


@settings(deadline=None, max_examples=40)
@given(tensors(), st.sampled_from(SHARED))
def test_any_shared_tensor_comes_back_in_any_mode(tensor: Shared, mode: Mode) -> None:
    found = packed(mode, tensor)
    if found is None:
        assert mode is Mode.GAP_RANS
        assert not tensor.indices.any()
    else:
        check(found, tensor)


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.uint32,
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
        elements=st.one_of(
            st.sampled_from([0, 0, 0x3F800000, 0xBF800000, 0x7FC00001, 0x80000000]),
            st.integers(0, 2**32 - 1),
        ),
        fill=st.sampled_from([0, 0x3F800000]),
    ),
    st.sampled_from([Mode.RAW, Mode.FP16, Mode.GAP_FLOAT, Mode.PACKED]),
)
def test_any_floats_come_back_in_any_mode(bits: Array, mode: Mode) -> None:
    values = bits.view(np.float32)
    found = packed(mode, values)
    if found is not None:
        check(found, values)
    else:
        assert mode is not Mode.GAP_FLOAT
