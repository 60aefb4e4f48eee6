"""An environment of its own for NNCodec, which needs NumPy 1 and brings torch if it is let.

    python -m compressor.benchmarks.codec.rivals.environment FOLDER

NNCodec is Fraunhofer HHI's software of the MPEG NNC standard. It is installed from PyPI without its
dependencies; NumPy is the one that coding needs (`worker.py` says how the rest is kept out). A C++
compiler builds its extension.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from compressor.benchmarks.rivals import install

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
    return install(folder, ["numpy<2"], ["--no-deps", f"nncodec=={VERSION}"])


if __name__ == "__main__":
    main()
