"""Our encoder's profiles as the benchmarks run them, and NNCodec's integers in its terms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact import Shared
from compressor.artifact.types import index_dtype
from compressor.benchmarks.codec.rivals.nncodec import Levels

PROFILES: dict[str, dict[str, Any]] = {
    "huffman": {"profile": "huffman"},
    "fast": {"profile": "fast"},
    "best": {"profile": "best"},
}
"""Arguments of `compressor.artifact.encode` by the name of the profile."""


def as_shared(levels: npt.NDArray[np.int32], step: np.float32) -> Shared:
    """A tensor of ``levels * step``, coded as a grid: one entry for each level of the range.

    Raises ArtifactError for a range of more than 65,536 levels.
    """
    negative = max(0, -int(levels.min(initial=0)))
    every = np.arange(-negative, int(levels.max(initial=0)) + 1)
    codebook = np.delete(every, negative).astype(np.float32) * step
    index = np.where(levels == 0, 0, levels + negative + (levels < 0))
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
