"""What is measured of a network as it goes through the stages: bytes, counts, accuracy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import artifact
from compressor.layers import compressible_layers
from compressor.network import Network
from compressor.reporting.accuracy import change
from compressor.reporting.histograms import distributions
from compressor.reporting.measure import layer_macs, measure
from compressor.reporting.rows import layer_row
from compressor.training.data import Data
from compressor.training.evaluation import scores

Json = dict[str, Any]


class Figures:
    """Of one network and its data, made while it is dense.

    ``fp32_bytes`` are four for each parameter of the dense network: what every ratio is against.
    ``right`` is each test image's score when the network was last evaluated, (N,): of a
    classification bool, right or wrong; None without data.
    """

    def __init__(self, network: Network, data: Data | None) -> None:
        self.network, self.data = network, data
        self.recount()
        layers = compressible_layers(network.module)
        self.weights = {name: layer.weight.numel() for name, layer in layers.items()}
        self.fp32_bytes = 4 * measure(network, self.macs).parameters
        self.right: NDArray[Any] | None = None

    def recount(self) -> None:
        """Count multiply-adds of each layer anew, as after channels went."""
        self.macs = layer_macs(self.network.module, self.network.example)

    def of_dense(self, written: int) -> Json:
        """Of the network as loaded, whose ONNX file has ``written`` bytes."""
        return {
            "bytes": written,
            "bits_per_weight": 32.0,
            **measure(self.network, self.macs).row(),
            "accuracy": self.accuracy(),
            "distributions": distributions(self.network.module),
        }

    def of_stage(self, blob: bytes, layers: list[Json]) -> Json:
        """What a stage reports: the bytes of its artifact ``blob``, counts, accuracy, and layers'
        rows, each with what the stage itself says of that layer."""
        decoded = artifact.decode(blob)
        weights_only = decoded.size_without_graph
        size = measure(self.network, self.macs)
        settings = {row["layer"]: row for row in layers}
        rows = []
        for entry in decoded.entries:
            name = entry.name.removesuffix(".weight")
            if name in compressible_layers(self.network.module):
                row = layer_row(entry, self.weights[name])
                rows.append({**row, **settings.get(name, {}), "layer": name})
        return {
            "bytes": len(blob),
            "weights_only_bytes": weights_only,
            "ratio": self.fp32_bytes / len(blob),
            "bits_per_weight": 8 * weights_only / size.parameters,
            **size.row(),
            "accuracy": self.accuracy(),
            "layers": rows,
        }

    def accuracy(self) -> float | None:
        """Of the network as it is now, on the test images; None without data."""
        if self.data is None:
            return None
        self.right = scores(self.network.module, self.data, self.data.test).cpu().numpy()
        return float(self.right.mean(dtype=np.float64))

    def change(self, before: bytes | None) -> Json | None:
        """From the dense network's scores ``before`` to the network evaluated last, on the same
        images; None without data."""
        data, right = self.data, self.right
        if before is None or data is None or right is None:
            return None
        better = 1 if data.task.higher_is_better else -1
        return change(np.frombuffer(before, right.dtype), right, better=better)
