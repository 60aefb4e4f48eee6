"""Every form of input against every form of output: which work, with figures of each cell.

    python -m compressor.benchmarks.matrix [--networks NAME...]

Each network is saved in each form, compressed by the command line in a process of its own, and what
comes out is loaded and run in its own runtime; answers are compared with those of the run's ONNX
file. Cells that the result has already, of other networks and forms, stay. The README has the
summary, `docs/inputs.md` the table; failures stand below both.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compressor.benchmarks import readme
from compressor.benchmarks.environment import environment
from compressor.benchmarks.experiments import RESULTS
from compressor.benchmarks.matrix.cells import cells
from compressor.benchmarks.matrix.forms import FORMS
from compressor.benchmarks.matrix.networks import NETWORKS, QUICK
from compressor.benchmarks.matrix.tables import Json, summary, table

RESULT = RESULTS / "matrix.json"


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.matrix")
    described.add_argument("--networks", nargs="*", choices=NETWORKS, default=QUICK)
    described.add_argument("--forms", nargs="*", choices=list(FORMS), default=list(FORMS))
    arguments = described.parse_args(words)
    known: Json = json.loads(RESULT.read_text())["cells"] if RESULT.exists() else {}
    for name in arguments.networks:
        for form in arguments.forms:
            with tempfile.TemporaryDirectory() as folder:
                known.setdefault(name, {})[form] = cells(name, form, Path(folder))
            print(name, form, json.dumps(known[name][form]), flush=True)
            result = {"benchmark": "matrix", "environment": environment(), "cells": known}
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for page, text in (("README.md", summary(known)), ("docs/inputs.md", table(known))):
        path = Path(__file__).resolve().parents[2] / page
        path.write_text(readme.filled(path.read_text("utf-8"), "matrix", text), encoding="utf-8")


if __name__ == "__main__":
    main()
