"""An environment of its own for Torch-Pruning, which sees this one's torch, torchvision and timm.

    python -m compressor.benchmarks.channels.rivals.environment FOLDER

Torch-Pruning (MIT) is the tool of "DepGraph: Towards Any Structural Pruning" (Fang et al. 2023).
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

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
    python = python_of(folder)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", f"torch-pruning=={VERSION}"], check=True)
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    site = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    ours = sysconfig.get_paths()["purelib"]
    (Path(site) / "shared.pth").write_text(ours + "\n", encoding="utf-8")
    return python


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``."""
    inside = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    return folder.absolute() / inside


if __name__ == "__main__":
    main()
