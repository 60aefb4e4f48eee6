"""A scan: how sensitive each layer is to each way of compressing it, and what follows from that."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from compressor.channels.cost import Macs
from compressor.channels.dependencies import Dependencies
from compressor.errors import StageError, UsageError
from compressor.examples import one_image
from compressor.layers import Layer, compressible_layers
from compressor.network import Context, Network, Row
from compressor.reporting.histograms import counted, weights_of
from compressor.reporting.measure import layer_macs
from compressor.scan import variants as change
from compressor.scan.allocation import LayerModel, layer_model
from compressor.scan.curves import Answers, answers, measure
from compressor.scan.proposal import Proposal, propose, propose_channels
from compressor.scan.replay import Replay
from compressor.scan.variants import Channels, Variant
from compressor.tracing import traced
from compressor.training.data import Data, Split

KINDS = change.KINDS


@dataclass(frozen=True)
class Curve:
    """One kind of change of one unit: (variant, what the network then answers), in order."""

    kind: str
    unit: str
    layers: tuple[str, ...]
    points: list[tuple[Variant, Answers]]

    def increase(self, dense: Answers) -> float:
        """How sensitive the unit is: the mean increase of the loss over all points."""
        return sum(each.loss - dense.loss for _, each in self.points) / len(self.points)


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scan found. ``work`` says how much of the network ran; ``right`` (N,) bool."""

    network: Network
    images: Split
    dense: Answers
    curves: list[Curve]
    right: torch.Tensor
    work: Row
    cost: Mapping[str, float] = field(default_factory=dict)

    def of(self, kind: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.kind == kind]

    def ranked(self, kind: str) -> list[Curve]:
        """The units from the most sensitive to the least."""
        return sorted(self.of(kind), key=lambda curve: -curve.increase(self.dense))

    def models(self) -> dict[str, LayerModel]:
        """What pruning and sharing cost each layer that was scanned for either."""
        pruned = {curve.unit: curve for curve in self.of("weights")}
        shared = {curve.unit: curve for curve in self.of("bits")}
        layers = compressible_layers(self.network.module)
        return {
            name: layer_model(
                layer.weight.numel(),
                [(v.value, a.harm(self.dense)) for v, a in _points(pruned.get(name))],
                [
                    (int(v.value), a.harm(self.dense), v.facts["entropy"])
                    for v, a in _points(shared.get(name))
                ],
            )
            for name, layer in layers.items()
            if name in pruned or name in shared
        }

    def channel_models(self) -> dict[str, LayerModel]:
        """The same of channels, in multiply-adds in place of bits."""
        found = {}
        for curve in self.of("channels"):
            points = [(v.facts["ratio"], a.harm(self.dense)) for v, a in curve.points]
            model = layer_model(int(curve.points[0][0].facts["of"]), points, [])
            macs = self.cost[curve.unit] * (1 - model.sparsities)
            found[curve.unit] = replace(model, size=macs[:, None])
        return found


def _points(curve: Curve | None) -> list[tuple[Variant, Answers]]:
    return [] if curve is None else curve.points


def scan(
    network: Network,
    data: Data,
    context: Context,
    *,
    kinds: Sequence[str] = KINDS,
    layers: Sequence[str] = ("*",),
    images: int = 2000,
) -> Scan:
    """Change every layer that a pattern of ``layers`` fits, alone, in each way of ``kinds``.

    Accuracy and loss are those of the first ``images`` validation images. The network stays as it
    was. Raises :class:`UsageError` for an unknown kind or no validation image, and
    :class:`StageError` for a pattern that fits nothing.
    """
    _check(kinds, images)
    split = data.validation
    if not len(split):
        raise UsageError(f"{data.name} has no validation images to scan on: leave some aside")
    split = split.take(torch.arange(min(images, len(split))))
    module = network.module.eval()
    example = one_image(network.example).to(context.device)
    program = traced(module, example)
    wanted = _named(compressible_layers(module), layers)
    every: list[Variant] = []
    channels = None
    with context.progress.task("prepare", len(wanted)) as advance:
        for name, layer in wanted.items():
            every += change.weights(layer) if "weights" in kinds else ()
            every += change.bits(layer, context.seed) if "bits" in kinds else ()
            advance(name)
    if "channels" in kinds:
        channels = Channels(network, Dependencies(module, example, program=program))
        for unit, groups in channels.units.items():
            if any(layer in wanted for group in groups for layer in group.layers):
                every += channels.variants(unit)
    if not every:
        raise StageError(f"{network.name} has nothing to scan for {', '.join(kinds)}")
    replay = Replay(module, program)
    found = measure(replay, every, split, data, context)
    curves: dict[tuple[str, str], Curve] = {}
    for variant, point in zip(every, found.points, strict=True):
        key = variant.kind, variant.unit
        curve = curves.setdefault(key, Curve(*key, variant.layers, []))
        curve.points.append((variant, point))
    return Scan(
        network,
        split,
        found.dense,
        list(curves.values()),
        found.right,
        _work(replay, every, layer_macs(module, example)),
        {} if channels is None else _costs(channels),
    )


