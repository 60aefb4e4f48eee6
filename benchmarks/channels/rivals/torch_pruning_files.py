"""ONNX files of a network cut by Torch-Pruning. Runs in the environment of ``environment.py``.

    PYTHON -m compressor.benchmarks.channels.rivals.torch_pruning_files NETWORK PART FOLDER

Uniform ratio, L2 over groups, found so that PART of the multiply-adds is left (``ratio.py``); once
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
from compressor.benchmarks.channels.rivals import ratio
from compressor.export import graph, onnx
from compressor.reporting.measure import layer_macs
from compressor.storage import plain_state

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

    def cut(share: float) -> tuple[nn.Module, int]:
        made = prune(copy.deepcopy(module), example, share, step)
        return made, layer_macs(made, example)[""]

    if part.startswith("ratio="):
        made, macs = cut(float(part.removeprefix("ratio=")))
    else:
        made, macs = ratio.least(cut, float(part) * dense)
    return made, macs / dense


def prune(module: nn.Module, example: Tensor, share: float, step: int | None) -> nn.Module:
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
        pruning_ratio=share,
        ignored_layers=last[-1:],
        round_to=step,
    ).step()
    return module


if __name__ == "__main__":
    main()
