"""What a benchmark ran on: recorded in every result file, since a number without it says little.

Adds to the library's own record what decides between runs of one machine: the date, the command,
the instruction sets and the number of threads. Imports none of the libraries it names.
"""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compressor.reporting import environment as library

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

    load_average: over 1, 5 and 15 minutes; taken before the work, it is the load of others.
    usable_cores: those that this process may run on. threads: the variables that are set.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        **library.environment(),
        "cpu_flags": _flags(),
        "usable_cores": _usable_cores(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def hardware_state() -> dict[str, Any]:
    """What may change during a run: load, affinity, governor and clock of the CPU, GPUs' clocks.

    None stands for what the system does not tell. Frequencies in MHz.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    policy = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    return {
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "affinity": sorted(affinity(0)) if affinity else None,
        "governor": _text(policy / "scaling_governor"),
        "cpu_mhz": _clocks(),
        "gpus": _gpus(),
    }


GPU_FIELDS = (
    *("name", "driver_version", "memory.total", "power.limit", "temperature.gpu"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "utilization.gpu", "pstate"),
)


def _gpus() -> list[dict[str, str]]:
    """One row a GPU, as NVIDIA's own tool tells it; none without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.strip().splitlines()]
    return [dict(zip(GPU_FIELDS, row, strict=False)) for row in rows]


def _clocks() -> list[float] | None:
    text = _text(Path("/proc/cpuinfo")) or ""
    lines = [line.partition(":")[2] for line in text.splitlines() if line.startswith("cpu MHz")]
    return [float(each) for each in lines] or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def command_line() -> str:
    """The command as typed, with the directories of absolute paths left out."""
    return " ".join(["python", *(_without_directory(word) for word in sys.orig_argv[1:])])


def _without_directory(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    path = Path(value)
    return option + equals + (path.name if path.is_absolute() else value)


def _flags() -> list[str]:
    """Those of FLAGS that Linux lists for the first processor; none on other systems."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    listed = [line for line in lines if line.startswith(("flags", "Features"))]
    words = set(listed[0].split()) if listed else set()
    return [flag for flag in FLAGS if flag in words]


def _usable_cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count()
