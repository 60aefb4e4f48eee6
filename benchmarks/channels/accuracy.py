"""Accuracy after channels are removed, beside Torch-Pruning; chosen on validation images.

    python -m compressor.benchmarks.channels.accuracy COMMAND --arch resnet20 ...

``criteria`` tries every criterion and scope one-shot, on validation images alone. ``peer`` and
``ours`` prune to the same parts of the multiply-adds, ``ours`` also to the peer's latency, and
fine-tune both alike: same epochs, rate, order of images and recalibration of batch norms before.
``report`` measures the latency of all files in turns and writes ``results/channels-accuracy.json``.
Each step leaves its rows and ONNX files in a folder, and is not repeated where they are there.
"""

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from compressor.benchmarks.channels.candidates import NONE, Candidate, candidates, choice, chosen
from compressor.benchmarks.channels.rivals import environment
from compressor.benchmarks.channels.rivals import torch_pruning_weights as peer
from compressor.benchmarks.channels.thin_resnets import (
    CHECKPOINTS,
    Row,
    accuracy,
    cifar10,
    dense,
    limited,
    onnx_file,
    tune,
    widths,
)
from compressor.benchmarks.experiments import save
from compressor.channels import remove_channels
from compressor.errors import StageError
from compressor.examples import one_image
from compressor.network import Context, Network
from compressor.reporting.console import ConsoleProgress
from compressor.reporting.latency import latency
from compressor.reporting.measure import layer_macs
from compressor.settings import Channels, Criterion, Training
from compressor.training.recalibration import recalibrate

FEWER = (1.5, 2.1, 2.55)
"""How many times fewer multiply-adds: where published figures stand."""
MARGIN = 0.97
"""Of the rival's latency: of many networks, those that seem just fast enough were often lucky."""
SECONDS = 15.0
MODULE = "compressor.benchmarks.channels.accuracy"
COMMANDS = [
    f"python -m {MODULE} {words}"
    for words in (
        "criteria --data-root data --fewer 2.1",
        "peer --data-root data",
        "ours --data-root data --tune-macs 1.5 2.1 2.55",
        "peer --arch resnet56 --data-root data --images 12800",
        "ours --arch resnet56 --data-root data --images 12800 --tune-macs 1.5 2.1 2.55 "
        "--no-latency",
        "report",
    )
]


class Work:
    """A folder of rows and ONNX files, and the network and data that they come from."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = limited(cifar10(options.data_root), options.images)
        self.network = dense(options.arch, options.checkpoints)
        self.context = Context(self.data, seed=options.seed, progress=ConsoleProgress())
        self.training = Training(epochs=options.epochs, lr=options.lr)

    @cached_property
    def candidates(self) -> list[Candidate]:
        return candidates(self.network, self.data, self.context)

    def row(
        self, name: str, make: Callable[[], tuple[nn.Module, Row]], *, tuned: bool = True
    ) -> Row:
        """What ``make`` says of the network it prunes, and of that network fine-tuned.

        Taken from the folder where it is there.
        """
        path = self.folder / f"{self.network.arch}-{name}.json"
        if path.exists():
            found: Row = json.loads(path.read_text())
            return found
        module, row = make()
        path.with_suffix(".onnx").write_bytes(onnx_file(self.network, copy.deepcopy(module)))
        row = {"network": self.network.arch, "name": name, **row, **self.one_shot(module)}
        row |= {"test_one_shot": accuracy(module, self.data, self.data.test)}
        row["test_images"] = len(self.data.test)
        if tuned and self.training.epochs:
            title = f"{self.network.arch} {name}"
            row["epochs"] = tune(module, self.training, self.context, title)
            row["test"] = accuracy(module, self.data, self.data.test)
            row["training"] = asdict(self.training)
            row["training_images"] = len(self.data.train)
        row["seed"] = self.context.seed
        path.write_text(json.dumps(row, indent=1))
        return row

    def one_shot(self, module: nn.Module) -> Row:
        """Sizes, and accuracy on validation images without training."""
        whole, left = (
            layer_macs(each, self.network.example)[""] for each in (self.network.module, module)
        )
        return {
            "fewer_macs": round(whole / left, 3),
            "parameters": sum(value.numel() for value in module.parameters()),
            "widths": widths(module),
            "validation_one_shot": accuracy(module, self.data, self.data.validation),
        }

    def pruned(self, settings: Channels) -> nn.Module:
        """The network cut by our own stage, its norms recalibrated; the dense one stays."""
        network = self.network
        copied = Network(copy.deepcopy(network.module), network.example, network.name, network.arch)
        remove_channels(copied, settings, self.context)
        return copied.module.eval()


def run_peer(options: argparse.Namespace) -> None:
    """Torch-Pruning's two scopes at each part of the MACs; that which validates better is tuned."""
    work = Work(options)
    environment.build(options.peer)
    for fewer in options.fewer:

        def make(fewer: float = fewer) -> tuple[nn.Module, Row]:
            made: list[tuple[nn.Module, Row]] = []
            for everywhere in (False, True):
                settings = peer.Settings(1 / fewer, everywhere)
                module = peer.prune(options.peer, options.arch, work.network.module, settings)
                plain = accuracy(module, work.data, work.data.validation)
                recalibrate(module, work.data, work.context)
                row: Row = {"settings": asdict(settings), "validation_plain": plain}
                row["validation_recalibrated"] = accuracy(module, work.data, work.data.validation)
                made.append((module, row))
            rows = [row for _, row in made]
            module, row = max(made, key=lambda each: float(each[1]["validation_recalibrated"]))
            return module, {"method": f"Torch-Pruning {environment.VERSION}", **row, "tried": rows}

        print_row(work.row(f"peer-{fewer:g}", make))


