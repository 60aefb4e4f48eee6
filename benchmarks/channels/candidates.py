"""Networks of ours to choose from: cut in many ways, their norms recalibrated."""

import copy
import itertools
import json
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import nn

from compressor.benchmarks.channels.thin_resnets import Row, accuracy, onnx_file, widths
from compressor.channels.limits import Limits
from compressor.channels.plan import Plan
from compressor.network import Context, Network
from compressor.settings import Channels, Training
from compressor.settings.channels import Scope
from compressor.training.data import Data
from compressor.training.recalibration import recalibrate

PARTS = (0.32, 0.36, 0.4, 0.44, 0.48, 0.52, 0.56, 0.6, 0.65, 0.7, 0.75, 0.8)
"""Of the multiply-adds."""
STEPS: tuple[Literal[8, 16], ...] = (8, 16)
NONE = Training(epochs=0)


@dataclass(frozen=True)
class Candidate:
    """A network of ours, its norms recalibrated, and what is known of it."""

    module: nn.Module
    row: Row
    file: bytes


def candidates(network: Network, data: Data, context: Context) -> list[Candidate]:
    """Our networks by both scopes, with and without the sums of blocks, at many parts of the MACs
    and roundings."""
    found: dict[str, Candidate] = {}
    for scope, frozen in itertools.product(get_args(Scope), (False, True)):
        settings = chosen(PARTS[0], round=1, scope=scope, freeze_residual=frozen)
        plan = Plan(network, settings, context)
        for part, step in itertools.product(PARTS, STEPS):
            plan.settings = replace(settings, target_macs=part, round=step)
            plan.limits = Limits.of(plan.macs, settings.keep, step)
            removed = plan.removed(1, plan.macs.dense)
            module = plan.cut(removed).module
            name = json.dumps(widths(module))
            if name in found:
                continue
            plan.fit(module, removed)
            recalibrate(module, data, context)
            row: Row = {"method": "compress", "settings": choice(plan.settings)}
            row["score"] = accuracy(module.eval(), data, data.validation)
            found[name] = Candidate(module, row, onnx_file(network, copy.deepcopy(module)))
    return list(found.values())


def chosen(part: float, **more: Any) -> Channels:
    """Our setting for a part of the MACs, by validation images one-shot."""
    return Channels(
        target_macs=part, **{"criterion": "obs", "scope": "global", **more}, retrain=NONE
    )


def choice(settings: Channels) -> Row:
    """What tells these settings from others."""
    names = ("criterion", "scope", "round", "target_macs", "reconstruct", "freeze_residual")
    return {name: getattr(settings, name) for name in names}
