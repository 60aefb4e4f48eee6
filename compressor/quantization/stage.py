"""Stage 2: share weights by clustering, fine-tune the centroids."""

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import StageError
from compressor.layers import Layer, compressible_layers, share_layer
from compressor.network import Context, Network, Row, StageReport
from compressor.quantization.clustering import cluster
from compressor.quantization.rate_aware import quantize
from compressor.recipe import Init, Share
from compressor.training.fit import fit


def share(network: Network, settings: Share, context: Context) -> StageReport:
    """Cluster each layer's non-zero weights into 2^bits centroids and fine-tune them.

    Where the layer's rate is over 0, `compressor.quantization.rate_aware` takes the place of
    k-means. Weights that are zero stay out of the codebook and stay zero. Fine-tuning moves
    centroids (by gradients summed per cluster; Deep Compression, section 3.3), biases and norms;
    assignments stay. Raises :class:`StageError` for a layer without a non-zero weight.
    """
    layers = compressible_layers(network.module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to quantize")
    wanted = settings.rules.resolve({n: layer.kind for n, layer in layers.items()})
    rates = settings.rates.resolve({n: layer.kind for n, layer in layers.items()})
    rows: list[Row] = []
    with context.progress.task("cluster", len(wanted)) as advance:
        for name, bits in wanted.items():
            rate = rates.get(name, 0.0)
            rows.append(_share(layers[name], int(bits), rate, settings.init, context.seed))
            advance(name)
    epochs = fit(network.module, settings.finetune, context, "fine-tune centroids")
    return StageReport(rows, [epoch.row() for epoch in epochs])


def _share(layer: Layer, bits: int, rate: float, init: Init, seed: int) -> Row:
    weight = layer.weight.cpu().numpy()
    kept = weight != 0
    if not kept.any():
        raise StageError(f"{layer.name} has no weight other than zero: nothing to quantize")
    found, inertia, codebook = _clusters(weight, kept, 1 << bits, rate, init, seed)
    if not found.any():
        raise StageError(f"{layer.name} has no weight that is worth its bits: lower its rate")
    indices = torch.zeros(weight.shape, dtype=torch.int32)
    indices[torch.from_numpy(kept)] = torch.from_numpy(found)
    device = layer.weight.device
    share_layer(layer, indices.to(device), torch.from_numpy(codebook).to(device))
    return {
        "layer": layer.name,
        "bits": bits,
        "rate": rate,
        "centroids": len(codebook),
        "rms_error": float((inertia / kept.sum()) ** 0.5),
    }


def _clusters(
    weight: NDArray[np.float32],
    kept: NDArray[np.bool_],
    k: int,
    rate: float,
    init: Init,
    seed: int,
) -> tuple[NDArray[np.int32], float, NDArray[np.float32]]:
    """Indices of the kept weights (0: zero after all), sum of squared errors, codebook."""
    if rate > 0:
        pruned = int(weight.size - kept.sum())
        quantized = quantize(weight[kept], k, rate, pruned=pruned, init=init, seed=seed)
        return quantized.indices, quantized.inertia, quantized.codebook
    clusters = cluster(weight[kept], k, init=init, seed=seed)
    return clusters.labels.astype(np.int32) + 1, clusters.inertia, clusters.codebook
