"""Dense networks and the same with half of their multiply-adds, on a GPU.

    python -m compressor.benchmarks.cuda [--networks ...] [--batches 1 128] [--runtimes ...]

ResNet-18, ResNet-50 and VGG-16 with random weights by a seed; channels removed uniformly, widths
multiples of 16. Both files of a network take turns in each runtime: eager, compiled, CUDA graphs,
each in fp32 and fp16, timed by CUDA events (``docs/bench.md``). Writes ``results/cuda.json`` with
the GPU's name, driver and clocks. ``--device cpu --runtimes torch`` tries the command without one.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from compressor import checkpoint
from compressor.benchmarks.channels.networks import build
from compressor.benchmarks.environment import environment, hardware_state
from compressor.benchmarks.experiments import RESULTS
from compressor.benchmarks.harness.bench import Plan, bench
from compressor.benchmarks.harness.rounds import Limits
from compressor.benchmarks.harness.subjects import Subject, subjects
from compressor.channels import remove_channels
from compressor.closing import cut
from compressor.network import Context, Network
from compressor.reporting.console import ConsoleProgress
from compressor.reporting.markdown import joined
from compressor.reporting.measure import layer_macs
from compressor.settings import Channels, Training

Row = dict[str, Any]
RESULT = RESULTS / "cuda.json"
NETWORKS = ("torchvision:resnet18", "torchvision:resnet50", "torchvision:vgg16_bn")
RUNTIMES = ("torch", "compile", "graphs", "torch-fp16", "compile-fp16", "graphs-fp16")
SHORT = {
    **{"torch": "eager", "compile": "compiled", "graphs": "graphs"},
    **{
        "torch-fp16": "eager, fp16",
        "compile-fp16": "compiled, fp16",
        "graphs-fp16": "graphs, fp16",
    },
}
KEPT = ("subject", "runtime", "batch", "failure", "median_ms", "faster", "conclusion", "finite")


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.cuda")
    described.add_argument("--networks", nargs="+", default=NETWORKS)
    described.add_argument("--batches", type=int, nargs="+", default=(1, 128))
    described.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    described.add_argument("--device", default="cuda")
    described.add_argument("--part", type=float, default=0.5, help="of the MACs that is left")
    described.add_argument("--seconds", type=float, default=10.0, help="each batch and runtime")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    arguments = described.parse_args(words)
    rows = [measured(name, arguments) for name in arguments.networks]
    result = {
        "benchmark": "cuda",
        "device": arguments.device,
        "part": arguments.part,
        "environment": {**environment(), "state": hardware_state()},
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def measured(name: str, arguments: argparse.Namespace) -> Row:
    """One network; a runtime at a time, so that a GPU holds two copies and not twelve."""
    cells: list[Row] = []
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        pair, macs = files(name, arguments.part, Path(folder))
        for runtime in arguments.runtimes:
            plan = Plan(
                runtimes=(runtime,),
                device=arguments.device,
                batches=tuple(arguments.batches),
                limits=Limits(seconds=arguments.seconds),
            )
            result = bench(pair, plan, ConsoleProgress())
            if result["interrupted"]:
                raise KeyboardInterrupt
            cells += [{key: cell.get(key) for key in KEPT} for cell in result["cells"]]
            warnings += [f"{SHORT[runtime]}: {text}" for text in result["warnings"]]
    return {"network": name, "macs": macs, "cells": cells, "warnings": warnings}


def files(name: str, part: float, folder: Path) -> tuple[list[Subject], list[int]]:
    """(the dense and the smaller checkpoint, multiply-adds of both)."""
    built = build(name)
    network = Network(built.module, torch.zeros(1, *built.shape), name, name)
    checkpoint.write(network.module.state_dict(), folder / "dense.safetensors")
    settings = Channels(target_macs=part, round=16, retrain=Training(epochs=0))
    dense = layer_macs(network.module, network.example)[""]
    done = remove_channels(network, settings, Context())
    cut(network, done.details["kept"])
    told = {"network": name, "channels": network.channels or ""}
    checkpoint.write(network.module.state_dict(), folder / "small.safetensors", told)
    paths = [folder / "dense.safetensors", folder / "small.safetensors"]
    return subjects(paths, name), [dense, layer_macs(network.module, network.example)[""]]


def table(result: Row) -> str:
    """Markdown: a row a network and batch, in each runtime the dense time and the ratio."""
    runtimes = list(dict.fromkeys(c["runtime"] for row in result["rows"] for c in row["cells"]))
    heads = ("network", "batch", "fewer MACs", *(SHORT[name] for name in runtimes))
    lines = []
    for row in result["rows"]:
        for batch in dict.fromkeys(cell["batch"] for cell in row["cells"]):
            cells = [cell for cell in row["cells"] if cell["batch"] == batch]
            found = [_cell([c for c in cells if c["runtime"] == name]) for name in runtimes]
            fewer = f"{row['macs'][0] / row['macs'][1]:.2f}x"
            lines.append((row["network"].rpartition(":")[2], str(batch), fewer, *found))
    gpus = result["environment"]["state"]["gpus"]
    where = gpus[0]["name"] if gpus else result["environment"]["cpu"]
    doubts = [f"{row['network']}, {text}" for row in result["rows"] for text in row["warnings"]]
    about = (
        f"Dense: ms a batch; then how many times faster with fewer channels, with its 95 % "
        f"interval. PyTorch {result['environment']['libraries']['torch']}, {where}."
    )
    below = " ".join([about, *(f"Warning: {each}." for each in doubts)])
    return f"{joined(heads, lines)}\n\n{below}"


def _cell(pair: Sequence[Row]) -> str:
    dense, small = pair
    if not dense["median_ms"] or not small["median_ms"]:
        return dense["failure"] or small["failure"] or "-"
    ratio = small["faster"]
    ms = f"{dense['median_ms']['value']:.3g} ms"
    return f"{ms}, {ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


if __name__ == "__main__":
    main()
