"""Is a cut network faster? Ours and Torch-Pruning's, beside the dense one, in ONNX Runtime.

    python -m compressor.benchmarks.channels.latency --environment FOLDER

Random weights by a seed, half of the multiply-adds left; all ONNX files of a network take turns,
one thread, batch 1. ``efficiency`` is the speed-up over the ratio of MACs. FOLDER is that of
Torch-Pruning (``rivals.environment``); without it only ours are measured.
"""

import argparse
import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from compressor.benchmarks.channels.networks import build
from compressor.benchmarks.environment import environment
from compressor.benchmarks.rivals import python_of
from compressor.channels import widths
from compressor.channels.cutting import cut
from compressor.channels.plan import Plan
from compressor.channels.speed import exported
from compressor.examples import one_image
from compressor.network import Context, Network
from compressor.reporting.latency import latency
from compressor.settings import Channels

Row = dict[str, Any]

IMAGENET = (
    *("alexnet", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "densenet121"),
    *("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_800mf"),
)
NETWORKS = (*(f"torchvision:{name}" for name in IMAGENET), "vgg-cifar")
RESULT = Path(__file__).parents[1] / "results" / "channels-latency.json"
RIVAL = "compressor.benchmarks.channels.rivals.torch_pruning_files"
CIFAR_RATIO = 0.3
"""Of the channels of VGG for CIFAR."""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.channels.latency")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--environment", type=Path, help="Torch-Pruning's, as built")
    parser.add_argument("--part", type=float, default=0.5, help="of the MACs that is left")
    parser.add_argument("--seconds", type=float, default=12.0, help="of measurement, each network")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    described = environment()
    profile = widths.measure()
    rows = []
    for name in arguments.networks:
        rows.append(measured(name, arguments, profile.step))
        print(line(rows[-1]), flush=True)
    result = {
        "benchmark": "channels/latency",
        "part": arguments.part,
        "threads": 1,
        "step": profile.step,
        "environment": described,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measured(name: str, arguments: argparse.Namespace, step: int) -> Row:
    """One network: dense, ours with and without rounding, the rival's with and without."""
    built = build(name)
    network = Network(built.module, torch.zeros(1, *built.shape), name, name)
    goal = {"ratio": CIFAR_RATIO} if name == "vgg-cifar" else {"target_macs": arguments.part}
    models, ways = {"dense": exported(network)}, {}
    for way, multiple in (("ours", step), ("ours, any width", 1)):
        small, ways[way] = ours(network, Channels(**goal, round=multiple))  # type: ignore[arg-type]
        models[way] = exported(Network(small, network.example, name, name))
    if arguments.environment is not None:
        part = f"ratio={CIFAR_RATIO}" if name == "vgg-cifar" else str(arguments.part)
        for way, row, model in theirs(name, part, python_of(arguments.environment)):
            ways[way] = row
            if model is not None:
                models[way] = model
    ms = latency(models, tuple(one_image(network.example).shape), seconds=arguments.seconds)["ms"]
    for way, row in ways.items():
        if way in ms:
            row["ms"] = ms[way]
            row["speed_up"] = round(ms["dense"]["median"] / ms[way]["median"], 3)
            row["efficiency"] = round(row["speed_up"] * row["macs_left"], 3)
    return {"network": name, "dense_ms": ms["dense"], "ways": ways}


def ours(network: Network, settings: Channels) -> tuple[nn.Module, Row]:
    """Cut as ``compress`` cuts, without training."""
    plan = Plan(network, settings, Context())
    removed = plan.removed(1, plan.macs.dense)
    made = cut(network.module, one_image(network.example), plan.dependencies, removed)
    left = plan.macs.left(removed)
    return made.module, {"macs_left": left, "rewritten": made.rewritten, **made.proof.row()}


def theirs(name: str, part: str, python: Path) -> list[tuple[str, Row, bytes | None]]:
    """Torch-Pruning's files, made in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        here = {**os.environ, "PYTHONPATH": str(Path(compressor.__file__).parents[1])}
        command = [str(python), "-m", RIVAL, name, part, folder]
        done = subprocess.run(command, capture_output=True, text=True, env=here)
        if done.returncode:
            return [("Torch-Pruning", {"error": done.stderr.strip().splitlines()[-1:]}, None)]
        found = json.loads(done.stdout.splitlines()[-1])
        made = []
        for way, row in found.items():
            file = Path(folder, f"{way}.onnx")
            model = file.read_bytes() if file.exists() else None
            made.append((f"Torch-Pruning, {way}", row, model))
        return made


def line(row: Row) -> str:
    parts = [f"{row['network'].rpartition(':')[2]:20}{row['dense_ms']['median']:8.2f} ms"]
    for way, each in row["ways"].items():
        if "speed_up" in each:
            ratio = 1 / each["macs_left"]
            parts.append(f"{way}: {ratio:.2f}x MACs {each['speed_up']:.2f}x ({each['efficiency']})")
        else:
            parts.append(f"{way}: {each.get('error')}")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
