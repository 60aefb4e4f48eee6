"""Artifacts decode bit for bit to what was written, in the smallest mode, and count honestly."""

import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compressor.artifact import Limits, Mode, Profile, Shared, decode, encode, read
from compressor.artifact.types import PROFILES
from compressor.errors import ArtifactError

Array = npt.NDArray[Any]

SHAPES = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
    st.tuples(st.integers(0, 2000)),
)
# Zeros of both signs, NaNs with payloads, infinities, subnormals, and what float16 holds or not.
PATTERNS = [0, 0, 0, 0, 1 << 31, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000]
PATTERNS += [1, 0x3F800000, 0xBF800000, 0x33800000, 0x3DCCCCCD, 0x7F7FFFFF]
NAMES = [
    "float16",
    "float64",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]


def as_floats(bits: Array) -> Array:
    return bits.view(np.float32)


def float_arrays() -> st.SearchStrategy[Array]:
    anything = st.one_of(st.sampled_from(PATTERNS), st.integers(0, 2**32 - 1))
    fill = st.sampled_from([0, 0x3F800000])
    wild = hnp.arrays(np.uint32, SHAPES, elements=anything, fill=fill)
    tame = hnp.arrays(np.uint32, SHAPES, elements=st.sampled_from(PATTERNS[-5:-2]), fill=fill)
    return st.one_of(wild, tame).map(as_floats)


@st.composite
def shared_tensors(draw: st.DrawFn) -> Shared:
    size = draw(st.sampled_from([0, 1, 2, 3, 15, 255, 256, 300, 65535, 65536]))
    wide_enough = [d for d in ("u1", "u2", "u4", "u8") if np.iinfo(d).max >= size]
    dtype = draw(st.sampled_from(wide_enough))
    elements = st.one_of(st.just(0), st.integers(0, size), st.just(size))
    fill = st.integers(0, size)
    indices = draw(hnp.arrays(dtype, SHAPES, elements=elements, fill=fill))
    exact = draw(st.booleans())
    book = (np.arange(size) % 2048) / (4 if exact else 3)
    return Shared(indices, book.astype(np.float32))


def arrays() -> st.SearchStrategy[Array | Shared]:
    other = st.sampled_from(NAMES).flatmap(lambda name: hnp.arrays(name, SHAPES))
    turned = float_arrays().map(lambda a: a.T[..., ::-1] if a.ndim else a)
    swapped = float_arrays().map(lambda a: a.astype(">f4"))
    return st.one_of(float_arrays(), shared_tensors(), other, turned, swapped)


def dense(tensor: Array | Shared) -> Array:
    if isinstance(tensor, Shared):
        table = [np.float32(0), *tensor.codebook]
        values = [table[i] for i in tensor.indices.ravel().tolist()]
        return np.array(values, dtype=np.float32).reshape(tensor.indices.shape)
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("=")).reshape(tensor.shape)


def assert_equal(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.dtype.isnative
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), arrays(), max_size=4),
    st.sampled_from(PROFILES),
    st.none() | st.binary(max_size=50),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_every_tensor_comes_back_bit_for_bit(
    tensors: dict[str, Array | Shared], profile: Profile, graph: bytes | None, meta: dict[str, str]
) -> None:
    blob = encode(tensors, graph=graph, metadata=meta, profile=profile)
    artifact = decode(blob)
    assert artifact.names == tuple(tensors)
    assert artifact.metadata == meta
    assert artifact.graph == graph
    assert artifact.size == len(blob)
    assert artifact.size_without_graph == len(encode(tensors, metadata=meta, profile=profile))
    stored_graph = artifact.size - artifact.size_without_graph - 12 if graph is not None else 0
    payloads = sum(entry.bytes for entry in artifact.entries)
    assert artifact.overhead + payloads + stored_graph == artifact.size
    for entry, (name, tensor) in zip(artifact.entries, tensors.items(), strict=True):
        expected = dense(tensor)
        assert_equal(artifact.tensor(name), expected)
        assert entry.parts.total == entry.bytes
        assert (entry.name, entry.shape, entry.dtype) == (name, expected.shape, expected.dtype.name)
        assert entry.elements == expected.size
        again = artifact.shared(name)
        assert (again is not None) == entry.mode.shared
        if again is not None:
            assert isinstance(tensor, Shared)
            assert again.codebook.tobytes() == tensor.codebook.tobytes()
            assert np.array_equal(again.indices, tensor.indices)
            assert entry.nonzero == np.count_nonzero(tensor.indices)


