"""The network of edge/js/demo, from nothing: LeNet-5 on MNIST, compressed to a few kilobytes.

    python -m compressor.benchmarks.edge.demo [--data mnist] [--data-root FOLDER]

Writes lenet5.dcz, model.json with sizes, and plain.onnx, the dense network before compression, with
which the page compares; that one is not kept in the repository. A quarter of an hour.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from compressor.benchmarks.edge.subjects import DEMO, OPSET
from compressor.benchmarks.experiments import compress
from compressor.export import graph as graphs
from compressor.export.onnx import build
from compressor.loading import load
from compressor.storage import plain_state

RECIPE = "lenet5-mnist-small"
SHORTER = ("--set", "prune.retrain.epochs=8", "--set", "share.train.epochs=2")


def main() -> None:
    """Read the command line, train, compress, write."""
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.edge.demo")
    parser.add_argument("--data", default="mnist", help="mnist or digits")
    parser.add_argument("--data-root", help="where MNIST lies")
    parser.add_argument("--trained", type=Path, help="a network that `compress train` left")
    options = parser.parse_args()
    more = ["--data", options.data, "--threads", "1", "--force"]
    more += ["--data-root", options.data_root] if options.data_root else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trained = options.trained or folder / "lenet5.pt"
        if not options.trained:
            compress(["train", "lenet5", *more, "-o", "lenet5.pt"], folder)
        named = [str(trained.resolve()), "--recipe", RECIPE, *SHORTER, *more, "-o", "out"]
        compress(named, folder)
        blob = (folder / "out" / f"{trained.stem}.dcz").read_bytes()
        report = json.loads((folder / "out" / "report.json").read_text())
        network = load(trained)
        skeleton = graphs.trace(network.module, torch.zeros(1, 1, 28, 28), OPSET)
        plain = build(skeleton, plain_state(network.module), {})
    DEMO.write_bytes(blob)
    DEMO.with_name("plain.onnx").write_bytes(plain)
    stages = report["stages"]
    facts = {
        "plainBytes": len(plain),
        "bytes": len(blob),
        "data": options.data,
        "plainAccuracy": stages["dense"]["accuracy"],
        "accuracy": stages["encode"]["accuracy"],
    }
    DEMO.with_name("model.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
