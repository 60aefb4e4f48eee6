"""Python's way from a file to the first answer; measure.mjs does the same in JavaScript.

python -m compressor.benchmarks.edge.worker FOLDER REPEATS, FOLDER as `subjects.write` leaves it and
REPEATS as JSON: {"lenet5": 21}. Prints what `measure` gives of every repeat.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnxruntime as ort

from compressor.artifact import decode
from compressor.benchmarks.edge.subjects import pattern
from compressor.export.onnx import build

STEPS = ("read", "decode", "session", "first")


def measure(folder: Path, name: str, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of each step, and the answer."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    marks = [time.perf_counter()]
    content = (folder / f"{name}.{kind}").read_bytes()
    marks.append(time.perf_counter())
    if kind == "dcz":
        artifact = decode(content, threads=1)
        content = build(artifact.graph or b"", artifact.tensors(), artifact.metadata)
    marks.append(time.perf_counter())
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    marks.append(time.perf_counter())
    (found,) = session.run(None, {session.get_inputs()[0].name: pattern(shape)})
    marks.append(time.perf_counter())
    ms = [1000 * (after - before) for before, after in pairwise(marks)]
    return {"ms": dict(zip(STEPS, ms, strict=True)), "answer": found.reshape(-1).tolist()}


def main() -> None:
    """Let the subjects and the two kinds of files take turns."""
    folder, repeats = Path(sys.argv[1]), json.loads(sys.argv[2])
    shapes = {
        name: tuple(row["shape"])
        for name, row in json.loads((folder / "subjects.json").read_text()).items()
    }
    found: dict[str, dict[str, list[Any]]] = {name: {"dcz": [], "onnx": []} for name in repeats}
    for turn in range(max(repeats.values()) + 1):
        for name, count in repeats.items():
            for kind in ("dcz", "onnx") if turn % 2 else ("onnx", "dcz"):
                if turn <= count:  # the first is not counted
                    found[name][kind].append(measure(folder, name, kind, shapes[name]))
    json.dump({"version": ort.__version__, "found": found}, sys.stdout)


if __name__ == "__main__":
    main()
