"""Indices as signed levels: what context models see of a codebook.

The level of index 0, a pruned weight, is 0. Centroids without a sign bit are levels 1, 2, ... in
the order of their bits, which is that of their values; those with one are levels -1, -2, ...;
equal ones in the order in which they stand. So neighbouring levels are neighbouring values, and
nothing is computed in floats.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.heads import Book
from compressor.artifact.types import BLOCK

_SIGN = np.uint32(1 << 31)


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns: the first dimension, and all others. A vector is one row."""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


class LevelMap:
    """Which level each index has: ``levels`` (k + 1,) int32, from -``negative`` to ``positive``."""

    def __init__(self, codebook: Book) -> None:
        bits = np.ascontiguousarray(codebook, dtype="<f4").view("<u4")
        signed = (bits & _SIGN) != 0
        self.negative = int(np.count_nonzero(signed))
        self.positive = len(bits) - self.negative
        self.levels = np.zeros(len(bits) + 1, dtype=np.int32)
        order = np.argsort(bits, kind="stable")  # those with a sign bit come last
        self.levels[1 + order[: self.positive]] = np.arange(1, self.positive + 1)
        self.levels[1 + order[self.positive :]] = -np.arange(1, self.negative + 1)

    def indices(
        self, levels: npt.NDArray[np.int32], dtype: np.dtype[np.unsignedinteger[Any]]
    ) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the index of each level, (n,), all of them in range."""
        table = np.empty(len(self.levels), dtype=dtype)
        table[self.levels + self.negative] = np.arange(len(table))
        found = np.empty(len(levels), dtype=dtype)
        for start in range(0, len(levels), BLOCK):
            found[start : start + BLOCK] = table[levels[start : start + BLOCK] + self.negative]
        return found
