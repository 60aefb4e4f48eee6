"""What each layer's settings cost, measured on images, or without any from the weights alone."""

from compressor.layers import Layer, compressible_layers
from compressor.network import Context, Network
from compressor.scan import scan
from compressor.scan import variants as change
from compressor.scan.allocation import LayerModel, layer_model
from compressor.scan.variants import Variant
from compressor.training.data import Data

IMAGES = 500
"""Validation images that tell how layers rank, and no more than that: trials tell the rest."""
NOTHING_LEFT = 1e6
"""Of noise over signal, what stands for a layer whose weights are all gone."""
Models = dict[str, LayerModel]


def measured(network: Network, data: Data, context: Context) -> Models:
    """From a scan of weights and bits on the first validation images."""
    found = scan(network, data, context, kinds=("weights", "bits"), images=IMAGES)
    return found.models()


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
