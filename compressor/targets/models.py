"""What each layer's settings cost, measured on images, or without any from the weights alone."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from compressor.layers import Layer, compressible_layers
from compressor.network import Context, Network
from compressor.scan import scan
from compressor.scan import variants as change
from compressor.scan.allocation import LayerModel, Setting, layer_model
from compressor.scan.curves import answers
from compressor.scan.variants import Variant
from compressor.training.data import Data

IMAGES = 500
"""Validation images that tell how layers rank, and no more than that: trials tell the rest."""
NOTHING_LEFT = 1e6
"""Of noise over signal, what stands for a layer whose weights are all gone."""
LEAST = 0.05
"""Of what the models foresee, the least part that is taken to be left after training: what images
do not tell is not taken for nothing."""
Models = Mapping[str, LayerModel]


class Judge:
    """What a change of ``network`` costs on the first validation images of a classification.

    The unit is that of its models (:meth:`compressor.scan.curves.Answers.harm`).
    """

    def __init__(self, network: Network, data: Data, context: Context) -> None:
        self.network, self.data, self.context = network, data, context
        self._images = data.validation.take(torch.arange(min(IMAGES, len(data.validation))))
        self._dense, self._right = answers(network.module, self._images, data, None, context)

    def models(self) -> Models:
        """From a scan of weights and bits."""
        kinds = ("weights", "bits")
        return scan(self.network, self.data, self.context, kinds=kinds, images=IMAGES).models()

    def harm(self, module: nn.Module) -> float:
        """Of the whole network, changed to ``module``."""
        found, _ = answers(module, self._images, self.data, self._right, self.context)
        return found.harm(self._dense)


def weighted(models: Models, factor: float) -> Models:
    """``models`` with ``factor`` times the cost of pruning, beside that of sharing."""
    return {n: replace(model, pruning=factor * model.pruning) for n, model in models.items()}


def mended(
    models: Models, settings: Mapping[str, Setting], harm: tuple[float, float]
) -> float | None:
    """The factor at which ``models`` would have foreseen what ``settings`` cost after training.

    ``harm`` is what pruning and sharing did. Training mends most of the one, and less of the other,
    or nothing where sharing is not trained behind. None where one of them was not tried.
    """
    foreseen = [models[name].parts(setting) for name, setting in settings.items()]
    pruning, sharing = (math.fsum(part) for part in zip(*foreseen, strict=True))
    if not (pruning > 0 and sharing > 0):
        return None
    return max(harm[0] / pruning, LEAST) / max(harm[1] / sharing, LEAST)


def of_weights(network: Network, seed: int) -> Models:
    """From the squared error of each change, over the squared weights that are left.

    That is the noise that the layer's outputs have in their signal, were its inputs white; what
    reaches the network's outputs of it is taken to be alike for all layers, which is all that can
    be said without images.
    """
    return {
        name: _of_layer(layer, seed)
        for name, layer in compressible_layers(network.module).items()
        if layer.weight.numel() > 1
    }


def _of_layer(layer: Layer, seed: int) -> LayerModel:
    pruned = [(v.value, _error(layer, v)) for v in change.weights(layer)]
    shared = [
        (int(v.value), _error(layer, v), float(v.facts["entropy"]))
        for v in change.bits(layer, seed)
    ]
    return layer_model(layer.weight.numel(), pruned, shared, resolution=0.0)


def _error(layer: Layer, variant: Variant) -> float:
    weight = layer.weight.double()
    changed = variant.changes()[layer.tensor].double()
    left = float(changed.square().sum())
    return float((changed - weight).square().sum()) / left if left else NOTHING_LEFT
