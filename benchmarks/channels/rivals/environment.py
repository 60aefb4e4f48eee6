"""An environment of its own for Torch-Pruning, which sees this one's torch, torchvision and timm.

    python -m compressor.benchmarks.channels.rivals.environment FOLDER

Torch-Pruning (MIT) is the tool of "DepGraph: Towards Any Structural Pruning" (Fang et al. 2023).
"""

import argparse
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from compressor.benchmarks.rivals import install

VERSION = "1.6.1"


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(
        prog="python -m compressor.benchmarks.channels.rivals.environment"
    )
    described.add_argument("folder", type=Path, help="where the environment is made")
    print(build(described.parse_args(words).folder))


def build(folder: Path) -> Path:
    """Make the environment below ``folder``, or complete it; return its Python.

    Raises subprocess.CalledProcessError where pip fails.
    """
    python = install(folder, ["--no-deps", f"torch-pruning=={VERSION}"])
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    site = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    ours = sysconfig.get_paths()["purelib"]
    (Path(site) / "shared.pth").write_text(
        f"import site; site.addsitedir({ours!r})\n",  # also finds what is installed as editable
        encoding="utf-8",
    )
    return python


if __name__ == "__main__":
    main()
