"""Our encoder's profiles as the benchmarks run them, and NNCodec's integers in its terms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact import Shared
from compressor.artifact.types import index_dtype
from compressor.benchmarks.codec.rivals.nncodec import Levels

PROFILES: dict[str, dict[str, Any]] = {
    "huffman": {"entropy": "huffman"},
    "rans": {"entropy": "rans"},
}
"""Arguments of `compressor.artifact.encode` by the name of the profile."""


def as_shared(levels: npt.NDArray[np.int32], step: np.float32) -> Shared:
    """A tensor of ``levels * step``, coded as a grid: one entry for each level there is.

    Raises ArtifactError for more than 65,536 different levels.
    """
    present = np.unique(levels)
    present = present[present != 0]
    codebook = present.astype(np.float32) * step
    index = np.searchsorted(present, levels) + 1
    index[levels == 0] = 0
    return Shared(index.astype(index_dtype(len(codebook))), codebook)


def as_tensors(network: Mapping[str, Levels]) -> dict[str, Any]:
    """A network of levels and steps: weights shared, all else (batch norm, biases) as float32.

    What is not a weight has too many levels for a codebook to pay: NNCodec's default step for it
    is 2.4e-6.
    """
    return {
        name: as_shared(tensor.levels, tensor.step) if tensor.levels.ndim > 1 else tensor.dense()
        for name, tensor in network.items()
    }
