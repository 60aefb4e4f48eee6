"""What a recipe would take out of a network as it is now."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from compressor.channels.allocation import Removed, threshold, to_target, uniform, worth
from compressor.channels.cost import Macs
from compressor.channels.cutting import Cut, cut
from compressor.channels.dependencies import Dependencies, layer_of
from compressor.channels.importance import importance
from compressor.channels.limits import Limits
from compressor.channels.moments import Reader, measure
from compressor.channels.surgery import reconstruct
from compressor.errors import StageError, UsageError
from compressor.examples import one_image
from compressor.network import Context, Network, Row
from compressor.settings import Channels
from compressor.tasks import CLASSIFICATION
from compressor.training.data import Data, sample

_TAYLOR_IMAGES = 1000
"""Training images that first-order scores are taken on."""
_OBS_IMAGES = 1000
"""Training images that "obs" measures on where no weights are fitted to some."""
_BATCH = 100


class Plan:
    """What may be removed from a network now, and what each channel is worth."""

    def __init__(self, network: Network, settings: Channels, context: Context) -> None:
        self.settings = settings
        self.module = network.module
        self.example = one_image(network.example).to(context.device)
        self.dependencies = Dependencies(
            self.module, self.example, freeze_residual=settings.freeze_residual
        )
        groups = self.dependencies.groups
        if not groups:
            frozen = self.dependencies.frozen()
            why = f": {frozen[0]['layer']} is held by {frozen[0]['reason']}" if frozen else ""
            raise StageError(f"{network.name} has no channel that can be removed{why}")
        self.ratios = [] if settings.ratio is None else _ratios(self.dependencies, settings)
        data = context.data
        images = None
        if data is not None:
            images = self._drawn(data, context, _TAYLOR_IMAGES, augment="none")
        self.readers = self._readers(network.module, context)
        scores = importance(
            self.dependencies,
            network.module,
            settings.criterion,
            batches=images,
            readers=self.readers,
            seed=context.seed,
            task=CLASSIFICATION if data is None else data.task,
        )
        self.macs = Macs(self.dependencies)
        if settings.criterion == "obs" and settings.scope == "global":
            scores = scores / np.maximum(self.macs.of_classes(), np.finfo(float).tiny)
        raw = settings.scope == "global" and settings.criterion in ("gamma", "obs")
        self.worths = worth(groups, scores, raw=raw)
        for group, ratio in zip(groups, self.ratios, strict=bool(self.ratios)):
            if ratio == 0:
                self.worths[group.classes] = np.inf
        self.limits = Limits.of(self.macs, settings.keep, _step(settings))

    def _readers(self, module: nn.Module, context: Context) -> dict[str, Reader]:
        """Layers that read channels, measured where something is made of it."""
        settings = self.settings
        images = settings.reconstruct or (_OBS_IMAGES if settings.criterion == "obs" else 0)
        if context.data is None or images == 0:
            return {}
        drawn = self._drawn(context.data, context, images)
        centred = settings.recalibrate > 0
        return measure(self.dependencies, module, drawn, seed=context.seed, centred=centred)

    @staticmethod
    def _drawn(
        data: Data, context: Context, count: int, augment: str | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        seed, device = context.seed, context.device
        return sample(data, count, seed=seed, batch_size=_BATCH, device=device, augment=augment)

    def cut(self, removed: Removed) -> Cut:
        """The network without these classes, proved."""
        return cut(self.module, self.example, self.dependencies, removed)

    def fit(self, small: nn.Module, removed: Removed) -> list[str]:
        """Fit the cut network's weights to the images, where that is asked for."""
        readers = self.readers if self.settings.reconstruct else {}
        return reconstruct(small, self.dependencies.keep(removed), readers)

    def removed(self, step: int, dense: float) -> Removed:
        """What goes in round ``step`` of a network that had ``dense`` MACs before the first.

        With n rounds to a ratio s each removes x of what it finds, (1 - x)^n = 1 - s.
        """
        settings = self.settings
        if settings.target_macs is not None:
            part = settings.target_macs ** (step / settings.rounds) * dense / self.macs.dense
            if part >= 1:
                return np.zeros(0, dtype=np.int64)
            return self.leaving(part)
        return self._by()

    def leaving(self, part: float) -> Removed:
        """What goes so that at most ``part`` of the MACs are left.

        Where many layers are near a multiple, a little more of a ratio takes much out of all of
        them. Of these those come back that would lose most for their MACs, while there is room.
        """
        before, after = to_target(self._by, self.macs.left, part)
        gone, earlier = self.dependencies.dead(after), self.dependencies.dead(before)
        saved, steps = self.macs.of_classes(), []
        for step in self.limits.steps:
            changed = step.own[gone[step.own] != earlier[step.own]]
            if len(changed):
                lost = float(self.worths[changed].sum() / max(saved[changed].sum(), 1e-12))
                steps.append((lost, step.own))
        for _, own in sorted(steps, key=lambda each: -each[0]):
            fewer = self.dependencies.dead(after)
            fewer[own] = earlier[own]
            found = self.limits.met(np.flatnonzero(fewer), self.worths)
            if self.macs.left(after) < self.macs.left(found) <= part:
                after = found
        return after

    def _by(self, one: float | None = None) -> Removed:
        """By one ratio for all groups, or by a round's part of the rules' ratio of each."""
        groups, settings = self.dependencies.groups, self.settings
        parts = [1 - (1 - ratio) ** (1 / settings.rounds) for ratio in self.ratios]
        if one is not None:
            parts = [one] * len(groups)
        if settings.scope == "uniform":
            wanted = uniform(groups, self.worths, parts)
        else:
            wanted = threshold(groups, self.worths, max(parts))
        return self.limits.met(wanted, self.worths)

    def widths(self, removed: Removed) -> dict[str, tuple[int, int]]:
        """The channels that each layer makes, before and after."""
        keep = self.dependencies.keep(removed)
        return {
            layer_of(name): (len(classes), int(keep[name, at].sum()))
            for (name, at), classes in self.dependencies.axes.items()
            if (name, at) in self.dependencies.graph.makers and (name, at) in keep
        }

    def rows(self) -> list[Row]:
        """A row per group: its layers, and the channels of the first of them."""
        rows = []
        for group in self.dependencies.groups:
            axis = group.makers[0]
            rows.append(
                {
                    "group": group.name,
                    "layers": list(group.layers),
                    "before": len(self.dependencies.axes[axis]),
                    "axis": axis,
                }
            )
        return rows