def laplace(shape: tuple[int, ...], keep: float, symbols: int, seed: int = 0) -> Shared:
    rng = np.random.default_rng(seed)
    indices = 1 + np.minimum(np.abs(rng.laplace(0, symbols / 6, shape)).astype(int), symbols - 1)
    indices[rng.random(shape) >= keep] = 0
    return Shared(indices.astype(np.uint8), rng.normal(size=symbols).astype(np.float32))


def gaussian(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("tensor", "mode"),
    [
        (gaussian(50, 40), Mode.RAW),
        (np.arange(2000, dtype=np.float32), Mode.FP16),
        (np.where(gaussian(50, 40) > 1, gaussian(50, 40), np.float32(0)), Mode.GAP_FLOAT),
        (np.zeros((50, 40), dtype=np.float32), Mode.GAP_FLOAT),
        (laplace((50, 40), 0.1, 31), Mode.GAP_SHARED),
        (laplace((50, 40), 1.0, 31), Mode.GAP_SHARED),
        (Shared(np.array([1, 2], dtype=np.uint8), gaussian(2)), Mode.RAW),
        (Shared(np.arange(1, 201, dtype=np.uint8), gaussian(200)), Mode.RAW),
        (np.arange(2000, dtype=np.float64), Mode.RAW),
        (np.zeros(2000, dtype=np.int64), Mode.RAW),
        (np.zeros(0, dtype=np.float32), Mode.RAW),
    ],
)
def test_the_smallest_mode_is_taken(tensor: Array | Shared, mode: Mode) -> None:
    artifact = decode(encode({"w": tensor}))
    assert artifact.entries[0].mode is mode
    assert_equal(artifact.tensor("w"), dense(tensor))


@pytest.mark.parametrize("keep", [0.003, 0.05, 0.3, 0.9])
def test_the_gap_width_gives_the_fewest_bytes(keep: float) -> None:
    """Flat codes have a size in closed form, so every width can be priced independently."""
    tensor = laplace((100, 300), keep, 16)
    positions = np.flatnonzero(tensor.indices)
    runs = np.diff(positions, prepend=-1) - 1
    values = tensor.indices.ravel()[positions]

    def varint_size(value: int) -> int:
        return max(1, math.ceil(value.bit_length() / 7))

    def stream(symbols: Array) -> tuple[int, int]:
        """Bytes of the truncated binary code of ``symbols``, and of its table."""
        if len(np.unique(symbols)) == 1:
            return 0, varint_size(4 * int(symbols[0]) + 2)
        size = int(symbols.max()) + 1
        width = math.ceil(math.log2(size))
        bits = width * len(symbols) - np.count_nonzero(symbols < 2**width - size)
        return math.ceil(bits / 8), varint_size(4 * size)

    def payload(width: int) -> int:
        fillers = int(np.sum(runs >> width))
        gaps = np.concatenate([runs % 2**width, np.full(fillers, 2**width - 1)])
        gap_bytes, gap_table = stream(gaps)
        value_bytes, value_table = stream(np.concatenate([values, np.zeros(fillers, np.uint8)]))
        counts = varint_size(len(values)) + varint_size(fillers) + varint_size(gap_bytes)
        return 2 + 16 * 4 + counts + gap_table + value_table + gap_bytes + value_bytes

    (entry,) = decode(encode({"w": tensor}, profile="flat")).entries
    assert entry.bytes == min(map(payload, range(13)))
    assert entry.gap_width is not None
    assert entry.bytes == payload(entry.gap_width)
    assert entry.fillers == int(np.sum(runs >> entry.gap_width))


def test_the_whole_is_close_to_the_entropy_of_gaps_and_values() -> None:
    tensor = laplace((400, 500), 0.1, 31)
    (entry,) = decode(encode({"w": tensor})).entries
    positions = np.flatnonzero(tensor.indices)

    def entropy(symbols: Array) -> float:
        counts = np.unique(symbols, return_counts=True)[1]
        return float(-np.sum(counts * np.log2(counts / len(symbols))))

    bound = entropy(np.diff(positions, prepend=-1)) + entropy(tensor.indices.ravel()[positions])
    assert bound <= 8 * entry.bytes <= 1.03 * bound + 8 * (31 * 4 + 60)
    flat = decode(encode({"w": tensor}, profile="flat")).entries[0]
    assert entry.bytes < flat.bytes


