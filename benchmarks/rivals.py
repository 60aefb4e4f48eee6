"""Environments of their own for the tools that this one is compared with."""

import os
import subprocess
import sys
from pathlib import Path


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``."""
    inside = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    return folder.absolute() / inside


def install(folder: Path, *packages: list[str]) -> Path:
    """Make the environment in ``folder``, or complete it; return its Python.

    Each of ``packages`` is what one call of ``pip install`` gets. Raises
    subprocess.CalledProcessError where pip or a compiler fails.
    """
    python = python_of(folder)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for words in packages:
        subprocess.run([*pip, *words], check=True)
    return python
