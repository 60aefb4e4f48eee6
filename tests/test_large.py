"""ONNX files whose weights lie beside them: a small network, with no room for them in one file."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import compressor
from compressor import artifact, files, unpacking
from compressor.benchmarks.harness.runtimes import open_session
from compressor.errors import ExportError, LoadError, OutputError, UsageError
from compressor.export import onnx as dense
from compressor.export.verify import session
from compressor.recipe import Recipe
from compressor.settings import Share
from tests.conftest import Outcome

Compress = Callable[..., Outcome]
SETTINGS = ("--prune-sensitivity", 1, "--quantize", "4bit", "--threads", 1, "-q")


@pytest.fixture(autouse=True)
def no_room(request: pytest.FixtureRequest) -> Iterator[pytest.MonkeyPatch]:
    """The limit of one file, lowered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "MAX_BYTES", 0)
        yield patch


@pytest.fixture(scope="module")
def made(compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "MAX_BYTES", 0)
        done = compress(shelf / "net.pt", *SETTINGS, "-o", folder)
    assert (done.code, done.err) == (0, "")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.onnx*")}


def answers(model: Any) -> Any:
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    runtime = model if hasattr(model, "run") else session(model)
    return runtime.run(None, {"input": x})[0]


def test_a_run_leaves_both_files_and_counts_both(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())
    assert report["files"]["onnx"], report["files"]["onnx_data"] == ("net.onnx", "net.onnx.data")
    sizes = {name: len(each) for name, each in content(made).items()}
    assert sorted(sizes) == ["net.onnx", "net.onnx.data"]
    assert report["stages"]["export"]["bytes"] == sum(sizes.values())
    assert 0 < report["stages"]["dense"]["bytes"] - 4 * 266_610 < 5 * 4096
    assert report["stages"]["export"]["difference_relative"] < 1e-5
    for page in ("report.md", "report.html"):
        assert "net.onnx + net.onnx.data" in (made / page).read_text()


def test_weights_lie_where_the_file_says_and_at_pages(made: Path) -> None:
    """By the external data of https://onnx.ai/onnx/repo-docs/ExternalData.html."""
    graph = onnx.load(made / "net.onnx", load_external_data=False).graph
    held, end = (made / "net.onnx.data").read_bytes(), 0
    tensors = artifact.read(made / "net.dcz").tensors()
    for item in [item for item in graph.initializer if item.name in tensors]:
        value = tensors[item.name]
        if value.nbytes < 1024:
            assert item.data_location == onnx.TensorProto.DEFAULT
            continue
        told = {entry.key: entry.value for entry in item.external_data}
        start, length = int(told["offset"]), int(told["length"])
        assert (told["location"], length) == ("net.onnx.data", value.nbytes)
        assert start % 4096 == 0
        assert end <= start < end + 4096
        end = start + length
        assert held[start:end] == value.tobytes()
    assert end == len(held)
    assert {item.name for item in graph.initializer} >= set(tensors)


def test_it_computes_what_one_file_computes(made: Path, no_room: pytest.MonkeyPatch) -> None:
    decoded = artifact.read(made / "net.dcz")
    with pytest.raises(ExportError, match="over 2 GB"):
        unpacking.onnx_bytes(decoded)
    found = [answers(made / "net.onnx"), answers(compressor.session(made / "net.dcz"))]
    no_room.undo()
    expected = answers(unpacking.onnx_bytes(decoded))
    assert all(np.array_equal(each, expected) for each in found)
    onnx.checker.check_model(made / "net.onnx", full_check=True)


def test_decompress_writes_the_runs_own_files(
    compress: Compress, made: Path, here: Path, no_room: pytest.MonkeyPatch
) -> None:
    done = compress("decompress", made / "net.dcz", "-o", "net.onnx")
    assert (done.code, content(here)) == (0, content(made))
    assert f"{sum(map(len, content(here).values())):,} bytes" in done.out
    said = compress("verify", made / "net.dcz", "--against", "net.onnx", "--json")
    assert json.loads(said.out)["identical"] is True

    (here / "net.onnx").unlink()
    refused = compress("decompress", made / "net.dcz", "-o", "net.onnx")
    assert refused.code == 1
    assert refused.err == "error: net.onnx.data exists: add --force to overwrite it\n"
    changed = bytearray(content(made)["net.onnx.data"])
    changed[-4] ^= 1  # the last bit of a weight
    (here / "net.onnx.data").write_bytes(changed)
    (here / "net.onnx").write_bytes(content(made)["net.onnx"])
    said = compress("verify", made / "net.dcz", "--against", "net.onnx", "--json")
    assert json.loads(said.out)["identical"] is False

    no_room.undo()
    assert compress("decompress", made / "net.dcz", "-o", "net.onnx", "--force").code == 0
    assert list(content(here)) == ["net.onnx"]


