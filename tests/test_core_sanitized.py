"""The C core by itself: free of warnings, and of undefined behaviour on every real payload.

`make fuzz` goes on from here.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.coding import native
from tests.fuzz import core, corpus

pytestmark = pytest.mark.skipif(
    not core.compilers() or native.built() is None, reason="there is no C compiler, or no core"
)


def sanitizing(folder: Path) -> list[str]:
    """Compilers whose sanitizers are there and work."""
    found, program = [], folder / "nothing"
    for compiler in core.compilers():
        options = [*core.SANITIZED, "-x", "c", "-", "-o", str(program)]
        source = "int main(void) { return 0; }"
        built = subprocess.run([compiler, *options], input=source, text=True, check=False)
        if not built.returncode and not subprocess.run([program], check=False).returncode:
            found.append(compiler)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return corpus.write(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("compiler", core.compilers())
@pytest.mark.parametrize("optimised", ["-O0", "-O3"])
def test_it_compiles_without_a_warning(compiler: str, optimised: str, tmp_path: Path) -> None:
    core.build(compiler, [optimised], [core.TARGET, core.REPLAY], tmp_path / "core")


def test_sanitizers_find_nothing_in_real_payloads(inputs: list[Path], tmp_path: Path) -> None:
    compilers = sanitizing(tmp_path)
    if not compilers:
        pytest.skip("the compiler has no sanitizers that work")
    binary = tmp_path / "sanitized"
    core.build(compilers[0], core.SANITIZED, [core.TARGET, core.REPLAY], binary)
    assert core.replay(binary, inputs) == f"{len(inputs)} inputs\n"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x00\x03\x24")  # a width of 36 bits
    core.replay(binary, [damaged])


@pytest.mark.skipif(not core.can_measure(), reason="clang or LLVM's tools are not there")
def test_real_payloads_reach_all_of_the_decoders(inputs: list[Path], tmp_path: Path) -> None:
    reached = core.coverage(tmp_path, inputs)
    assert set(reached) == {Path(source).name for source in core.sources()}
    for file, parts in reached.items():
        assert parts["functions"] == 100, file
        assert parts["lines"] > 90, file


def test_fuzzing_without_clang_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["core"])
    core.main()
    assert "skipped: fuzzing needs clang" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("clang" not in core.compilers(), reason="clang is not there")
def test_fuzzing_finds_nothing_in_half_a_minute(tmp_path: Path) -> None:
    found = core.fuzz(tmp_path, 30)
    assert found["exit_code"] == 0
    assert found["broken"] == []
    assert found["executed"] > found["seeds"] > 50
