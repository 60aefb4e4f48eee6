"""The pruning lab of a university course, by this tool's commands: a scan, zeros, then channels.

    python -m compressor.benchmarks.experiments.course_lab CHECKPOINT --data-root FOLDER

(MIT 6.5940, "TinyML and Efficient Deep Learning Computing", lab 1, there on VGG and CIFAR-10.)
Fine-grained: a scan tells how sensitive each layer is, sparsities follow for a file of a quarter of
the dense size (positions, vectors and graph included), and the network is retrained. Channels: 30 %
of every layer, those that the next layer reads least (``next``) and, as the control without
sorting, any (``random``); each before and after fine-tuning. Then latency, multiply-adds and
parameters side by side. Weights are not fitted to what is left, nor norms estimated anew, before
fine-tuning, as in the lab; the last row has what the tool would do. Settings are stated, not
searched for. Writes ``results/course_lab_ARCH.json``.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compressor.benchmarks.experiments import Json, compress, save
from compressor.recipe import Recipe
from compressor.scan.allocation import PLAIN, LayerModel, Setting, allocate_within, layer_model
from compressor.scan.proposal import with_settings
from compressor.settings import Prune, Training

PART = 0.25
"""Of the dense size, four bytes a parameter, for fine-grained pruning."""
CHANNELS = 0.3
MISSED = 3
"""The exit code where a target was not met: all files are written."""
PLAINLY = ("--set", "channels.reconstruct=0", "--set", "channels.recalibrate=0", "--round", "1")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.experiments.course_lab")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", help="where the data set lies")
    parser.add_argument("--epochs", type=int, default=2, help="of retraining")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="1", help="CPU threads of torch")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(options, Path(scratch))
        lab.fine_grained(lab.within(lab.scanned()))
        for criterion in ("random", "next"):
            lab.channels(f"channels, {criterion}", "--criterion", criterion, *PLAINLY)
        lab.channels("channels, as the tool does", "--criterion", "obs", "--global")
    name = f"course_lab_{options.arch}"
    save(name, {"sparsities": lab.sparsities, "rows": lab.rows}, lab.commands)


class Lab:
    """One network's runs, in one folder."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.model = str(options.checkpoint.resolve())
        root = options.data_root
        self.root = [] if root is None else [f"--data-root={Path(root).resolve()}"]
        self.common = ["--arch", options.arch, "--data", options.data]
        self.common += ["--threads", options.threads, "--device", options.device]
        self.rows: list[Json] = []
        self.commands: list[str] = []
        self.sparsities: dict[str, float] = {}

    def _compress(self, *words: str) -> None:
        self.commands.append(f"compress {self.options.checkpoint.name} {' '.join(words)}")
        try:
            compress([self.model, *words, *self.root], self.folder)
        except subprocess.CalledProcessError as error:
            if error.returncode != MISSED:  # a cut that is not faster is a result
                raise

    def scanned(self) -> dict[str, LayerModel]:
        """How sensitive each layer is, by a scan."""
        words = [*self.common, "--kinds", "weights", "-o", "scan"]
        self.commands.append(f"compress scan {self.options.checkpoint.name} {' '.join(words)}")
        compress(["scan", self.model, *words, *self.root], self.folder)
        found = json.loads((self.folder / "scan" / "scan.json").read_text())
        dense = found["dense"]["loss"]
        models = {}
        for curve in found["curves"]:
            points = [(each["sparsity"], each["loss"] - dense) for each in curve["points"]]
            models[curve["unit"]] = layer_model(curve["points"][0]["of"], points, [])
        return models

    def within(self, models: dict[str, LayerModel]) -> dict[str, Setting]:
        """Each layer's sparsity for a file of :data:`PART` of the dense size.

        The models tell weights alone: what a first file is too large by, vectors and the graph,
        is taken off their share.
        """
        budget = PART * sum(model.weights for model in models.values()) * PLAIN / 8
        first = self._run("--recipe", self._recipe(allocate_within(models, 8 * budget), 0))
        stages = first["stages"]
        budget -= stages["encode"]["bytes"] - PART * 4 * stages["dense"]["parameters"]
        return allocate_within(models, 8 * budget)

    def fine_grained(self, chosen: dict[str, Setting]) -> None:
        """Zeros by the scan's sparsities, before and after retraining."""
        self.sparsities = {name: setting.sparsity for name, setting in chosen.items()}
        for epochs in (0, self.options.epochs):
            self._row("fine-grained", epochs, "--recipe", self._recipe(chosen, epochs))

    def channels(self, name: str, *words: str) -> None:
        """Whole channels, before and after fine-tuning."""
        for epochs in (0, self.options.epochs):
            training = ["--set", f"channels.retrain.epochs={epochs}"]
            training += ["--set", f"channels.retrain.lr={self.options.lr}"]
            self._row(name, epochs, "--channels", str(CHANNELS), *words, *training)

    def _recipe(self, chosen: dict[str, Setting], epochs: int) -> str:
        """The name of a recipe of these sparsities."""
        recipe = with_settings(Recipe(prune=Prune()), chosen)
        if recipe.prune is None:
            raise RuntimeError("the scan proposes no sparsity at a quarter of the size")
        retrained = replace(recipe.prune, retrain=Training(epochs=epochs, lr=self.options.lr))
        path = self.folder / f"zeros-{epochs}.toml"
        path.write_text(replace(recipe, prune=retrained).to_toml())
        return path.name

    def _run(self, *words: str) -> Json:
        """The report of one run of the tool."""
        self._compress(*words, *self.common, "-q", "-o", "out", "--force")
        report: Json = json.loads((self.folder / "out" / "report.json").read_text())
        return report

    def _row(self, name: str, epochs: int, *words: str) -> None:
        report = self._run(*words)
        stages, ms = report["stages"], report["latency"]["ms"]
        last = stages["encode"]
        row = {
            "name": name,
            "epochs": epochs,
            "accuracy": last["accuracy"],
            "dense_accuracy": stages["dense"]["accuracy"],
            "test_images": report["data"]["test_images"],
            "parameters": last["parameters"],
            "nonzero": last["nonzero"],
            "macs": last["macs"],
            "nonzero_macs": last["nonzero_macs"],
            "artifact_bytes": last["bytes"],
            "onnx_bytes": stages["export"]["bytes"],
            "ms": {each: ms[each]["median"] for each in ("dense", "compressed")},
            "faster": ms["dense"]["median"] / ms["compressed"]["median"],
        }
        self.rows.append(row)
        print(line(row), flush=True)


def line(row: Json) -> str:
    return (
        f"{row['name']}, {row['epochs']} epochs: {100 * row['accuracy']:.2f} % (dense "
        f"{100 * row['dense_accuracy']:.2f} %), {row['nonzero']:,} of {row['parameters']:,} "
        f"parameters not zero, {row['macs']:,} MACs, {row['faster']:.2f}x as fast"
    )


if __name__ == "__main__":
    main()
