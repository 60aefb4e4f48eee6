"""The C decoder for devices: it reads what Python reads, bit for bit, refuses what Python refuses,
and never steps out of a buffer. Without a C compiler there is nothing to be tested."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from compressor.artifact import Mode, Shared, encode, read
from tests import edge_files
from tests.edge_files import GOLDEN, ROOT, TRUSTING, run, sealed
from tests.fuzz.core import SANITIZED, STRICT

EDGE, CORE = ROOT / "edge" / "c", ROOT / "compressor" / "coding" / "core"
SOURCES = [*sorted(set(EDGE.glob("*.c")) - {EDGE / "example.c"}), CORE / "context.c"]
REPLAY = ROOT / "tests" / "edge_replay.c"
FLAGS = [*STRICT, "-I", str(EDGE), "-I", str(CORE)]
COMPILER = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")

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
    return build(folder / "replay", sanitizers(folder), REPLAY)


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the segments of `artifacts`, and checksums taken as true."""
    folder = tmp_path_factory.mktemp("trusting")
    return build(folder / "replay", [*sanitizers(folder), *TRUSTING], REPLAY)


def test_good_files_come_out_bit_for_bit(replay: Path, tmp_path: Path) -> None:
    edge_files.assert_reads_good_files([replay], tmp_path)


def test_bad_files_are_refused(replay: Path) -> None:
    edge_files.assert_refuses_bad_files([replay])


def test_the_largest_codebook_is_read(replay: Path, tmp_path: Path) -> None:
    """65,536 entries, whose indices take four bytes."""
    rng = np.random.default_rng(0)
    book = np.arange(1, 65537).astype(np.float32)
    indices = rng.integers(0, 65537, (300, 7)).astype(np.uint32)
    indices[0, 0] = 65536
    tensors = {"w": Shared(indices, book), "few": Shared((indices > 60000) * indices, book)}
    (tmp_path / "x.dcz").write_bytes(encode(tensors, profile="huffman"))
    (line,) = run([replay], [tmp_path / "x.dcz"], tmp_path)
    dense = {name: tensor.dense() for name, tensor in tensors.items()}
    edge_files.assert_holds(tmp_path, 0, line, dense)


def test_of_damaged_files_it_makes_what_python_makes(trusting: Path, tmp_path: Path) -> None:
    assert 300 < edge_files.count_agreed([trusting], tmp_path, sealed(0, 3000)) < 2700


@pytest.mark.slow
def test_so_it_does_of_many(trusting: Path, tmp_path: Path) -> None:
    for start in range(1 << 40, 6 << 40, 1 << 40):
        assert edge_files.count_agreed([trusting], tmp_path, sealed(start, 10_000)) > 1000


def test_damaged_files_are_refused_or_whole(replay: Path, tmp_path: Path) -> None:
    edge_files.assert_never_wrong([replay], tmp_path, 1500)


def test_the_example_lists_and_decodes(tmp_path: Path) -> None:
    program = build(tmp_path / "dcz", ["-O1"], EDGE / "example.c")
    path, artifact = GOLDEN / "good" / "rans.dcz", read(GOLDEN / "good" / "rans.dcz")
    listed = subprocess.run([program, path], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(artifact.names)
    for name in artifact.names:
        subprocess.run([program, path, name, tmp_path / "w"], check=True)
        assert (tmp_path / "w").read_bytes() == artifact.tensor(name).tobytes()
        shared = artifact.shared(name)
        if shared is not None:
            subprocess.run([program, "-i", path, name, tmp_path / "w"], check=True)
            assert (tmp_path / "w").read_bytes() == shared.indices.tobytes()
            assert (tmp_path / "w.codebook").read_bytes() == shared.codebook.tobytes()


def test_the_example_says_what_is_wrong(tmp_path: Path) -> None:
    program = build(tmp_path / "dcz", ["-O1"], EDGE / "example.c")
    for name, said in {"not-dcz": "not a .dcz file", "header-damaged": "damaged"}.items():
        path = GOLDEN / "bad" / f"{name}.dcz"
        done = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


BARE = ("-std=c11", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-fno-pic")
BARE_FLAGS = (
    *BARE,
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-I",
    str(EDGE / "bare"),
)
THUMB = (
    "--target=thumbv7em-none-eabi",
    "-mcpu=cortex-m4",
    "-mfloat-abi=hard",
    "-nostdlibinc",
    "-Oz",
)
MOST_CODE = 16 << 10  # another version of a compiler may need a little more than 16,000


def bare(folder: Path, compiler: Sequence[str], linker: Sequence[str]) -> Path:
    """All of the decoder that `weights` needs, as one file."""
    objects = []
    for source in [*SOURCES, EDGE / "bare" / "bare.c"]:
        objects.append(folder / f"{source.stem}.o")
        command = [*compiler, *BARE_FLAGS, *FLAGS, "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    whole = folder / "bare"
    command = [*linker, "--gc-sections", "-e", "weights", *map(str, objects), "-o", str(whole)]
    subprocess.run([*command, "--unresolved-symbols=ignore-all"], check=True)
    return whole


def code_bytes(binary: Path) -> int:
    """Code and constants; nothing is initialised in writable memory."""
    done = subprocess.run(["size", binary], capture_output=True, text=True, check=True)
    text, data = map(int, done.stdout.splitlines()[1].split()[:2])
    assert data == 0
    return text


@pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("size")), reason="gcc or size is missing"
)
def test_it_is_small_without_an_operating_system(tmp_path: Path) -> None:
    """x86-64 without context mixing, for which small devices have no memory; of libc it takes
    memcpy and memset alone."""
    compiler = ["gcc", "-Os", "-fcf-protection=none", "-DDCZ_WITHOUT_CONTEXT"]
    assert 4_000 < code_bytes(bare(tmp_path, compiler, ["ld"])) < MOST_CODE
    done = subprocess.run(
        ["nm", "-u", *tmp_path.glob("*.o")], capture_output=True, text=True, check=True
    )
    wanted = {line.split()[1] for line in done.stdout.splitlines() if line.startswith(" ")}
    assert {name for name in wanted if not name.startswith("dcz_")} <= {"memcpy", "memset"}


@pytest.mark.skipif(
    not (shutil.which("clang") and shutil.which("ld.lld")), reason="clang or lld is missing"
)
def test_it_is_small_on_a_microcontroller_with_all_modes(tmp_path: Path) -> None:
    assert 4_000 < code_bytes(bare(tmp_path, ["clang", *THUMB], ["ld.lld"])) < MOST_CODE


def test_without_context_mixing_such_tensors_are_refused_and_others_read(tmp_path: Path) -> None:
    options = ["-O1", "-DDCZ_WITHOUT_CONTEXT"]
    binary = build(tmp_path / "replay", options, REPLAY)
    files = [GOLDEN / "good" / f"{name}.dcz" for name in ("context", "rans")]
    for path, line in zip(files, run([binary], files), strict=True):
        codes = [7 if entry.mode is Mode.CONTEXT else 0 for entry in read(path).entries]
        assert [each[0] for each in line] == [0, *codes]
