"""ONNX files of a network cut by Torch-Pruning. Runs in the environment of ``environment.py``.

    PYTHON -m compressor.benchmarks.channels.rivals.torch_pruning_files NETWORK PART FOLDER

Uniform ratio, L2 over groups, found by bisection so that PART of the multiply-adds is left; once
with any width (``unrounded.onnx``), once with multiples of 16 (``rounded.onnx``). Its own ratio is
used where PART is "ratio=0.3". The files are written by the same exporter as ours.
"""

import argparse
import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressor.benchmarks.channels.networks import build
from compressor.export import graph, onnx
from compressor.reporting.measure import layer_macs
from compressor.storage import plain_state

TRIES = 7
WAYS = {"unrounded": None, "rounded": 16}

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser()
    described.add_argument("network")
    described.add_argument("part")
    described.add_argument("folder", type=Path)
    arguments = described.parse_args(words)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network = build(arguments.network)
    example = torch.zeros(1, *network.shape)
    found: Row = {}
    for way, step in WAYS.items():
        try:
            module, macs = _cut(network.module, example, arguments.part, step)
            model = onnx.build(graph.trace(module, example, 18), plain_state(module), {})
            (arguments.folder / f"{way}.onnx").write_bytes(model)
            found[way] = {"macs_left": macs}
        except Exception as error:  # whatever breaks, the row says so
            first = (str(error).strip().splitlines() or [""])[0]
            found[way] = {"error": f"{type(error).__name__}: {first}"}
    print(json.dumps(found), flush=True)


def _cut(
    module: nn.Module, example: Tensor, part: str, step: int | None
) -> tuple[nn.Module, float]:
    dense = layer_macs(module, example)[""]
    if part.startswith("ratio="):
        cut = prune(copy.deepcopy(module), example, float(part.removeprefix("ratio=")), step)
        return cut, layer_macs(cut, example)[""] / dense
    low, high, best = 0.0, 0.9, None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        cut = prune(copy.deepcopy(module), example, ratio, step)
        left = layer_macs(cut, example)[""] / dense
        low, high = (low, ratio) if left <= float(part) else (ratio, high)
        if left <= float(part):
            best = (cut, left)
    if best is None:
        raise RuntimeError("no ratio leaves so few multiply-adds")
    return best


def prune(module: nn.Module, example: Tensor, ratio: float, step: int | None) -> nn.Module:
    """Cut in place, the layer that makes the outputs left alone."""
    outputs = module(example).shape[-1]
    last = [
        each
        for each in module.modules()
        if isinstance(each, nn.Linear) and each.out_features == outputs
    ]
    tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=last[-1:],
        round_to=step,
    ).step()
    return module


if __name__ == "__main__":
    main()
