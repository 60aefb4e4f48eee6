"""What each layer's settings cost, measured on images, or without any from the weights alone."""

import torch

from compressor.layers import Layer, compressible_layers
from compressor.network import Context, Network
from compressor.scan import scan
from compressor.scan import variants as change
from compressor.scan.allocation import LayerModel, layer_model
from compressor.scan.variants import Variant
from compressor.training.data import Data

IMAGES = 500
"""Validation images that tell how layers rank, and no more than that: trials tell the rest."""
Models = dict[str, LayerModel]


def measured(network: Network, data: Data, context: Context) -> Models:
    """From a scan of weights and bits on the first validation images."""
    found = scan(network, data, context, kinds=("weights", "bits"), images=IMAGES)
    return found.models()


def of_weights(network: Network, seed: int) -> Models:
    """From the squared error that each change makes, relative to the layer's mean square weight.

    So layers are taken to matter alike, whatever their size, which is what can be said without
    images: an error of one part in a hundred there is noise of -20 dB at the layer's outputs.
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
    return layer_model(layer.weight.numel(), pruned, shared)


def _error(layer: Layer, variant: Variant) -> float:
    weight = layer.weight.double()
    changed = variant.changes()[f"{layer.name}.weight"].double()
    energy = float(weight.square().sum())
    return float(torch.sum((changed - weight) ** 2)) / energy if energy else 0.0
