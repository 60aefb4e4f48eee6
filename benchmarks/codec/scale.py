"""The codec on large networks and on small ones: threads, time, memory, and the start.

    OMP_NUM_THREADS=1 python -m compressor.benchmarks.codec.scale [--artifacts FILE...]

Each row is a process of its own (`probe`), so that memory and imports are counted from nothing; of
several rounds the median counts, and rounds with one thread and with two alternate. CPU seconds are
the least of all rounds: on a machine with other work they say more than the clock. A VGG-16 with
Laplacian weights at the sparsities of Deep Compression's table 5 is written and read; so are
tensors of 100 M weights, and 1000 small ones. Artifacts that are given (a ResNet-20, for instance)
are loaded from nothing but Python and NumPy, the codec's import included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from compressor.benchmarks.environment import environment

RESULT = Path(__file__).parents[1] / "results" / "codec-scale.json"
ROOM = 64 << 20
"""Memory allowed beside twice the output."""

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: threads are counted here")
    described = environment()  # before the work, so that the load is that of others
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            for profile in ("fast", "huffman"):
                rows += coded(name, profile, Path(folder) / "network.dcz", arguments.rounds)
    for path in arguments.artifacts:
        rows += loaded(path, 4 * arguments.rounds)
    result = {
        "benchmark": "codec/scale",
        "rounds": arguments.rounds,
        "environment": described,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.scale")
    every = ("vgg16", "pruned", "dense", "floats", "many")
    described.add_argument("--networks", nargs="*", choices=every, default=every)
    described.add_argument("--artifacts", type=Path, nargs="*", default=[], metavar="FILE")
    described.add_argument("--rounds", type=int, default=5)
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def probe(*words: str) -> Row:
    """What a process of its own measures."""
    command = [sys.executable, "-m", "compressor.benchmarks.codec.probe", *words]
    found: Row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def coded(name: str, profile: str, file: Path, rounds: int) -> list[Row]:
    """Encode once, decode by one thread and by two."""
    written = probe("encode", name, profile, str(file))
    rows = [{"network": name, "profile": profile, "way": "encode", "threads": 1, **written}]
    turns = [
        {threads: probe("decode", str(file), str(threads)) for threads in (1, 2)}
        for _ in range(rounds)
    ]
    one, two = (min(turn[threads]["seconds"] for turn in turns) for threads in (1, 2))
    for threads in (1, 2):
        seconds = [turn[threads]["seconds"] for turn in turns]
        rows.append(
            {
                **{"network": name, "profile": profile, "way": "decode", "threads": threads},
                **{"seconds": median(seconds), "fastest": min(seconds)},
                "cpu_seconds": min(turn[threads]["cpu_seconds"] for turn in turns),
                "peak": max(turn[threads]["peak"] for turn in turns),
                "output": written["output"],
                **({"times_one_thread": round(one / two, 3)} if threads == 2 else {}),
            }
        )
    for row in rows:
        row["peak_limit"] = limit(row["output"])
        row["mweights_per_s"] = round(row["output"] / 4e6 / row["seconds"], 2)
        print(json.dumps(row), flush=True)
    return rows


def limit(output: int) -> int:
    """The memory that coding a network of ``output`` bytes may take."""
    return 2 * output + ROOM


def loaded(path: Path, rounds: int) -> list[Row]:
    """Load an artifact from a fresh process, by one thread and by two; the first is not counted."""
    rows = []
    turns = [
        {threads: probe("load", str(path), str(threads)) for threads in (1, 2)}
        for _ in range(rounds + 1)
    ][1:]
    for threads in (1, 2):
        found = [turn[threads] for turn in turns]
        row = {"artifact": path.name, "bytes": path.stat().st_size, "threads": threads}
        for key in ("seconds", "import_seconds", "cpu_seconds"):
            row[key] = round(median(each[key] for each in found), 5)
            row[f"fastest_{key}"] = round(min(each[key] for each in found), 5)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
