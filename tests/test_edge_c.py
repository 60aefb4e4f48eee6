"""The C decoder for devices: it reads what Python reads, bit for bit, refuses what Python refuses, and
never steps out of a buffer. Without a C compiler there is nothing to be tested."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from compressor.artifact import Limits, Shared, decode, encode, read
from compressor.artifact.types import DTYPES
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SEGMENT, artifacts
from tests.fuzz.core import SANITIZED, STRICT
from tests.fuzz.mutants import SEALED, mutant

ROOT = Path(__file__).parents[1]
EDGE, CORE, GOLDEN = ROOT / "edge" / "c", ROOT / "compressor" / "coding" / "core", ROOT / "tests" / "golden"
SOURCES = [*sorted(path for path in EDGE.glob("*.c") if path.name != "example.c"), CORE / "context.c"]
FLAGS = [*STRICT, "-I", str(EDGE), "-I", str(CORE)]
COMPILER = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
LIMIT, SMALL = 4 << 30, 1 << 12
OUT_OF_LIMITS, DAMAGED = 8, 5

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def build(output: Path, options: Sequence[str], main: Path) -> Path:
    assert COMPILER
    files = [*SOURCES, main]
    subprocess.run([COMPILER, *FLAGS, *options, *map(str, files), "-o", str(output)], check=True)
    return output


def sanitizers(folder: Path) -> Sequence[str]:
    """The options of sanitizers, where they work."""
    assert COMPILER
    command = [COMPILER, *SANITIZED, "-x", "c", "-", "-o", str(folder / "nothing")]
    source = "int main(void) { return 0; }"
    found = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    return SANITIZED if not found.returncode else ("-O1",)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    return build(folder / "replay", sanitizers(folder), ROOT / "tests" / "edge_replay.c")


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the segments of `artifacts`, and checksums taken as true."""
    folder = tmp_path_factory.mktemp("trusting")
    options = [f"-DDCZ_SEGMENT={SEGMENT}", "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"]
    main = ROOT / "tests" / "edge_replay.c"
    return build(folder / "replay", [*sanitizers(folder), *options], main)