def scaled(rows: int, columns: int) -> tuple[Shared, Array]:
    """Indices whose magnitude goes with output and input channel; and log2 of each one's scale."""
    rng = np.random.default_rng(0)
    octaves = rng.integers(0, 4, (rows, 1, 1)) + rng.integers(0, 4, (1, columns, 1))
    wide = np.rint(rng.laplace(0, 0.3, (rows, columns, 9)) * 2.0**octaves).clip(-15, 15).astype(int)
    indices = np.where(wide, wide + np.where(wide < 0, 16, 15), 0).astype(np.uint8)
    book = np.delete(np.arange(-15, 16), 15).astype(np.float32)
    return Shared(indices, book), np.broadcast_to(octaves, wide.shape)


def entropy_bits(symbols: Array) -> float:
    """Bits of all ``symbols`` at their own frequencies."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(np.sum(counts * np.log2(symbols.size / counts)))


def test_classes_of_channels_save_what_their_scales_do() -> None:
    tensor, octaves = scaled(64, 48)
    huffman = decode(encode({"w": tensor}, profile="huffman")).entries[0]
    classes = decode(encode({"w": tensor}, profile="fast")).entries[0]
    assert classes.mode is Mode.DENSE_RANS
    bound = sum(entropy_bits(tensor.indices[octaves == octave]) for octave in range(7)) / 8
    side = 30 * 2 + 7 * 30 + (64 + 48) * 3 // 8  # codebook, tables, classes
    assert bound < classes.bytes <= 1.02 * bound + side < huffman.bytes
    assert_equal(decode(encode({"w": tensor}, profile="fast")).tensor("w"), dense(tensor))


def test_dense_streams_are_close_to_the_entropy() -> None:
    rng = np.random.default_rng(0)
    indices = np.minimum(rng.geometric(0.3, (500, 400)) - 1, 31).astype(np.uint8)
    (entry,) = decode(encode({"w": Shared(indices, gaussian(31))}, profile="fast")).entries
    assert entry.mode is Mode.DENSE_RANS
    bound = entropy_bits(indices) / 8
    assert bound <= entry.bytes <= 1.006 * bound + 31 * 4 + 60


def test_rans_is_never_larger_than_huffman() -> None:
    for seed, keep in enumerate((0.003, 0.05, 0.3, 0.9, 1.0)):
        for shape in ((5,), (30, 7), (40, 5, 3, 3), (100, 300)):
            tensor = laplace(shape, keep, 16, seed)
            rans, huffman = (
                len(encode({"w": tensor}, profile=profile)) for profile in ("fast", "huffman")
            )
            assert rans <= huffman


def test_what_huffman_writes_has_no_mode_of_rans() -> None:
    for tensor in (scaled(20, 20)[0], laplace((100, 100), 0.3, 16)):
        (entry,) = decode(encode({"w": tensor}, profile="huffman")).entries
        assert entry.mode is Mode.GAP_SHARED


def test_small_tensors_cost_little_beside_their_values() -> None:
    """Batch norm of a ResNet-56: four small tensors in each of 55 layers."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    tensors = {
        f"layer{1 + i // 18}.{i % 9}.bn{1 + i % 2}.{kind}{i // 36}": gaussian(16 << i // 18)
        for i in range(55)
        for kind in kinds
    }
    artifact = decode(encode(tensors))
    assert artifact.overhead < 12 * len(tensors)
    assert artifact.size == artifact.overhead + sum(t.nbytes for t in tensors.values())


def test_the_same_input_gives_the_same_bytes_in_any_memory_layout() -> None:
    tensor = laplace((30, 40), 0.2, 15)
    turned = Shared(np.asfortranarray(tensor.indices).astype(np.uint64), tensor.codebook)
    plain = gaussian(30, 40)
    assert encode({"w": tensor, "b": plain}) == encode({"w": turned, "b": np.asfortranarray(plain)})


