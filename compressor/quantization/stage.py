"""Stage 2: share weights by clustering, fine-tune the centroids."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import StageError
from compressor.layers import (
    Layer,
    compressible_layers,
    retrain_shared,
    settle_shared,
    share_layer,
    trained_weight,
)
from compressor.network import Context, Network, Row, StageReport
from compressor.quantization import ternary
from compressor.quantization.clustering import cluster
from compressor.quantization.inputs import drawn
from compressor.quantization.rate_aware import quantize
from compressor.quantization.sensitivity import Sensitivity, measure
from compressor.settings import TERNARY, Init, Share
from compressor.training.fit import fit

_IMAGES = 500
"""Training images that tell what errors cost."""


def share(network: Network, settings: Share, context: Context) -> StageReport:
    """Cluster each layer's non-zero weights into 2^bits centroids and fine-tune them.

    Where the layer's rate is over 0, `compressor.quantization.rate_aware` takes the place of
    k-means, with what errors cost the outputs where there are data to tell. Weights that are zero
    stay out of the codebook and stay zero. Ternary layers learn their assignments too
    (`compressor.quantization.ternary`). Where ``settings.train`` has epochs, weights then train on
    behind their shared values. Fine-tuning moves centroids (by gradients summed per cluster; Deep
    Compression, section 3.3), biases and norms; other layers' assignments stay.

    Raises :class:`StageError` for a layer without a non-zero weight, or with none worth its bits.
    """
    layers = compressible_layers(network.module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to quantize")
    wanted = settings.rules.resolve({n: layer.kind for n, layer in layers.items()})
    rates = settings.rates.resolve({n: layer.kind for n, layer in layers.items()})
    sizes = settings.sizes.resolve({n: layer.kind for n, layer in layers.items()})
    costs: dict[str, Sensitivity] = {}
    if context.data is not None and any(rates.values()):
        known = drawn(context.data, _IMAGES, context)
        costs = measure(network.module, layers, known, context).layers
    rows: list[Row] = []
    with context.progress.task("cluster", len(wanted)) as advance:
        for name, bits in wanted.items():
            if bits == TERNARY:
                ternary.begin(layers[name], settings.threshold)
                rows.append({"layer": name, "bits": bits})
                advance(name)
                continue
            rate, cost = rates.get(name, 0.0), costs.get(name)
            importance = None if cost is None else cost.of_weights(layers[name]).float().numpy()
            k = int(sizes.get(name, 0)) or 1 << int(bits)
            clusters = _Clusters(k, rate, settings.init, context.seed, importance)
            row = {"layer": name, "bits": int(bits), "rate": rate}
            rows.append(row | _share(layers[name], clusters))
            advance(name)
    if settings.has_ternary and context.data is None:
        context.progress.note("without data ternary weights are not trained: accuracy will suffer")
    history = _trained(network, settings, context) if settings.train.epochs else []
    epochs = fit(network.module, settings.finetune, context, "fine-tune centroids")
    trained = ternary.finish(layers)
    for row in rows:
        row.setdefault("centroids", trained.get(row["layer"]))
    return StageReport(rows, history + [epoch.row() for epoch in epochs])


def _trained(network: Network, settings: Share, context: Context) -> list[Row]:
    layers = compressible_layers(network.module).values()
    shared = [layer for layer in layers if retrain_shared(layer)]
    epochs = fit(network.module, settings.train, context, "train behind centroids")
    for layer in shared:
        settle_shared(layer)
    return [epoch.row() for epoch in epochs]


def _share(layer: Layer, clusters: "_Clusters") -> Row:
    weight = layer.weight.cpu().numpy()
    kept = weight != 0
    if not kept.any():
        raise StageError(f"{layer.name} has no weight other than zero: nothing to quantize")
    values = weight[kept]
    del weight  # a large layer has no room for it below
    found, inertia, codebook = clusters.of(values, kept)
    if not found.any():
        raise StageError(f"{layer.name} has no weight that is worth its bits: lower its rate")
    indices = np.zeros(kept.shape, np.int32)
    indices[kept] = found
    rms, device = float((inertia / kept.sum()) ** 0.5), trained_weight(layer).device
    del values, kept, found
    share_layer(layer, torch.from_numpy(indices).to(device), torch.from_numpy(codebook).to(device))
    return {"centroids": len(codebook), "rms_error": rms}


@dataclass(frozen=True)
class _Clusters:
    """How one layer's weights are clustered; ``importance`` has the weight's shape."""

    k: int
    rate: float
    init: Init
    seed: int
    importance: NDArray[np.float32] | None

    def of(
        self, values: NDArray[np.float32], kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], float, NDArray[np.float32]]:
        """Indices of the kept weights' ``values`` (0: zero after all), sum of squared errors,
        codebook. ``kept`` has the weight's shape."""
        if self.rate > 0:
            quantized = quantize(
                values,
                self.k,
                self.rate,
                importance=None if self.importance is None else self.importance[kept],
                pruned=int(kept.size - kept.sum()),
                init=self.init,
                seed=self.seed,
            )
            return quantized.indices, quantized.inertia, quantized.codebook
        clusters = cluster(values, self.k, init=self.init, seed=self.seed)
        return clusters.labels.astype(np.int32) + 1, clusters.inertia, clusters.codebook
