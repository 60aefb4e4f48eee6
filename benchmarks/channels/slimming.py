"""Network Slimming (Liu et al. 2017) as one command: slim, cut by a global threshold, fine-tune.

    python -m compressor.benchmarks.channels.slimming --arch resnet50-cifar --device cuda
    python -m compressor.benchmarks.channels.slimming --arch resnet20 --start CHECKPOINT \\
        --epochs 2 --tune 2 --images 6400 --lambdas 0 1e-3 1e-2

For each lambda the network is trained with the L1 penalty on the scales of batch norms, then loses
50 % and 90 % of its channels, those with the least scales, and is fine-tuned. What residual sums
join stays. The curves show test accuracy before the cut, after it and after each epoch; nothing is
chosen by it. The first form is the paper's: 160 epochs from nothing with lambda 0, 1e-5 and 1e-4.

What a penalty takes off a scale is at most lambda times the sum of the learning rates of all steps:
some 0.3 for the paper's 1e-4, and thousands of times less in a hundred steps. So a scaled run has
to take as much larger a lambda. Writes ``results/channels-slimming.json`` and two plots.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from compressor import checkpoint
from compressor.benchmarks.channels.thin_resnets import Row, cifar10, limited
from compressor.benchmarks.environment import command_line
from compressor.benchmarks.experiments import RESULTS, save
from compressor.channels.stage import remove_channels
from compressor.determinism import find_device
from compressor.examples import one_image
from compressor.models import registry
from compressor.network import Context, Network
from compressor.reporting import scales, svg
from compressor.reporting.axes import Axis
from compressor.reporting.console import ConsoleProgress
from compressor.reporting.measure import layer_macs
from compressor.settings import Channels, Training
from compressor.training.data import Data
from compressor.training.evaluation import evaluate
from compressor.training.fit import fit
from compressor.training.recalibration import recalibrate

FRACTIONS = (0.5, 0.9)
NAME = "channels-slimming"


def main(words: Sequence[str] | None = None) -> None:
    options = parser().parse_args(words)
    torch.set_num_threads(options.threads)
    device = find_device(options.device)
    data = limited(cifar10(options.data_root), options.images)
    data = replace(data, validation=data.test)  # the curves are its
    context = Context(data, device, options.seed, ConsoleProgress())
    rows: list[Row] = []
    found: dict[str, scales.Scales] = {}
    for slimming in options.lambdas:
        network = slimmed(options, slimming, context)
        found[f"λ = {slimming:g}"] = scales.scales(network.module)
        rows += [cut(options, network, slimming, fraction, data, context) for fraction in FRACTIONS]
        report(options, data, rows, found)


def report(
    options: argparse.Namespace, data: Data, rows: Sequence[Row], found: dict[str, scales.Scales]
) -> None:
    """Write the results so far, and both plots."""
    content = {
        "images": len(data.train),
        "test_images": len(data.test),
        "started_from": options.start.name if options.start else "nothing",
        "training": asdict(training(options, 0.0)),
        "tuning": asdict(tuning(options)),
        "seed": options.seed,
        "rows": list(rows),
        "thresholds": {
            label: {f"{fraction:g}": scales.threshold(own, fraction) for fraction in FRACTIONS}
            for label, own in found.items()
        },
    }
    save(NAME, content, [command_line()])
    scales.draw(found, RESULTS / f"{NAME}-scales.svg", FRACTIONS)
    draw(rows, options.arch, RESULTS / f"{NAME}.svg")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.channels.slimming")
    described.add_argument("--arch", default="resnet50-cifar")
    described.add_argument("--start", type=Path, help="a checkpoint to start from, not nothing")
    described.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 1e-5, 1e-4])
    described.add_argument("--epochs", type=int, default=160, help="with the penalty")
    described.add_argument("--lr", type=float, default=0.1)
    described.add_argument("--tune", type=int, default=40, help="epochs of fine-tuning")
    described.add_argument("--tune-lr", type=float, default=0.02)
    described.add_argument("--images", type=int, help="so many training images; all by default")
    described.add_argument("--data-root", type=Path)
    described.add_argument("--device", default="cpu")
    described.add_argument("--threads", type=int, default=1)
    described.add_argument("--seed", type=int, default=0)
    return described


def training(options: argparse.Namespace, slimming: float) -> Training:
    return Training(epochs=options.epochs, lr=options.lr, slimming=slimming)


def tuning(options: argparse.Namespace) -> Training:
    return Training(epochs=options.tune, lr=options.tune_lr)


def slimmed(options: argparse.Namespace, slimming: float, context: Context) -> Network:
    """The network trained with the penalty."""
    torch.manual_seed(context.seed)
    architecture = registry.get(options.arch)
    module = architecture.build()
    if options.start:
        state: Any = checkpoint.read(options.start)
        module.load_state_dict(state, strict=False)  # old files have no counters
    module.to(context.device)
    fit(module, training(options, slimming), context, f"lambda {slimming:g}")
    example = torch.zeros(1, *architecture.input_shape)
    return Network(module.eval(), example, options.arch, options.arch)


def cut(
    options: argparse.Namespace,
    network: Network,
    slimming: float,
    fraction: float,
    data: Data,
    context: Context,
) -> Row:
    """What is left at a threshold, and how it recovers; ``network`` stays."""
    small = replace(network, module=copy.deepcopy(network.module))
    before = evaluate(small.module, data, data.test)
    settings = Channels(
        ratio=fraction,
        scope="global",
        criterion="gamma",
        round=1,
        freeze_residual=True,
        reconstruct=0,
        recalibrate=0,
        retrain=Training(epochs=0),
    )
    remove_channels(small, settings, context)
    after = evaluate(small.module, data, data.test)
    recalibrate(small.module, data, context)
    recalibrated = evaluate(small.module, data, data.test)
    history = fit(small.module, tuning(options), context, f"lambda {slimming:g} at {fraction:g}")
    example = one_image(small.example).to(context.device)
    row = {
        "lambda": slimming,
        "fraction": fraction,
        "parameters_before": sum(value.numel() for value in network.module.parameters()),
        "parameters": sum(value.numel() for value in small.module.parameters()),
        "fewer_macs": round(
            layer_macs(network.module, example)[""] / layer_macs(small.module, example)[""], 3
        ),
        "test_before": percent(before),
        "test_after_cut": percent(after),
        "test_recalibrated": percent(recalibrated),
        "test_by_epoch": [percent(epoch.validation) for epoch in history],
    }
    print(row, flush=True)
    return row


def percent(share: float) -> float:
    return round(100 * share, 2)


def draw(rows: Sequence[Row], arch: str, path: Path) -> None:
    """Accuracy before the cut, after it and by epoch of fine-tuning; a panel for each fraction."""
    values = [v for row in rows for v in _course(row)]
    last = max(len(row["test_by_epoch"]) for row in rows)
    panels = []
    for fraction in FRACTIONS:
        chart = svg.Chart(
            f"{arch}, {100 * fraction:g} % of channels removed",
            "before the cut, after it and after each epoch of fine-tuning",
            Axis("epochs of fine-tuning", -1.2, last, text=_moment, ticks=(-1, 0, last)),
            Axis(f"test accuracy, %, {100 * fraction:g} % of channels removed",
                     min(values), max(values)),
            f"removed{100 * fraction:g}",
            height=300,
            width=420,
        )  # fmt: skip
        for color, row in enumerate(row for row in rows if row["fraction"] == fraction):
            label = f"λ = {row['lambda']:g}, {row['parameters']:,} parameters"
            chart.series(list(enumerate(_course(row), -1)), color, label)
        panels.append(chart.done())
    sheet = svg.sheet(panels, f"{arch} slimmed, cut and fine-tuned", columns=len(panels))
    path.write_text(svg.file(sheet), encoding="utf-8")


def _course(row: Row) -> list[float]:
    return [row["test_before"], row["test_after_cut"], *row["test_by_epoch"]]


def _moment(at: float) -> str:
    return {-1: "before", 0: "cut"}.get(round(at), f"{at:.0f}")


if __name__ == "__main__":
    main()