def _ratios(dependencies: Dependencies, settings: Channels) -> list[float]:
    """The ratio of each group: of its layers' the least, 0 where one of them has none."""
    kinds = {
        layer_of(name): "conv" if dependencies.dimensions(name) > 2 else "fc"
        for name, _ in dependencies.graph.makers
    }
    wanted = settings.rules.resolve(kinds)
    return [min(wanted.get(layer, 0.0) for layer in group.layers) for group in dependencies.groups]


def preview(network: Network, settings: Channels) -> dict[str, tuple[int, int]]:
    """Channels of each layer that would lose some, (before, after); without looking at data.

    The weights alone say where scores of data or a measured latency would: which channels go, and
    with a target how many, may come out otherwise. Raises :class:`StageError` as the stage does.
    """
    settings = replace(settings, rounds=1)
    if settings.criterion in ("taylor", "obs"):
        settings = replace(settings, criterion="l2")
    if settings.target_latency is not None:
        settings = replace(settings, target_macs=settings.target_latency, target_latency=None)
    plan = Plan(network, settings, Context())
    removed = plan.removed(1, plan.macs.dense)
    if not len(removed):
        raise StageError(nothing_removed(settings))
    return plan.widths(removed)


def _step(settings: Channels) -> int:
    if not isinstance(settings.round, int):
        raise UsageError(f"channels.round is {settings.round}: resolve it to a number first")
    return settings.round


def nothing_removed(settings: Channels) -> str:
    """Why a cut would leave everything, and what to change."""
    return (
        "no channel would be removed: every layer is at its least width already; raise the ratio, "
        f"or lower channels.keep ({settings.keep}) or channels.round ({settings.round})"
    )