def proposals(scan: Scan, data: Data, max_drop: float, context: Context) -> dict[str, Proposal]:
    """What the scan proposes: of weights and bits together under "weights", and of "channels"."""

    def evaluate(network: Network) -> Answers:
        return answers(network.module, scan.images, data, scan.right, context)[0]

    found: dict[str, Proposal | None] = {}
    if models := scan.models():
        found["weights"] = propose(scan.network, models, max_drop, evaluate, context)
    if models := scan.channel_models():
        layers = {curve.unit: curve.layers for curve in scan.of("channels")}
        context = replace(context, data=data)
        found["channels"] = propose_channels(
            scan.network, models, layers, max_drop, evaluate, context
        )
    return {name: each for name, each in found.items() if each is not None}


def _check(kinds: Sequence[str], images: int) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--kinds {kind}: give some of {', '.join(KINDS)}")
    if not kinds:
        raise UsageError(f"--kinds is empty: give some of {', '.join(KINDS)}")
    if images < 1:
        raise UsageError(f"--images {images}: give 1 or more")


def _named(layers: Mapping[str, Layer], patterns: Sequence[str]) -> dict[str, Layer]:
    """The layers that a pattern fits: a kind, conv or fc, or a shell pattern on the name."""
    found = {}
    for pattern in patterns:
        fitting = {
            name: layer
            for name, layer in layers.items()
            if pattern == layer.kind or fnmatch.fnmatchcase(name, pattern)
        }
        if not fitting:
            known = ", ".join(list(layers)[:6]) or "no convolution or linear layer"
            raise StageError(f"--layers {pattern} fits no layer of this network: it has {known}")
        found.update(fitting)
    return {name: layer for name, layer in layers.items() if name in found}


def _work(replay: Replay, every: Sequence[Variant], macs: Mapping[str, int]) -> Row:
    """How much ran: multiply-adds after each variant's start, over those of whole runs."""
    used = {f"{name}.weight": count for name, count in macs.items() if name}
    after = np.zeros(len(replay.nodes) + 1)
    for at, node in reversed(list(enumerate(replay.nodes))):
        own = {used.get(replay.names.get(each, ""), 0) for each in node.all_input_nodes}
        after[at] = after[at + 1] + max(own, default=0)
    part = np.mean([after[replay.start(v.names)] / max(after[0], 1) for v in every])
    return {"evaluations": len(every), "macs_part": float(part)}


def _costs(channels: Channels) -> dict[str, float]:
    """For each unit, the part of the network's multiply-adds that goes with all its channels."""
    classes = Macs(channels.dependencies).of_classes()
    return {
        unit: float(sum(classes[group.classes].sum() for group in groups))
        for unit, groups in channels.units.items()
    }


def to_json(scan: Scan, data: Data, proposed: Mapping[str, Proposal], max_drop: float) -> Row:
    """Everything that was found, as plain data (``docs/scan.md``)."""
    network = scan.network
    table: dict[str, Any] = {
        "network": {
            "name": network.name,
            "arch": network.arch,
            "source_sha256": network.source,
            "input_shape": list(one_image(network.example).shape),
        },
        "data": {
            "name": data.name,
            "split": "validation",
            "images": len(scan.images),
            "fingerprint": data.fingerprint,
        },
        "dense": scan.dense.row(),
        "curves": [
            {
                "kind": curve.kind,
                "unit": curve.unit,
                "layers": list(curve.layers),
                "mean_increase": curve.increase(scan.dense),
                "points": [{**v.facts, **a.row()} for v, a in curve.points],
            }
            for curve in scan.curves
        ],
        "sensitivity": {
            kind: {"most": ranked[0].unit, "least": ranked[-1].unit}
            for kind in KINDS
            if (ranked := scan.ranked(kind))
        },
        "histograms": [
            {"layer": name, "weights": weight.size, "std": float(weight.std()), **counted(weight)}
            for name, weight in weights_of(network.module)
        ],
        "max_drop": max_drop,
        "proposals": {
            name: {**each.answers.row(), "tried": each.tried} for name, each in proposed.items()
        },
        "work": scan.work,
    }
    return table