class Lazy(Mapping[str, Array]):
    """Makes each tensor as it is asked for, and remembers which."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> Array:
        self.asked.append(name)
        return gaussian(10)

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b", "c"))

    def __len__(self) -> int:
        return 3


def test_tensors_are_taken_one_by_one_and_progress_is_told() -> None:
    lazy, calls = Lazy(), []

    def progress(name: str, done: int, total: int) -> None:
        calls.append((name, done, total, len(lazy.asked)))

    encode(lazy, progress=progress)
    assert lazy.asked == ["a", "b", "c"]
    assert calls == [("a", 1, 3, 1), ("b", 2, 3, 2), ("c", 3, 3, 3)]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.zeros(3, dtype=np.complex64), "'w' has dtype complex64; convert it to float32, "),
        (np.array(["a"]), "'w' has dtype <U1"),
        (np.array([None]), "'w' has dtype object"),
        ([1.0, 2.0], "'w' is a list; give a NumPy array or a Shared"),
    ],
)
def test_tensors_that_the_format_does_not_have_are_named(tensor: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        encode({"w": tensor})


@pytest.mark.skipif(np.__version__.startswith("1."), reason="NumPy 1 has no such array")
def test_more_dimensions_than_every_numpy_has_are_refused() -> None:
    with pytest.raises(ArtifactError, match="'w' has 33 dimensions; at most 32"):
        encode({"w": np.zeros([1] * 33, dtype=np.float32)})


@pytest.mark.parametrize(
    ("indices", "codebook", "message"),
    [
        (np.zeros(2, np.int64), np.zeros(1, np.float32), "indices are int64; make them unsigned"),
        (np.zeros(2, np.uint8), np.zeros(1, np.float64), "make it float32"),
        (np.zeros(2, np.uint8), np.zeros((1, 1), np.float32), "make it float32 of shape"),
        (np.zeros(2, np.uint8), np.zeros(65537, np.float32), "65536 are the most"),
        (
            np.array([0, 3], np.uint8),
            np.zeros(2, np.float32),
            "index 3 points past a codebook of 2",
        ),
    ],
)
def test_shared_tensors_are_checked(indices: Array, codebook: Array, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Shared(indices, codebook)


def test_what_cannot_be_written_is_said() -> None:
    with pytest.raises(ArtifactError, match="'zip' is unknown; there are best, fast"):
        encode({}, profile="zip")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="cannot be written as UTF-8"):
        encode({"\ud800": gaussian(1)})
    with pytest.raises(ArtifactError, match="1025 metadata texts"):
        encode({}, metadata={str(i): "" for i in range(1025)})
    with (
        mock.patch("compressor.artifact.layout.MAX_GRAPH", 9),
        pytest.raises(ArtifactError, match="the graph has 10 bytes; an artifact holds 9"),
    ):
        encode({}, graph=bytes(10))
    with pytest.raises(ArtifactError, match="an artifact holds"):
        encode({}, metadata={"": "x" * (1 << 22)})


def test_names_that_are_not_there_are_answered_with_those_that_are() -> None:
    artifact = decode(encode({f"t{i}": gaussian(1) for i in range(9)}), source="x.dcz")
    for look in (artifact.tensor, artifact.shared):
        with pytest.raises(ArtifactError, match=r"x.dcz: .* 'w'; there are t0, .*, t7, \.\.\."):
            look("w")


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a b.dcz"
    path.write_bytes(encode({"w": gaussian(3)}))
    assert_equal(read(path).tensor("w"), gaussian(3))
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"a b.dcz: the file is empty"):
        read(str(path))


def test_limits_are_the_callers() -> None:
    blob = encode({"a": gaussian(100), "b": gaussian(100)}, graph=bytes(1000))
    decode(blob, limits=Limits(400, 800, 2, 1000)).tensors()
    for limits in (
        Limits(max_tensor_bytes=399),
        Limits(max_total_bytes=799),
        Limits(max_tensors=1),
        Limits(max_graph_bytes=999),
    ):
        with pytest.raises(ArtifactError, match="limit"):
            decode(blob, limits=limits)


def test_sparsity_and_bits_count_all_weights() -> None:
    tensor = laplace((100, 100), 0.1, 15)
    weights, nothing = decode(encode({"w": tensor, "e": np.zeros((0, 3))})).entries
    assert weights.sparsity == pytest.approx(np.mean(tensor.indices == 0), abs=1e-12)
    assert weights.bits_per_weight == weights.bytes * 8 / 10_000
    assert (nothing.sparsity, nothing.bits_per_weight) == (0, 0)


def test_shared_tensors_expand_to_their_codebook() -> None:
    shared = Shared(np.array([[0, 2], [1, 0]], dtype=np.uint16), np.array([3, 4], dtype=np.float32))
    assert shared.dense().tolist() == [[0, 4], [3, 0]]
    assert shared.dense().dtype == np.float32


def test_reading_and_writing_need_numpy_alone() -> None:
    code = "import sys, compressor.artifact; print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
