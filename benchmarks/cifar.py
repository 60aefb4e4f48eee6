"""ResNet-20 on CIFAR-10, from a checkpoint that others trained: short retraining, then bytes.

    python -m compressor.benchmarks.cifar CHECKPOINT --data-root FOLDER

CHECKPOINT is ``resnet20-12fca82f.th`` of akamaster/pytorch_resnet_cifar10. It was trained on all
training images, so the validation accuracy says little here; the recipe's settings were set once
and not searched for. Writes ``results/cifar.json``.
"""

import argparse
import json
import tempfile
from pathlib import Path

from compressor.benchmarks.experiments import compress, save, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", help="where CIFAR-10 lies")
    parser.add_argument("--threads", default="1", help="CPU threads of torch")
    parser.add_argument("--keep", type=Path, help="run in this folder and leave the files there")
    options = parser.parse_args()
    root = ["--data-root", str(Path(options.data_root).resolve())] if options.data_root else []
    settings = ["--recipe", "resnet20-cifar10", "--threads", options.threads]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compress([str(options.checkpoint.resolve()), *settings, "--force", *root], folder)
        name = f"{options.checkpoint.stem}-compressed"
        report = json.loads((folder / name / "report.json").read_text())
    figures = summary(report)
    errors = figures["error_percent"]
    drop = errors["encode"] - errors["dense"]
    met = figures["ratio"] >= 8 and drop <= 1.0
    print(
        f"{figures['ratio']:.1f}x, accuracy {100 - errors['encode']:.2f} % against "
        f"{100 - errors['dense']:.2f} % on {figures['test_images']:,} test images "
        f"(asked: 8x within 1 point): {'met' if met else 'NOT met'}"
    )
    command = f"compress {options.checkpoint.name} {' '.join(settings)} --data-root FOLDER"
    save("cifar", {**figures, "drop_points": drop, "met": met}, [command])


if __name__ == "__main__":
    main()
