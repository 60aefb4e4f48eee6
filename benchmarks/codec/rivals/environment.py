"""An environment of its own for NNCodec, which needs NumPy 1 and brings torch if it is let.

    python -m compressor.benchmarks.codec.rivals.environment FOLDER

NNCodec is Fraunhofer HHI's software of the MPEG NNC standard. It is installed from PyPI without its
dependencies; NumPy is the one that coding needs (`worker.py` says how the rest is kept out). A C++
compiler builds its extension.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VERSION = "2.1.3"


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(
        prog="python -m compressor.benchmarks.codec.rivals.environment"
    )
    described.add_argument("folder", type=Path, help="where the environment is made")
    print(build(described.parse_args(words).folder))


def build(folder: Path) -> Path:
    """Make the environment below ``folder`` unless it is there; return its Python.

    Raises subprocess.CalledProcessError where pip or the compiler fails.
    """
    python = python_of(folder)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "numpy<2"], check=True)
    subprocess.run([*pip, "--no-deps", f"nncodec=={VERSION}"], check=True)
    return python


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``."""
    inside = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    return folder.absolute() / inside


if __name__ == "__main__":
    main()
