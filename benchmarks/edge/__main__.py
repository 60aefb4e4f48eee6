"""From a file to the first answer: .dcz against the dense ONNX file that it decodes to.

    python -m compressor.benchmarks.edge --node FOLDER [--chromium PROGRAM] [--networks lenet5 ...]

FOLDER is where ``npm install onnxruntime-web puppeteer-core`` was run. Everything runs on one
thread. Files lie in the page cache, or come from this machine; ``slow network`` is Chromium at
10 Mbit/s and 40 ms. Medians over repeats in which subjects and kinds of files take turns.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.edge.subjects import SHAPES, write
from compressor.benchmarks.environment import command_line
from compressor.benchmarks.experiments import Json, save

HERE = Path(__file__).resolve().parent
REPEATS = {"lenet5": 21, "resnet20": 21, "vgg16": 5}
SLOW, SLOW_REPEATS = "10", 3
"""Megabits a second; vgg16 would take ten minutes."""


def ask(command: list[str], folder: Path | None) -> Json:
    """What a worker prints."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: Json = json.loads(done.stdout)
    return found


def summary(rows: dict[str, dict[str, list[Any]]], expected: dict[str, Any]) -> Json:
    """Medians of each step and of all together; how far the answers are from Python's."""
    found: Json = {}
    for name, kinds in rows.items():
        found[name] = {}
        for kind, repeats in kinds.items():
            counted = [row["ms"] for row in repeats[1:]]
            totals = [sum(ms.values()) for ms in counted]
            found[name][kind] = {
                "ms": {
                    **{
                        step: round(statistics.median(ms[step] for ms in counted), 2)
                        for step in counted[0]
                    },
                    "total": round(statistics.median(totals), 2),
                },
                "total_range_ms": [round(min(totals), 2), round(max(totals), 2)],
                "repeats": len(counted),
                "largest_difference": max(
                    float(np.abs(np.subtract(row["answer"], expected[name])).max())
                    for row in repeats
                ),
            }
    return found


def main() -> None:
    """Read the command line, measure, save, print."""
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.edge")
    parser.add_argument("--node", type=Path, required=True, help="folder with node_modules")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    parser.add_argument("--networks", nargs="*", default=list(REPEATS), choices=list(SHAPES))
    options = parser.parse_args()
    repeats = {name: REPEATS[name] for name in options.networks}
    slow = {name: SLOW_REPEATS for name in repeats if name != "vgg16"}
    results: Json = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, options.networks)
        subjects = json.loads((folder / "subjects.json").read_text())
        python = [sys.executable, "-m", "compressor.benchmarks.edge.worker", scratch]
        browser = ["node", str(HERE / "chromium.mjs"), options.chromium, scratch]
        commands = {
            "python": ([*python, json.dumps(repeats)], None),
            "node": (["node", str(HERE / "node.mjs"), scratch, json.dumps(repeats)], options.node),
        }
        if options.chromium:
            commands["chromium"] = ([*browser, json.dumps(repeats)], options.node)
            commands["chromium, slow network"] = ([*browser, json.dumps(slow), SLOW], options.node)
        expected = None
        for where, (command, place) in commands.items():
            print(where, "...", file=sys.stderr, flush=True)
            found = ask(command, place)
            rows = found["found"]
            expected = expected or {name: rows[name]["onnx"][0]["answer"] for name in rows}
            results[where] = {"version": found["version"], **summary(rows, expected)}
            show(where, results[where], subjects)
    scale = {name: float(np.abs(answer).max()) for name, answer in (expected or {}).items()}
    content = {"subjects": subjects, "largest_answer": scale, "results": results}
    save("edge", content, [command_line()])


def show(where: str, found: Json, subjects: Json) -> None:
    """A line of each network: bytes and milliseconds to the first answer of both files."""
    print(f"{where}: {found['version']}")
    for name in (key for key in found if key in subjects):
        size, dcz, dense = subjects[name]["bytes"], found[name]["dcz"], found[name]["onnx"]
        print(
            f"  {name:14} dcz {size['dcz']:>11,} B {dcz['ms']['total']:>9.1f} ms "
            f"(decode {dcz['ms']['decode']:.1f})   onnx {size['onnx']:>11,} B "
            f"{dense['ms']['total']:>9.1f} ms   differs by {dcz['largest_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
