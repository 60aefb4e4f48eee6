"""What a run with given settings comes to: its artifact's bytes, its accuracy on validation images.

A trial does what a run does, stage by stage, with the same numbers drawn, and leaves out what a run
writes and measures besides. So the run that follows has the bytes and the accuracy of its trial.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from compressor import artifact
from compressor.channels import remove_channels
from compressor.closing import closed, cut, encoded
from compressor.errors import StageError
from compressor.layers import bake, compressible_layers
from compressor.network import Context, Network
from compressor.pruning import prune
from compressor.quantization import share
from compressor.recipe import Recipe
from compressor.scan.allocation import Setting
from compressor.scan.proposal import untrained, with_settings
from compressor.storage import load_decoded, skeleton_of
from compressor.targets.models import Judge
from compressor.training.data import Data, Split
from compressor.training.evaluation import scores
from compressor.training.losses import frozen

MOST_VALIDATION = 5000


@dataclass(frozen=True)
class Outcome:
    """Of a trial: its settings, the artifact's bytes, accuracy on validation images (0 to 1).

    ``harm`` is what pruning and what sharing did, each trained; None without a judge.
    """

    settings: Mapping[str, Setting]
    recipe: Recipe
    bytes: int
    accuracy: float | None
    trained: bool
    harm: tuple[float, float] | None


class Trials:
    """Trials of one recipe on one network, whose channels go first where the recipe says so."""

    def __init__(self, network: Network, recipe: Recipe, context: Context) -> None:
        """Raises :class:`StageError` where the channels cannot be removed."""
        self.recipe, self.context = recipe, context
        if any(t.distill for t in recipe.trainings.values()) and context.data is not None:
            self.context = replace(context, teacher=frozen(network.module))
        self.accuracy = accuracy(network, context.data)
        self.network = _copy(network)
        if recipe.channels is not None:
            report = remove_channels(self.network, recipe.channels, self.context)
            bake(self.network.module)
            cut(self.network, report.details["kept"])
        data = context.data
        labelled = data is not None and data.task.labels and len(data.validation)
        self.judge = Judge(self.network, data, self.context) if data and labelled else None
        self._skeleton = self._traced(self.network)
        epochs = {} if data is None else {n: t.epochs for n, t in recipe.trainings.items()}
        self.trains = any(n for name, n in epochs.items() if not name.startswith("channels."))
        self.retrains = bool(epochs.get("prune.retrain"))

    def trial(self, settings: Mapping[str, Setting], *, train: bool) -> Outcome | None:
        """One set of settings; without training where not ``train``. None: not possible."""
        recipe = with_settings(self.recipe, settings)
        recipe = recipe if train else untrained(recipe)
        small, judge = _copy(self.network), self.judge if train else None
        try:
            if recipe.prune is not None:
                prune(small, recipe.prune, self.context)
            pruned = judge.harm(small.module) if judge else 0.0
            if recipe.share is not None:
                share(small, recipe.share, self.context)
            shared = judge.harm(small.module) if judge else 0.0
        except StageError as error:
            self.context.progress.note(f"not possible: {error}")
            return None
        closed(small, recipe)
        whole = small.channels == self.network.channels
        skeleton = self._skeleton if whole else self._traced(small)
        blob = encoded(small, recipe, skeleton, self.context.progress)
        load_decoded(small.module, artifact.decode(blob).tensors)
        found = accuracy(small, self.context.data)
        harm = (pruned, shared - pruned) if judge else None
        return Outcome(settings, recipe, len(blob), found, train, harm)

    def _traced(self, network: Network) -> bytes:
        wanted = self.recipe.encode.graph
        return skeleton_of(network, self.recipe.export.opset) if wanted else b""


def accuracy(network: Network, data: Data | None) -> float | None:
    """On validation images, at most `MOST_VALIDATION`; None where there are none."""
    if data is None or not len(data.validation):
        return None
    return float(scores(network.module, data, _first(data.validation)).double().mean())


def _first(split: Split) -> Split:
    return split.take(torch.arange(min(MOST_VALIDATION, len(split))))


def _copy(network: Network) -> Network:
    return replace(network, module=copy.deepcopy(network.module))


def parts(network: Network, settings: Mapping[str, Setting]) -> tuple[float, float]:
    """Sparsity of all layers together, and the mean width of a weight's codebook in bits."""
    counts = {n: layer.weight.numel() for n, layer in compressible_layers(network.module).items()}
    total = max(1, sum(counts[name] for name in settings))
    zeros = sum(counts[name] * each.sparsity for name, each in settings.items())
    bits = sum(counts[name] * (each.bits or 32) for name, each in settings.items())
    return zeros / total, bits / total
