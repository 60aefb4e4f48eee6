"""docs/format.md is enough to write a decoder from: the second one agrees with the first.

It is in `tests.golden.second`, plain Python, and shares nothing with the package.
"""

import ast
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.artifact import Limits, Profile, Shared, decode, encode
from compressor.artifact.types import PROFILES
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SEGMENT, artifacts
from tests.fuzz.mutants import SEALED, mutant
from tests.golden import second
from tests.golden.make import GOOD

GOLDEN = Path(__file__).parent / "golden"
BAD = sorted(path.name for path in (GOLDEN / "bad").glob("*.dcz"))
LIMIT = 4 << 30  # what the package's own default is
SMALL = 1 << 12


def dense(tensor: Any) -> Any:
    """A tensor with its weights, little-endian, in row-major order."""
    array = tensor.dense() if isinstance(tensor, Shared) else tensor
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def assert_decodes(blob: bytes, expected: dict[str, Any]) -> tuple[dict[str, str], bytes | None]:
    tensors, metadata, graph = second.decode(blob, LIMIT)
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        assert np.dtype(f"<{tensors[name].dtype}") == dense(tensor).dtype, name
        assert tuple(tensors[name].shape) == dense(tensor).shape, name
        assert tensors[name].data == dense(tensor).tobytes(), name
    return metadata, graph


@pytest.mark.parametrize("name", GOOD)
def test_good_files_hold_what_they_were_written_from(name: str) -> None:
    blob, arguments = (GOLDEN / "good" / f"{name}.dcz").read_bytes(), GOOD[name]
    metadata, graph = assert_decodes(blob, arguments["tensors"])
    assert metadata == arguments.get("metadata", {})
    assert graph == arguments.get("graph")


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name: str) -> None:
    with pytest.raises(second.Refused):
        second.decode((GOLDEN / "bad" / name).read_bytes(), LIMIT)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both decoders with the segments of `artifacts`."""
    monkeypatch.setattr("compressor.coding.gaps.SEGMENT", SEGMENT)
    monkeypatch.setattr("tests.golden.second.segments.LONGEST", SEGMENT)


@pytest.mark.usefixtures("small_segments")
def test_every_mode_is_read() -> None:
    for file in artifacts():
        tensors, _, graph = second.decode(file.blob, LIMIT)
        assert {name: tensor.data for name, tensor in tensors.items()} == file.tensors
        assert graph == file.graph


def shared(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> Shared:
    """Laplacian levels of channels of different scales, pruned; an arbitrary codebook or a grid."""
    scales = 2.0 ** rng.uniform(-3, 1, shape[:1] + (1,) * (len(shape) - 1))
    level = np.rint(size / 2 + size / 4 * rng.laplace(size=shape) * scales).clip(1, size)
    indices = np.where(rng.random(shape) < rng.choice([0.02, 0.2, 1.0]), level, 0)
    book = np.sort(rng.normal(size=size)).astype(np.float32)
    if rng.random() < 0.5:
        book = np.delete(np.arange(-(size // 2), size - size // 2 + 1), size // 2)
        book = book.astype(np.float32) * np.float32(0.01)
    return Shared(indices.astype(np.min_scalar_type(size)), book)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(PROFILES))
def test_random_networks_come_back(seed: int, profile: Profile) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(40,), (5, 30), (64, 9), (6, 4, 3, 3), (1, 1), (3, 0, 2), (2, 3, 2, 3, 2)]
    network: dict[str, Any] = {}
    for layer in range(rng.integers(1, 4)):
        shape = shapes[rng.integers(len(shapes))]
        network[f"{layer}.weight"] = shared(rng, shape, int(rng.choice([1, 2, 15, 31, 300])))
        network[f"{layer}.bias"] = rng.integers(-9, 9, shape[:1]) * np.float32(0.125)
        network[f"{layer}.norm"] = rng.normal(size=shape).astype(rng.choice(["f2", "f4", "f8"]))
        network[f"{layer}.steps"] = np.array(seed, dtype=np.int64)
    texts, graph = {"née": "é"}, rng.bytes(20)
    blob = encode(network, profile=profile, metadata=texts, graph=graph)
    assert assert_decodes(blob, network) == (texts, graph)


def first(blob: bytes) -> Any:
    """What the package makes of a file: all that it holds, or ``None`` where it refuses."""
    try:
        artifact = decode(blob, limits=Limits(SMALL, SMALL, 1 << 20, SMALL))
        tensors = {name: artifact.tensor(name).tobytes() for name in artifact.names}
        return tensors, artifact.metadata, artifact.graph
    except ArtifactError:
        return None


def second_(blob: bytes) -> Any:
    """The same, of the second decoder."""
    try:
        tensors, metadata, graph = second.decode(blob, SMALL)
        return {name: tensor.data for name, tensor in tensors.items()}, metadata, graph
    except second.Refused:
        return None


@pytest.mark.usefixtures("small_segments")
def test_of_damaged_files_both_decoders_make_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checksum taken as true: it is the decoders that accept or refuse."""
    blobs = [mutant(number).blob for number in range(0, 1500 * SEALED, SEALED)]
    monkeypatch.setattr("zlib.crc32", lambda *_: mock.ANY)
    monkeypatch.setattr("compressor.artifact.unpacking._check_crc", lambda *_: None)
    taken = 0
    for place, blob in enumerate(blobs):
        found = first(blob)
        assert found == second_(blob), f"mutant {place * SEALED}"
        taken += found is not None
    assert 150 < taken < 1350


def test_it_shares_nothing_with_the_package() -> None:
    for path in (GOLDEN / "second").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("tests.golden.second")
                assert own or name.split(".")[0] in sys.stdlib_module_names, f"{path}: {name}"
