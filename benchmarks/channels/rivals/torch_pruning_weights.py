"""Torch-Pruning on a trained network of the registry: weights in, weights out.

:func:`prune` is our side; the module itself runs in the environment of ``environment.py``, which
borrows our torch. In the thin ResNets layers around the option-A shortcuts are ignored, because
with them Torch-Pruning 1.6.1 fails; so it prunes the first convolution of each block. In any
network the layer that makes the outputs is ignored.
"""

import argparse
import copy
import json
import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.benchmarks.channels.rivals import ratio
from compressor.benchmarks.rivals import python_of
from compressor.channels.removal import resize
from compressor.models import registry
from compressor.reporting.measure import layer_macs

MODULE = "compressor.benchmarks.channels.rivals.torch_pruning_weights"
THIN = ("resnet20", "resnet32", "resnet44", "resnet56")


@dataclass(frozen=True)
class Settings:
    """Torch-Pruning's own options: its default, group L2 norms, unless told otherwise.

    ``macs`` is the part of the multiply-adds to keep at most; ``everywhere`` its
    ``global_pruning``.
    """

    macs: float
    everywhere: bool = False


def prune(folder: Path, arch: str, module: nn.Module, settings: Settings) -> nn.Module:
    """What Torch-Pruning makes of ``module``, a network of the registry; ``module`` stays.

    Raises subprocess.CalledProcessError where it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "dense.pt"), Path(scratch, "pruned.pt")
        torch.save(module.state_dict(), source)
        words = [arch, json.dumps(asdict(settings)), str(source), str(target)]
        borrowed = sysconfig.get_paths()["purelib"]
        root = str(Path(__file__).resolve().parents[3])
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([root, borrowed])}
        subprocess.run([str(python_of(folder)), "-m", MODULE, *words], check=True, env=variables)
        state = torch.load(target, weights_only=True)
    small = registry.get(arch).build()
    resize(small, {name: tuple(value.shape) for name, value in state.items()})
    small.load_state_dict(state)
    return small.eval()


def main(words: Sequence[str] | None = None) -> None:
    """In the other environment: prune, and write what is left."""
    described = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    described.add_argument("arch")
    described.add_argument("settings", help="Settings as JSON")
    described.add_argument("source", type=Path)
    described.add_argument("target", type=Path)
    arguments = described.parse_args(words)
    settings = Settings(**json.loads(arguments.settings))
    dense = registry.get(arguments.arch).build()
    dense.load_state_dict(torch.load(arguments.source, weights_only=True))
    example = torch.zeros(1, *registry.get(arguments.arch).input_shape)

    def cut(part: float) -> tuple[nn.Module, int]:
        made = _pruned(arguments.arch, dense, example, part, settings.everywhere)
        return made, layer_macs(made, example)[""]

    made, _ = ratio.least(cut, settings.macs * layer_macs(dense, example)[""])
    torch.save(made.state_dict(), arguments.target)


def _pruned(
    arch: str, dense: nn.Module, example: torch.Tensor, part: float, everywhere: bool
) -> nn.Module:
    tp: Any = import_module("torch_pruning")  # of the other environment

    module = copy.deepcopy(dense).eval()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=part,
        global_pruning=everywhere,
        ignored_layers=[last, *(_summed(module) if arch in THIN else [])],
    )
    pruner.step()
    return module


def _summed(module: nn.Module) -> list[nn.Module]:
    """The layers of a thin ResNet that write to the residual sums, which the shortcuts pad."""
    return [
        layer
        for name, layer in module.named_modules()
        if name == "conv1" or name.endswith(".conv2")
    ]


if __name__ == "__main__":
    main()
