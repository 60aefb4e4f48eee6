"""Golden files: exact bytes, exact tensors, and the reasons for which bad ones are refused.

`test_second_decoder` reads them without the package.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from compressor.artifact import Artifact, Shared, decode, encode, read
from compressor.errors import ArtifactError
from tests.golden.make import GOOD

GOLDEN = Path(__file__).parent / "golden"
FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
BAD: dict[str, str] = json.loads((GOLDEN / "bad" / "messages.json").read_text())


def everything(artifact: Artifact) -> None:
    artifact.tensors()
    assert artifact.graph is None or artifact.graph
    assert len(artifact.entries) == len(artifact.names)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        dense = tensor.dense() if isinstance(tensor, Shared) else tensor
        assert found[name].dtype == dense.dtype, name
        assert found[name].shape == dense.shape, name
        assert found[name].tobytes() == dense.tobytes(), name


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_decoded(name: str) -> None:
    artifact = read(GOLDEN / "good" / f"{name}.dcz")
    arguments = GOOD[name]
    assert_same(artifact.tensors(), arguments["tensors"])
    assert artifact.metadata == arguments.get("metadata", {})
    assert artifact.graph == arguments.get("graph")


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_written_byte_for_byte(name: str) -> None:
    expected = (GOLDEN / "good" / f"{name}.dcz").read_bytes()
    arguments = dict(GOOD[name])
    blob = encode(arguments.pop("tensors"), **arguments)
    if blob != expected:  # two builds of zlib may deflate differently, and nothing else may
        assert zlib.ZLIB_RUNTIME_VERSION.endswith("ng"), "the bytes of the format have changed"
        pytest.skip("zlib-ng deflates the directory to other bytes")


def test_good_files_are_the_ones_defined() -> None:
    assert {path.stem for path in (GOLDEN / "good").iterdir()} == set(GOOD)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_for_the_reason_given(name: str) -> None:
    path = GOLDEN / "bad" / f"{name}.dcz"
    with pytest.raises(ArtifactError, match=re.escape(BAD[name])) as caught:
        everything(read(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_every_bad_file_has_its_message() -> None:
    assert {path.stem for path in (GOLDEN / "bad").glob("*.dcz")} == set(BAD)


def test_the_specifications_example_is_the_golden_one() -> None:
    block = re.search(r"```hex\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    assert block
    columns = [re.match(r"(?:[0-9a-f]{2} {1,2})+", line + " ") for line in block[1].splitlines()]
    data = b"".join(bytes.fromhex(column[0]) for column in columns if column)
    assert data == (GOLDEN / "good" / "example.dcz").read_bytes()


def test_the_second_example_is_the_golden_one() -> None:
    block = re.findall(r"```hex\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)[1]
    columns = [re.match(r"(?:[0-9a-f]{2} {1,2})+", line + " ") for line in block.splitlines()]
    data = b"".join(bytes.fromhex(column[0]) for column in columns if column)
    assert (GOLDEN / "good" / "rans-example.dcz").read_bytes().endswith(data)
    assert decode((GOLDEN / "good" / "rans-example.dcz").read_bytes()).entries[0].bytes == len(data)


def test_golden_files_hold_segments_of_every_mode_that_has_them() -> None:
    files = ("segments", "segments-huffman")
    entries = [entry for name in files for entry in read(GOLDEN / "good" / f"{name}.dcz").entries]
    assert {entry.mode.name for entry in entries if entry.elements > 2**20} == {
        *("GAP_SHARED", "GAP_FLOAT", "GAP_RANS", "DENSE_RANS")
    }


def test_golden_files_hold_every_mode_and_kind_of_rans() -> None:
    entries = read(GOLDEN / "good" / "rans.dcz").entries
    assert {entry.mode.name for entry in entries} >= {"GAP_RANS", "DENSE_RANS", "GAP_FLOAT", "FP16"}
