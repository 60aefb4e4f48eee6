"""Scores that know what positions cost in the file.

A weight alone in its row or column costs more bits than one among many: an entropy coder's price of
a position is near -log2 of the density around it, and a row or column that empties is removed
altogether. So scores are weighted by how dense the weight's row and column are, to a power.
"""

import numpy as np
from numpy.typing import NDArray

_RANGE = (1e-3, 30.0)
"""Of the weight, before the power: a row that is empty now may fill up again."""

_FLOOR = 1e-3
"""Added to densities, for those of nothing."""


def rate_aware(
    scores: NDArray[np.floating], kept: NDArray[np.bool_], rate: float
) -> NDArray[np.floating]:
    """``scores`` (rows, ...) times (row's density x column's density / mean density^2)^``rate``.

    ``kept``, of the same shape, is what is not pruned now. A column is an index of all axes but the
    first: an input of a unit, or one weight of a filter. A rate of 0 leaves scores as they are.
    """
    if rate == 0 or scores.ndim < 2:
        return scores
    matrix = kept.reshape(len(kept), -1).astype(np.float64)
    mean = matrix.mean() + _FLOOR
    rows, columns = matrix.mean(1) + _FLOOR, matrix.mean(0) + _FLOOR
    weight = np.clip(np.outer(rows / mean, columns / mean), *_RANGE) ** rate
    found: NDArray[np.floating] = scores * weight.reshape(scores.shape)
    return found