def run_ours(options: argparse.Namespace) -> None:
    """Our stage at the same parts of the MACs, one-shot; and at the peer's latency, tuned."""
    work = Work(options)
    for fewer in options.fewer:
        settings = chosen(1 / fewer, round=1)

        def equal_macs(settings: Channels = settings) -> tuple[nn.Module, Row]:
            return work.pruned(settings), {"method": "compress", "settings": choice(settings)}

        def equal_latency(fewer: float = fewer) -> tuple[nn.Module, Row]:
            rival = (work.folder / f"{options.arch}-peer-{fewer:g}.onnx").read_bytes()
            return as_fast_as(work, rival)

        if f"{fewer:g}" in options.tune_macs:
            print_row(work.row(f"ours-{fewer:g}", equal_macs))
        else:
            print_row(work.row(f"ours-{fewer:g}-one-shot", equal_macs, tuned=False))
        if options.epochs and not options.no_latency:
            print_row(work.row(f"ours-{fewer:g}-latency", equal_latency))


def as_fast_as(work: Work, rival: bytes) -> tuple[nn.Module, Row]:
    """Of our candidates that are no slower than ``rival``, measured in turns with it, the one that
    validates best one-shot."""
    files = {str(number): each.file for number, each in enumerate(work.candidates)}
    shape = tuple(one_image(work.network.example).shape)
    times = latency({"rival": rival, **files}, shape, seconds=4 * SECONDS)["ms"]
    limit = MARGIN * times["rival"]["median"]
    fast = [number for number in files if times[number]["median"] <= limit]
    if not fast:
        raise SystemExit("none of our networks is as fast: widen PARTS")
    best = max(fast, key=lambda number: float(work.candidates[int(number)].row["score"]))
    taken = work.candidates[int(best)]
    tried = {"tried": len(files), "fast_enough": len(fast), "of_latency": times[best]["median"]}
    row = {**taken.row, **tried, "rival_latency": times["rival"]["median"]}
    return copy.deepcopy(taken.module), row


def run_criteria(options: argparse.Namespace) -> None:
    """Every criterion and scope, with and without fitted weights, on validation images alone."""
    work = Work(options)
    path = work.folder / f"{options.arch}-criteria.json"
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    for fewer in options.fewer:
        for criterion in get_args(Criterion):
            for scope in ("uniform", "global"):
                for reconstruct in (1000, 0):
                    settings = Channels(
                        target_macs=1 / fewer, round=1, criterion=criterion, scope=scope,
                        reconstruct=reconstruct, freeze_residual=options.freeze_residual,
                        retrain=NONE,
                    )  # fmt: skip
                    tried = {"network": options.arch, "fewer": fewer, **choice(settings)}
                    if any(row.items() >= tried.items() for row in rows):
                        continue
                    try:
                        row = tried | work.one_shot(work.pruned(settings))
                    except StageError as error:
                        row = tried | {"error": str(error)}
                    rows.append(row)
                    path.write_text(json.dumps(rows, indent=1))
                    print(row, flush=True)


