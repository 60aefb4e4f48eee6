"""Torch-Pruning on the thin ResNets, in an environment of its own that borrows our torch.

The environment is that of ``rivals.environment``. Layers around the option-A shortcuts are
ignored, because with them Torch-Pruning 1.6.1 fails on these networks; so it prunes the first
convolution of each block.
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

from compressor.benchmarks.rivals import python_of
from compressor.channels.removal import resize
from compressor.models import registry
from compressor.reporting.measure import layer_macs

_STEPS = 128
"""Ratios tried: a channel is 1/64 of a layer at least."""


@dataclass(frozen=True)
class Settings:
    """Torch-Pruning's own options: its default, group L2 norms, unless told otherwise.

    ``macs`` is the part of the multiply-adds to keep at most. ``everywhere`` is its
    ``global_pruning``, ``round_to`` what widths are multiples of, 1 for any.
    """

    macs: float
    everywhere: bool = False
    round_to: int = 1


def prune(folder: Path, arch: str, module: nn.Module, settings: Settings) -> nn.Module:
    """What Torch-Pruning makes of ``module``, a network of the registry; ``module`` stays.

    Raises subprocess.CalledProcessError where it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "dense.pt"), Path(scratch, "pruned.pt")
        torch.save(module.state_dict(), source)
        words = [arch, json.dumps(asdict(settings)), str(source), str(target)]
        borrowed = sysconfig.get_paths()["purelib"]
        root = str(Path(__file__).resolve().parents[2])
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([root, borrowed])}
        name = "compressor.benchmarks.channels.accuracy_peer"
        command = [str(python_of(folder)), "-m", name, "--prune", *words]
        subprocess.run(command, check=True, env=variables)
        state = torch.load(target, weights_only=True)
    small = registry.get(arch).build()
    resize(small, {name: tuple(value.shape) for name, value in state.items()})
    small.load_state_dict(state)
    return small.eval()


def _prune(arch: str, settings: Settings, source: Path, target: Path) -> None:
    """In the other environment: the least ratio that leaves at most ``settings.macs``."""
    dense = registry.get(arch).build()
    dense.load_state_dict(torch.load(source, weights_only=True))
    example = torch.zeros(1, *registry.get(arch).input_shape)
    wanted = settings.macs * layer_macs(dense, example)[""]
    # Not by bisection: rounded widths do not fall steadily, since it leaves alone what would be 0.
    for step in range(1, _STEPS):
        made = _pruned(dense, example, step / _STEPS, settings)
        if layer_macs(made, example)[""] <= wanted:
            torch.save(made.state_dict(), target)
            return
    raise SystemExit(f"no ratio leaves {settings.macs:g} of the MACs")


def _pruned(dense: nn.Module, example: torch.Tensor, ratio: float, settings: Settings) -> nn.Module:
    tp: Any = import_module("torch_pruning")  # of the other environment

    module = copy.deepcopy(dense).eval()
    pruner = tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        global_pruning=settings.everywhere,
        round_to=settings.round_to if settings.round_to > 1 else None,
        ignored_layers=[layer for name, layer in module.named_modules() if _ignored(name, layer)],
    )
    pruner.step()
    return module


def _ignored(name: str, layer: nn.Module) -> bool:
    """Whether a layer writes to the residual sums, which the shortcuts pad, or to the output."""
    return name in ("conv1", "linear") or name.endswith(".conv2")


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(
        prog="python -m compressor.benchmarks.channels.accuracy_peer"
    )
    described.add_argument("--prune", nargs=4, required=True, help=argparse.SUPPRESS)
    arch, settings, source, target = described.parse_args(words).prune
    _prune(arch, Settings(**json.loads(settings)), Path(source), Path(target))


if __name__ == "__main__":
    main()
