"""What a benchmark ran on: recorded in every result file, since a number without it says little.

Imports nothing but the standard library. Versions come from the installed metadata.
"""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "compressor",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "onnx",
    "onnxruntime",
)

# Instruction sets that decide how fast sorting, fp32 and INT8 kernels are.
FLAGS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_WAIT_POLICY",
)


def environment() -> dict[str, Any]:
    """Hardware, software and command of this run, as plain data that json can write.

    Unknown entries are None. memory_gib: of the whole machine. load_average: over 1, 5 and 15
    minutes; well above 0 before the start means that others took part of the machine.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "cpu": _cpu(),
        "memory_gib": _memory_gib(),
        "load_average": _load_average(),
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def command_line() -> str:
    """The command as typed, with directories of absolute paths left out."""
    return " ".join(["python", *(_without_directory(word) for word in sys.orig_argv[1:])])


def _without_directory(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    path = Path(value).expanduser()
    return option + equals + (path.name if path.is_absolute() else value)


def _cpu() -> dict[str, Any]:
    entries = _first_processor()
    words = entries.get("flags", entries.get("Features", "")).split()
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "model": entries.get("model name") or platform.processor() or None,
        "cores": os.cpu_count(),
        "usable_cores": len(usable(0)) if usable else os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in words],
    }


def _first_processor() -> dict[str, str]:
    """Entries of the first processor in Linux's list; empty on other systems."""
    listing = Path("/proc/cpuinfo")
    if not listing.is_file():
        return {}
    first = listing.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_gib() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return round(pages * size / 2**30, 1)


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
