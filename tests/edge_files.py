"""What the tests of both edge decoders share: a program's word on files, and what it must be."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from compressor.artifact import Limits, decode, read
from compressor.artifact.types import DTYPES
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SEGMENT, artifacts
from tests.fuzz.mutants import SEALED, mutant

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
GOOD, BAD = (sorted((GOLDEN / kind).glob("*.dcz")) for kind in ("good", "bad"))
LIMIT, SMALL = 4 << 30, 1 << 12
TRUSTING = (f"-DDCZ_SEGMENT={SEGMENT}", "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION")
"""Options with which a decoder has the segments of `artifacts`, and takes checksums as true."""

Program = Sequence[str | Path]
Lines = list[list[int]]


def run(
    program: Program, files: Sequence[Path], folder: Path | None = None, limit: int = LIMIT
) -> list[Lines]:
    """What it says of each file: the code of opening it, a line of each tensor and the graph."""
    command = [*map(str, program), str(limit), str(folder or "-"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[Lines] = []
    for line in done.stdout.splitlines():
        what, *words = line.split()
        if what == "open":
            found.append([])
        numbers = words if what in ("open", "graph") else [what, *words]
        found[-1].append([int(word) for word in numbers])
    assert len(found) == len(files)
    return found


def assert_holds(folder: Path, number: int, line: Lines, expected: dict[str, Any]) -> None:
    """File ``number`` of a folder is these tensors, in this order."""
    assert [each[0] for each in line] == [0] * len(line)
    for place, (name, array) in enumerate(expected.items(), 1):
        assert (folder / f"{number}-name{place}").read_text("utf-8") == name
        assert (folder / f"{number}-tensor{place}").read_bytes() == array.tobytes(), name
        assert line[place] == [0, DTYPES.index(array.dtype.newbyteorder("<")), *array.shape]


def assert_reads_good_files(program: Program, folder: Path) -> None:
    """All golden files come out bit for bit as they do in Python."""
    for number, (path, line) in enumerate(zip(GOOD, run(program, GOOD, folder), strict=True)):
        artifact = read(path)
        assert_holds(folder, number, line, artifact.tensors())
        keys = sorted(folder.glob(f"{number}-key*"))
        values = [folder / key.name.replace("key", "value") for key in keys]
        texts = {
            key.read_text("utf-8"): value.read_text("utf-8")
            for key, value in zip(keys, values, strict=True)
        }
        assert texts == artifact.metadata
        graph = folder / f"{number}-graph0"
        assert (graph.read_bytes() if graph.exists() else None) == artifact.graph


def assert_refuses_bad_files(program: Program) -> None:
    """Each with a code that says what is wrong with the file."""
    for path, line in zip(BAD, run(program, BAD), strict=True):
        assert any(each[0] for each in line), path.name
        assert all(each[0] in (0, *range(5, 9)) for each in line), path.name


def count_agreed(program: Program, folder: Path, numbers: Sequence[int]) -> int:
    """How many mutants a program takes that takes checksums as true: those that Python takes, and
    with what Python makes of them."""
    blobs = [mutant(number).blob for number in numbers]
    taken = 0
    found = run(program, written(blobs, folder), folder, SMALL)
    for place, (blob, line) in enumerate(zip(blobs, found, strict=True)):
        tensors = _in_python(blob)
        refused = any(each[0] for each in line)
        assert refused == (tensors is None), f"mutant {numbers[place]}"
        if tensors is not None:
            assert_holds(folder, place, line, tensors)
            taken += 1
    return taken


def sealed(start: int, count: int) -> Sequence[int]:
    """Numbers of mutants whose checksums are true."""
    return range(start * SEALED, (start + count) * SEALED, SEALED)


def _in_python(blob: bytes) -> dict[str, Any] | None:
    with (
        mock.patch("zlib.crc32", return_value=mock.ANY),
        mock.patch("compressor.artifact.unpacking._check_crc"),
        mock.patch("compressor.coding.gaps.SEGMENT", SEGMENT),
    ):
        try:
            artifact = decode(blob, limits=Limits(SMALL, SMALL, SMALL, SMALL))
            _ = artifact.graph
            return artifact.tensors()
        except ArtifactError:
            return None


def assert_never_wrong(program: Program, folder: Path, count: int) -> None:
    """What damaged files come to is an error, or what was written."""
    found = [mutant(number) for number in range(count) if number % SEALED]
    sound = {file.blob: file for file in artifacts()}
    files = written([each.blob for each in found], folder)
    whole = 0
    for place, line in enumerate(run(program, files, folder, 1 << 20)):
        origin = sound.get(found[place].blob, found[place].origin)
        for number, each in enumerate(line[1:], 1):
            tensor = folder / f"{place}-tensor{number}"
            if each[0] == 0 and tensor.exists():
                name = (folder / f"{place}-name{number}").read_text("utf-8")
                assert tensor.read_bytes() == origin.tensors[name]
                whole += 1
    assert whole


def written(blobs: Sequence[bytes], folder: Path) -> list[Path]:
    """Files of these bytes."""
    files = [folder / f"m{place}.dcz" for place in range(len(blobs))]
    for path, blob in zip(files, blobs, strict=True):
        path.write_bytes(blob)
    return files