def run_report(options: argparse.Namespace) -> None:
    """Latency of all files in turns, and the result file."""
    rows, criteria, times = [], [], {}
    for path in sorted(options.folder.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, list):
            criteria += [{k: v for k, v in row.items() if k != "widths"} for row in content]
        else:
            rows.append(content)
    for arch in sorted({row["network"] for row in rows}):
        network = dense(arch, options.checkpoints)
        files = {"dense": onnx_file(network, network.module)}
        for row in rows:
            if row["network"] == arch:
                path = options.folder / f"{arch}-{row['name']}.onnx"
                files[row["name"]] = path.read_bytes()
        times[arch] = latency(files, tuple(one_image(network.example).shape), seconds=SECONDS)
    content = {
        "rows": rows,
        "latency": times,
        "at_equal_latency": [line for arch in times for line in compared(arch, rows, times[arch])],
        "criteria": criteria,
    }
    save("channels-accuracy", content, COMMANDS)


def compared(arch: str, rows: Sequence[Row], times: Row) -> list[Row]:
    """Our tuned networks beside the peer's curve through its own, at our latencies."""
    ms = {name: each["median"] for name, each in times["ms"].items()}
    tuned = [row for row in rows if row["network"] == arch and "test" in row]
    curve = [(ms[r["name"]], float(r["test"])) for r in tuned if r["name"].startswith("peer")]
    lines = []
    for row in (row for row in tuned if row["name"].startswith("ours")):
        theirs = interpolated(curve, ms[row["name"]])
        line = {"network": arch, "name": row["name"], "ms": ms[row["name"]], "test": row["test"]}
        gain = None if theirs is None else round(row["test"] - theirs, 2)
        lines.append({**line, "peer_test": theirs, "points_better": gain})
    return lines


def interpolated(curve: Sequence[tuple[float, float]], at: float) -> float | None:
    """The straight line between the two points (x, y) around ``at``.

    Left of all, where the rival has nothing as fast, its fastest; None right of all.
    """
    x, y = np.array(sorted(curve)).reshape(-1, 2).T
    return round(float(np.interp(at, x, y)), 2) if at <= max(x, default=-np.inf) else None


def print_row(row: Row) -> None:
    figures = {key: value for key, value in row.items() if isinstance(value, float | list)}
    print(row["network"], row["name"], figures, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    torch.set_num_threads(1)
    described = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    commands = described.add_subparsers(required=True)
    steps = {"criteria": run_criteria, "peer": run_peer, "ours": run_ours, "report": run_report}
    for name, step in steps.items():
        own = commands.add_parser(name, help=(step.__doc__ or "").partition("\n")[0])
        own.set_defaults(step=step)
        own.add_argument("--folder", type=Path, default=Path("accuracy"), help="rows and files")
        own.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
        if name == "report":
            continue
        own.add_argument("--arch", choices=tuple(CHECKPOINTS), default="resnet20")
        own.add_argument("--data-root", type=Path)
        own.add_argument("--seed", type=int, default=0)
        own.add_argument("--epochs", type=int, default=1, help="0: one-shot at equal MACs only")
        own.add_argument("--images", type=int, help="so many training images; all by default")
        own.add_argument("--lr", type=float, default=0.02)
        own.add_argument("--fewer", type=float, nargs="+", default=FEWER)
        own.add_argument("--freeze-residual", action="store_true", help="for criteria")
        own.add_argument("--peer", type=Path, default=Path("tp"), help="Torch-Pruning's home")
        own.add_argument("--no-latency", action="store_true", help="ours: at equal MACs only")
        own.add_argument("--tune-macs", nargs="*", default=(), help="which of FEWER ours tunes too")
    options = described.parse_args(words)
    options.step(options)


if __name__ == "__main__":
    main()
