"""Stage 2: share weights by clustering, fine-tune the centroids."""

import torch

from compressor.errors import StageError
from compressor.layers import Layer, compressible_layers, share_layer
from compressor.network import Context, Network, Row, StageReport
from compressor.quantization.clustering import cluster
from compressor.recipe import Init, Share
from compressor.training.fit import fit


def share(network: Network, settings: Share, context: Context) -> StageReport:
    """Cluster each layer's non-zero weights into 2^bits centroids and fine-tune them.

    Weights that are zero stay out of the codebook and stay zero. Fine-tuning moves centroids (by
    gradients summed per cluster; Deep Compression, section 3.3), biases and norms; assignments
    stay. Raises :class:`StageError` for a layer without a non-zero weight.
    """
    layers = compressible_layers(network.module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to quantize")
    wanted = settings.rules.resolve({n: layer.kind for n, layer in layers.items()})
    rows: list[Row] = []
    with context.progress.task("cluster", len(wanted)) as advance:
        for name, bits in wanted.items():
            rows.append(_share(layers[name], int(bits), settings.init, context.seed))
            advance(name)
    epochs = fit(network.module, settings.finetune, context, "fine-tune centroids")
    return StageReport(rows, [epoch.row() for epoch in epochs])


def _share(layer: Layer, bits: int, init: Init, seed: int) -> Row:
    weight = layer.weight.cpu().numpy()
    kept = weight != 0
    if not kept.any():
        raise StageError(f"{layer.name} has no weight other than zero: nothing to quantize")
    clusters = cluster(weight[kept], 1 << bits, init=init, seed=seed)
    indices = torch.zeros(weight.shape, dtype=torch.int32)
    indices[torch.from_numpy(kept)] = torch.from_numpy(clusters.labels.astype("int32") + 1)
    device = layer.weight.device
    share_layer(layer, indices.to(device), torch.from_numpy(clusters.codebook).to(device))
    return {
        "layer": layer.name,
        "bits": bits,
        "centroids": len(clusters.codebook),
        "rms_error": float((clusters.inertia / kept.sum()) ** 0.5),
    }
