"""Networks of real size go the whole way: how long, and with how much memory.

    python -m compressor.benchmarks.real_sizes [--networks vgg16 vit_b_16] [--threads 2]

Each network has seeded random weights and is pruned, shared, encoded, decoded and exported by the
command line, in a process of its own; so is the decompression of its artifact to ONNX. Peak memory
is the largest resident set of a process (``ru_maxrss``), with Python, torch and ONNX Runtime in it:
``floor_mb`` is what these take before any network is loaded. The result stands beside the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks.environment import environment

RESULT = Path(__file__).parent / "results" / "real-sizes.json"
FORMS = ("torchvision", "onnx")
SECONDS, TIMES, ROOM = 300, 2.5, 1 << 30
"""The goal: at most so many seconds, and so many times the fp32 weights and so many bytes more."""

_MAKE = """
import sys, torch
from pathlib import Path
from torchvision import models
name, form, target = sys.argv[1:]
torch.manual_seed(0)
module = models.get_model(name, weights=None).eval()
for value in module.parameters():  # ViT begins with zeros in its head
    if not value.any():
        torch.nn.init.normal_(value, std=0.02)
if form == "onnx":
    x = (torch.zeros(1, 3, 224, 224),)
    torch.onnx.export(module, x, target, dynamo=False, opset_version=17)
else:
    torch.save(module.state_dict(), target)
"""
_CHILD = """
import json, resource, runpy, sys, time
begin, code = time.perf_counter(), 0
sys.argv = sys.argv[1:]
try:
    runpy.run_module("compressor", run_name="__main__")
except SystemExit as stop:
    code = stop.code or 0
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - begin, "peak_bytes": peak, "code": code}))
"""
_FLOOR = "import compressor.pipeline, compressor.graphs.importing, onnxscript"

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    known = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"rows": []}
    rows = {(row["network"], row["form"]): row for row in known["rows"]}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for name in arguments.networks:
            for form in arguments.forms:
                rows[name, form] = measured(name, form, Path(scratch), arguments.threads)
                print(json.dumps(rows[name, form]), flush=True)
                result = {
                    "benchmark": "real_sizes",
                    "threads": arguments.threads,
                    "floor_mb": floor() / 1e6,
                    "environment": environment(),
                    "rows": [rows[key] for key in sorted(rows)],
                }
                arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.real_sizes")
    described.add_argument("--networks", nargs="*", default=["vgg16", "vit_b_16"])
    described.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    described.add_argument("--threads", type=int, default=2)
    described.add_argument("--scratch", type=Path, help="A folder with room for a few GB.")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def measured(name: str, form: str, scratch: Path, threads: int) -> Row:
    """One network from one form of file to everything and back."""
    source = scratch / f"{name}.{'onnx' if form == 'onnx' else 'pt'}"
    subprocess.run([sys.executable, "-c", _MAKE, name, form, str(source)], check=True)
    folder = scratch / f"{name}-{form}"
    arch = [] if form == "onnx" else ["--arch", f"torchvision:{name}"]
    settings = ["--sparsity", "0.9", "--quantize", "5bit", "--threads", str(threads), "-q"]
    run = child("run", str(source), *arch, *settings, "-o", str(folder))
    if run["code"]:
        return {"network": name, "form": form, "run": run}
    report = json.loads((folder / "report.json").read_text())
    written = folder / report["files"]["artifact"]
    back = child("decompress", str(written), "-o", str(scratch / "back.onnx"), "--force")
    same = (scratch / "back.onnx").read_bytes() == (folder / report["files"]["onnx"]).read_bytes()
    fp32 = report["network"]["fp32_bytes"]
    return {
        "network": name,
        "form": form,
        "fp32_bytes": fp32,
        "source_bytes": source.stat().st_size,
        "artifact_bytes": written.stat().st_size,
        "run": run,
        "decompress": {**back, "same_bytes": same},
        "stages": {key: stage["seconds"] for key, stage in report["stages"].items()},
        "goal": {"seconds": SECONDS, "peak_bytes": round(TIMES * fp32 + ROOM)},
        "met": run["seconds"] <= SECONDS
        and max(run["peak_bytes"], back["peak_bytes"]) <= TIMES * fp32 + ROOM
        and same,
    }


def child(*words: str) -> Row:
    """``compress WORDS`` in a process of its own: seconds, peak memory, exit code."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, "compress", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        row: Row = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {
            "seconds": time.perf_counter() - begin,
            "code": done.returncode or 1,
            "said": done.stderr[-500:],
        }
    return row if not row["code"] else {**row, "said": done.stderr[-500:]}


def floor() -> int:
    """Peak memory of the imports alone."""
    text = f"{_FLOOR}\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


if __name__ == "__main__":
    main()