def test_export_writes_them_and_no_other_form(compress: Compress, made: Path, here: Path) -> None:
    done = compress("export", made / "net.dcz", "-q", "--json")
    row = json.loads(done.out)["onnx"]
    assert content(here) == content(made)
    assert row["file"] == "net.onnx + net.onnx.data"
    assert row["bytes"] == sum(map(len, content(made).values()))
    refused = compress("export", made / "net.dcz", "--emit", "onnx,fp16,ort", "-o", "more")
    assert (refused.code, refused.out, (here / "more").exists()) == (2, "", False)
    assert refused.err == (
        "error: export.emit ort, fp16: the network is over 2 GB, more than such a file can hold: "
        "leave it out (--emit)\n"
    )


def test_a_benchmark_says_that_it_takes_whole_files(made: Path) -> None:
    with pytest.raises(LoadError, match="keeps its weights in a file beside it"):
        open_session((made / "net.onnx").read_bytes(), 1)


def test_other_forms_are_refused_before_a_run(compress: Compress, shelf: Path, here: Path) -> None:
    done = compress(shelf / "net.pt", *SETTINGS, "--emit", "fp16")
    assert (done.code, list(here.iterdir())) == (2, [])
    assert "export.emit fp16: the network is over 2 GB" in done.err
    with pytest.raises(UsageError, match="over 2 GB: give output="):
        compressor.compress(shelf / "net.pt", Recipe(share=Share(bits=4)))


class Killed(BaseException):
    pass


def test_a_run_that_died_while_it_published_ends_under_another_name(
    compress: Compress,
    shelf: Path,
    made: Path,
    here: Path,
) -> None:
    """The name stands in the ONNX file, so what is kept is not what is published."""
    real = Path.replace

    def replace(part: Path, path: Path) -> Path:
        if path == Path("out", "net.onnx"):
            raise Killed
        return real(part, path)

    (here / "net.pt").write_bytes((shelf / "net.pt").read_bytes())
    (here / "other.pt").write_bytes((shelf / "net.pt").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            compress("net.pt", *SETTINGS, "-o", "out")
    assert "net.onnx" not in content(here / "out")
    assert compress("other.pt", *SETTINGS, "-o", "out", "--resume").code == 0
    found = {name: each for name, each in content(here / "out").items() if "other" in name}
    assert found["other.onnx.data"] == content(made)["net.onnx.data"]
    assert np.array_equal(answers(here / "out" / "other.onnx"), answers(made / "net.onnx"))


def test_a_smaller_network_over_it_leaves_nothing_of_it(
    compress: Compress, shelf: Path, made: Path, here: Path, no_room: pytest.MonkeyPatch
) -> None:
    (here / "out").mkdir()
    for name, each in content(made).items():
        (here / "out" / name).write_bytes(each)
    no_room.undo()
    done = compress(shelf / "net.pt", *SETTINGS, "-o", "out", "--force")
    assert (done.code, list(content(here / "out"))) == (0, ["net.onnx"])


def test_a_file_never_stands_beside_what_another_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, data = tmp_path / "x.onnx", tmp_path / "x.onnx.data"

    def write(*chunks: bytes | OSError) -> None:
        def pieces() -> Iterator[bytes]:
            for chunk in chunks:
                if isinstance(chunk, OSError):
                    raise chunk
                yield chunk

        files.write_together({data: pieces(), head: [b"head ", *chunks]})  # type: ignore[list-item]

    def found() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    write(b"old")
    with pytest.raises(OutputError, match=r"x\.onnx\.data: the disk is full"):
        write(b"new", OSError(errno.ENOSPC, ""))
    assert found() == {"x.onnx": b"head old", "x.onnx.data": b"old"}

    real, seen = Path.replace, []

    def replace(part: Path, path: Path) -> Path:
        seen.append((path.name, head.exists()))
        return real(part, path)

    monkeypatch.setattr(Path, "replace", replace)
    write(b"new")
    assert seen == [("x.onnx.data", False), ("x.onnx", False)]
    assert found() == {"x.onnx": b"head new", "x.onnx.data": b"new"}


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path, no_room: pytest.MonkeyPatch) -> None:
    """x (n, 16) -> 16 x 2^25 -> 2^25 x 1, of zeros but for one weight in each: the real limit."""
    no_room.undo()
    wide = 1 << 25
    proto = onnx.helper
    shapes = {"first": (16, wide), "last": (wide, 1)}
    inputs = [
        proto.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in {"input": ("batch", 16), **shapes}.items()
    ]
    graph = proto.make_graph(
        [
            proto.make_node("MatMul", ["input", "first"], ["h"]),
            proto.make_node("MatMul", ["h", "last"], ["y"]),
        ],
        "network",
        inputs,
        [proto.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("batch", 1))],
    )
    opset = [proto.make_opsetid("", 18)]
    skeleton = proto.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    weights["first"][15, -1], weights["last"][-1, 0] = 3, 5
    dense.write(tmp_path / "net.onnx", skeleton, weights, {})
    assert (tmp_path / "net.onnx.data").stat().st_size == 4 * 17 * wide > 1 << 31
    del weights
    x = np.arange(32, dtype=np.float32).reshape(2, 16)
    (found,) = session(tmp_path / "net.onnx").run(None, {"input": x})
    assert found.tolist() == [[15.0 * 15], [31.0 * 15]]
    (tmp_path / "net.onnx.data").unlink()  # pytest keeps folders of the last runs
