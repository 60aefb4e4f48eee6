"""``python -O`` changes nothing: no assertion carries behaviour."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("compressor", "cli", "models", "benchmarks")


def test_no_assertion_stands_in_the_package() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 60
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert found == []


SCRIPT = """
import hashlib
from pathlib import Path
from compressor.artifact import Limits, decode, encode, read
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import artifacts, network
from tests.fuzz.mutants import LIMITS, mutant, outcome
from tests.golden import second

for profile in ("best", "fast", "huffman", "flat"):
    print(profile, hashlib.sha256(encode(network(), profile=profile)).hexdigest())
for path in sorted(Path("tests/golden").glob("*/*.dcz")):
    try:
        artifact = read(path)
        whole = b"".join(tensor.tobytes() for tensor in artifact.tensors().values())
        print(path.name, hashlib.sha256(whole + (artifact.graph or b"")).hexdigest())
    except ArtifactError as error:
        print(path.name, error)
    try:
        print(len(second.decode(path.read_bytes())[0]))
    except second.Refused as error:
        print(error)
for number in range(500):
    print(number, outcome(mutant(number), LIMITS["numpy"]))
try:
    encode({"w": [1.0]})
except ArtifactError as error:
    print(error)
"""


@pytest.mark.parametrize("backend", ["numpy", ""])
def test_optimised_code_writes_reads_and_refuses_the_same(backend: str) -> None:
    told = []
    for options in ([], ["-O"]):
        done = subprocess.run(
            [sys.executable, *options, "-c", f"print(__debug__){SCRIPT}"],
            cwd=ROOT,
            env={"COMPRESS_BACKEND": backend, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        flag, _, rest = done.stdout.partition("\n")
        assert flag == str(not options)
        told.append(rest)
    assert told[0].count("\n") > 600
    assert told[0] == told[1]