def run(binary: Path, files: Sequence[Path], folder: Path | None = None, limit: int = LIMIT) -> Any:
    """What it says of each file: the code of opening it, then a line of each tensor, and the graph."""
    command = [str(binary), str(limit), str(folder or "-"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[list[int]]] = []
    for line in done.stdout.splitlines():
        what, *words = line.split()
        if what == "open":
            found.append([[int(words[0])]])
        else:
            found[-1].append([int(word) for word in ([] if what == "graph" else [what]) + words])
    assert len(found) == len(files)
    return found


def assert_holds(folder: Path, number: int, line: list[list[int]], expected: dict[str, Any]) -> None:
    """File ``number`` of a folder is these tensors, in this order."""
    assert [each[0] for each in line] == [0] * len(line)
    for place, (name, array) in enumerate(expected.items(), 1):
        assert (folder / f"{number}-name{place}").read_text("utf-8") == name
        assert (folder / f"{number}-tensor{place}").read_bytes() == array.tobytes(), name
        assert line[place] == [0, DTYPES.index(array.dtype.newbyteorder("<")), *array.shape]


def texts(folder: Path, number: int) -> dict[str, str]:
    keys = sorted(folder.glob(f"{number}-key*"))
    values = (folder / key.name.replace("key", "value") for key in keys)
    return {key.read_text("utf-8"): value.read_text("utf-8") for key, value in zip(keys, values, strict=True)}


def test_good_files_come_out_bit_for_bit(replay: Path, tmp_path: Path) -> None:
    files = sorted((GOLDEN / "good").glob("*.dcz"))
    for number, (path, line) in enumerate(zip(files, run(replay, files, tmp_path), strict=True)):
        artifact = read(path)
        assert_holds(tmp_path, number, line, artifact.tensors())
        assert texts(tmp_path, number) == artifact.metadata
        graph = tmp_path / f"{number}-graph0"
        assert (graph.read_bytes() if graph.exists() else None) == artifact.graph


def test_bad_files_are_refused(replay: Path) -> None:
    files = sorted((GOLDEN / "bad").glob("*.dcz"))
    for path, line in zip(files, run(replay, files), strict=True):
        assert any(each[0] for each in line), path.name
        assert all(each[0] in (0, *range(5, 9)) for each in line), path.name


def test_the_largest_codebook_is_read(replay: Path, tmp_path: Path) -> None:
    """65,536 entries, whose indices take four bytes."""
    rng = np.random.default_rng(0)
    book = np.arange(1, 65537).astype(np.float32)
    indices = rng.integers(0, 65537, (300, 7)).astype(np.uint32)
    indices[0, 0] = 65536
    tensors = {"w": Shared(indices, book), "few": Shared((indices > 60000) * indices, book)}
    (tmp_path / "x.dcz").write_bytes(encode(tensors, profile="huffman"))
    (line,) = run(replay, [tmp_path / "x.dcz"], tmp_path)
    assert_holds(tmp_path, 0, line, {name: tensor.dense() for name, tensor in tensors.items()})


def compare(binary: Path, folder: Path, numbers: range) -> int:
    """Of mutants, with every checksum taken as true, C makes what Python makes; how many it took."""
    blobs = [mutant(number).blob for number in numbers]
    files = [folder / f"m{place}.dcz" for place in range(len(blobs))]
    for path, blob in zip(files, blobs, strict=True):
        path.write_bytes(blob)
    found, taken = run(binary, files, folder, SMALL), 0
    for place, (blob, line) in enumerate(zip(blobs, found, strict=True)):
        tensors = in_python(blob)
        refused = any(each[0] for each in line)
        assert refused == (tensors is None), f"mutant {numbers[place]}"
        if tensors is not None:
            assert_holds(folder, place, line, tensors)
            taken += 1
    return taken


def in_python(blob: bytes) -> dict[str, Any] | None:
    with (
        mock.patch("zlib.crc32", lambda *_: mock.ANY),
        mock.patch("compressor.artifact.unpacking._check_crc", lambda *_: None),
        mock.patch("compressor.coding.gaps.SEGMENT", SEGMENT),
    ):
        try:
            artifact = decode(blob, limits=Limits(SMALL, SMALL, SMALL, SMALL))
            found = artifact.tensors()
            return found if artifact.graph is None or artifact.graph else found
        except ArtifactError:
            return None


def test_of_damaged_files_it_makes_what_python_makes(trusting: Path, tmp_path: Path) -> None:
    assert 300 < compare(trusting, tmp_path, range(0, 3000 * SEALED, SEALED)) < 2700


@pytest.mark.slow
def test_so_it_does_of_many(trusting: Path, tmp_path: Path) -> None:
    for start in range(1, 6):
        part = range(start * SEALED << 40, (start << 40) * SEALED + 10_000 * SEALED, SEALED)
        assert compare(trusting, tmp_path, part) > 1000


def test_damaged_files_are_refused_or_whole(replay: Path, tmp_path: Path) -> None:
    """With checksums: what mutants come to is an error, or what was written."""
    numbers = [number for number in range(1, 1200) if number % SEALED]
    found = [mutant(number) for number in numbers]
    files = [tmp_path / f"m{place}.dcz" for place in range(len(found))]
    for path, each in zip(files, found, strict=True):
        path.write_bytes(each.blob)
    whole, sound = 0, {file.blob: file for file in artifacts()}
    for place, line in enumerate(run(replay, files, tmp_path, 1 << 20)):
        for number, each in enumerate(line[1:], 1):
            written = tmp_path / f"{place}-tensor{number}"
            if each[0] == 0 and written.exists():
                name = (tmp_path / f"{place}-name{number}").read_text()
                origin = sound.get(found[place].blob, found[place].origin)
                assert written.read_bytes() == origin.tensors[name]
                whole += 1
    assert whole
