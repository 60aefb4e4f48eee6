"""What a benchmark records of the machine and of the command."""

import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

from compressor.benchmarks.environment import command_line, environment


def test_environment_is_plain_data_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = json.loads(json.dumps(environment()))
    assert found["libraries"]["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in found["threads"]
    assert datetime.fromisoformat(found["date"]).utcoffset() is not None


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        (["-m", "compressor.benchmarks.x", "--size", "5"], "-m compressor.benchmarks.x --size 5"),
        (["/home/someone/run.py", "-o", "/tmp/a/b.json"], "run.py -o b.json"),
        (["run.py", "--output=/tmp/a/b.json", "c/d.pt"], "run.py --output=b.json c/d.pt"),
    ],
)
def test_command_has_no_absolute_path(
    words: list[str], recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", *words])
    assert command_line() == f"python {recorded}"


def test_environment_imports_no_library() -> None:
    code = """
import sys
from compressor.benchmarks.environment import environment
assert environment()["libraries"]
print(sorted({"torch", "numpy", "onnx", "sklearn"} & set(sys.modules)))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "[]\n", printed.stderr
