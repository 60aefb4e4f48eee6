"""Parts of a run's report: a layer, the data."""

from typing import Any

from compressor.artifact import Entry
from compressor.training.data import Data

Json = dict[str, Any]


def layer_row(entry: Entry, dense: int) -> Json:
    """What a stage's artifact has of a layer, which had ``dense`` weights before all stages."""
    return {
        "shape": list(entry.shape),
        "weights": entry.elements,
        "nonzero": entry.nonzero,
        "sparsity": entry.sparsity,
        "bytes": entry.bytes,
        "ratio": 4 * dense / entry.bytes if entry.bytes else None,
    }


def describe(data: Data | None) -> Json | None:
    """The data set that a run used."""
    if data is None:
        return None
    return {
        "name": data.name,
        "classes": data.classes,
        "training_images": len(data.train.y),
        "validation_images": len(data.validation.y),
        "test_images": len(data.test.y),
    }
