"""Updates over the air: what a fine-tuned network takes as a patch, against its whole artifact.

    python -m compressor.benchmarks.updates [lenet5 resnet20] --data-root FOLDER
        [--checkpoint resnet20-12fca82f.th] [--images 10000] [--keep FOLDER]

Each network is compressed by its recipe, then fine-tuned for one epoch with the same masks, in
three ways: weights train on behind their shared values ("weights"; "weights-gently" at a tenth of
the default rate), or the shared values alone do ("centroids"). LeNet-5 is trained from nothing;
ResNet-20's CHECKPOINT is that of akamaster/pytorch_resnet_cifar10, and it sees the first IMAGES
training images of CIFAR-10. What was finished in the folder of ``--keep`` is not run again. Beside
the patch stand those of bsdiff, xdelta3 and zstd, where these programs are installed. Writes
``results/updates.json``.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.benchmarks.experiments import Json, compress, save
from compressor.updates import diff, patch

ASKED = 0.35
LENET = ["--set", "prune.retrain.epochs=3", "--set", "share.finetune.epochs=1"]
RESNET = ["--set", "prune.retrain.epochs=1"]
WEIGHTS = ["--set", "share.train.epochs=1", "--finetune-epochs", "0"]
KINDS = {
    "weights": WEIGHTS,
    "weights-gently": [*WEIGHTS, "--set", "share.train.lr=0.0001"],
    "centroids": ["--finetune-epochs", "1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("networks", nargs="*", default=["lenet5", "resnet20"], metavar="NETWORK")
    parser.add_argument("--data-root", type=Path, required=True, help="where the data sets lie")
    parser.add_argument("--checkpoint", type=Path, help="resnet20-12fca82f.th")
    parser.add_argument("--images", type=int, default=10_000, help="CIFAR-10's training images")
    parser.add_argument("--threads", default="1", help="CPU threads of torch")
    parser.add_argument("--keep", type=Path, help="run in this folder and leave the files there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        runs = Runs(folder, options.threads)
        found = {}
        for network in options.networks:
            root = options.data_root.resolve()
            if network == "resnet20":
                root = fewer(root, folder, options.images)
                shutil.copy(options.checkpoint, folder / "resnet20.th")
            found[network] = measured(network, runs, str(root))
    save("updates", {"asked": ASKED, "networks": found}, runs.commands)


class Runs:
    """Commands in a folder; those that were finished there before are not run again."""

    def __init__(self, folder: Path, threads: str) -> None:
        self.folder, self._threads = folder, threads
        self.commands: list[str] = []

    def run(self, arguments: Sequence[str], root: str, made: str) -> None:
        """Run ``compress`` unless ``made`` is there."""
        self.commands.append("compress " + " ".join(arguments))
        if not (self.folder / made).exists():
            more = ["--threads", self._threads, "--data-root", root, "-q", "--force"]
            compress([*arguments, *more], self.folder)


def fewer(root: Path, folder: Path, images: int) -> Path:
    """A folder with the first ``images`` training images of CIFAR-10, and all test images."""
    target = folder / "data" / "cifar10"
    target.mkdir(parents=True, exist_ok=True)
    with np.load(root / "cifar10" / "train.npz") as train:
        np.savez(target / "train.npz", x=train["x"][:images], y=train["y"][:images])
    shutil.copy(root / "cifar10" / "test.npz", target / "test.npz")
    return target.parent


def measured(network: str, runs: Runs, root: str) -> Json:
    """Compress, fine-tune both ways, patch."""
    if network == "lenet5":
        data, own, model = "mnist", [*LENET, "--recipe", "lenet5-mnist"], "lenet5.pt"
        runs.run(["train", "lenet5", "--data", data, "--epochs", "3"], root, model)
    else:
        data, own, model = "cifar10", [*RESNET, "--recipe", "resnet20-cifar10"], "resnet20.th"
    runs.run(["run", model, *own, "-o", f"{network}-1"], root, f"{network}-1/report.json")
    old = runs.folder / f"{network}-1" / f"{network}.dcz"
    plain = f"{network}.safetensors"
    runs.commands.append(f"compress decompress {network}-1/{network}.dcz -o {plain}")
    compress(["decompress", str(old), "-o", plain, "--force"], runs.folder)
    found: Json = {"base": {"bytes": old.stat().st_size, "accuracy": accuracy(old.parent)}}
    for kind, settings in KINDS.items():
        out = f"{network}-{kind}"
        command = ["run", plain, "--quantize", "5bit", "--data", data, *settings]
        runs.run([*command, "-o", out], root, f"{out}/report.json")
        new = runs.folder / out / f"{network}.dcz"
        found[kind] = {"accuracy": accuracy(new.parent), **patches(old, new)}
        each = found[kind]
        print(
            f"{network}, {kind}: {each['patch_bytes']:,} of {each['bytes']:,} bytes, "
            f"{100 * each['ratio']:.1f} % (asked: {100 * ASKED:.0f} %); accuracy "
            f"{100 * found['base']['accuracy']:.2f} -> {100 * each['accuracy']:.2f} %; "
            f"{each['others']}"
        )
    return found


def accuracy(folder: Path) -> float:
    """On the test images, of what the artifact decodes to."""
    report = json.loads((folder / "report.json").read_text())
    return float(report["stages"]["encode"]["accuracy"])


def patches(old: Path, new: Path) -> Json:
    """Bytes and seconds of our patch, which is applied; bytes of the others'."""
    before, after = old.read_bytes(), new.read_bytes()
    begin = time.perf_counter()
    update = diff(before, after)
    made = time.perf_counter()
    if patch(before, update) != after:
        raise SystemExit(f"the patch of {old} does not make {new}")
    applied = time.perf_counter()
    return {
        "bytes": len(after),
        "patch_bytes": len(update),
        "ratio": len(update) / len(after),
        "met": len(update) < ASKED * len(after),
        "diff_seconds": round(made - begin, 3),
        "patch_seconds": round(applied - made, 3),
        "others": others(old, new),
    }


def others(old: Path, new: Path) -> dict[str, int]:
    """Bytes of the patches of general programs, of those that are installed."""
    with tempfile.TemporaryDirectory() as scratch:
        out = str(Path(scratch) / "patch")
        commands = {
            "bsdiff": ["bsdiff", str(old), str(new), out],
            "xdelta3": ["xdelta3", "-e", "-9", "-f", "-s", str(old), str(new), out],
            "zstd --patch-from": [
                "zstd",
                "-qq",
                "-f",
                "-19",
                f"--patch-from={old}",
                str(new),
                "-o",
                out,
            ],
        }
        found = {}
        for name, command in commands.items():
            if shutil.which(command[0]):
                subprocess.run(command, check=True)
                found[name] = Path(out).stat().st_size
    return found


if __name__ == "__main__":
    main()
